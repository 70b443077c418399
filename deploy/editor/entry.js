// What the panel's policy editor uses of CodeMirror: bundled into one file, so that nothing else is fetched.
import { HighlightStyle, syntaxHighlighting } from "@codemirror/language";
import { tags } from "@lezer/highlight";

export { autocompletion, closeBrackets, closeBracketsKeymap, completionKeymap } from "@codemirror/autocomplete";
export { defaultKeymap, history, historyKeymap, isolateHistory } from "@codemirror/commands";
export { bracketMatching, foldGutter, foldKeymap, indentOnInput, indentUnit, syntaxTree } from "@codemirror/language";
export { lintGutter, lintKeymap, setDiagnostics } from "@codemirror/lint";
export { unifiedMergeView } from "@codemirror/merge";
export { highlightSelectionMatches, search, searchKeymap } from "@codemirror/search";
export { Compartment, EditorState } from "@codemirror/state";
export { EditorView, drawSelection, highlightActiveLine, highlightActiveLineGutter, keymap, lineNumbers } from "@codemirror/view";
export { jsonc } from "@shopify/lang-jsonc";

// Classes, so that the page's style sheet has the colours of both themes.
export const colours = syntaxHighlighting(HighlightStyle.define([
  { tag: tags.propertyName, class: "hl-name" },
  { tag: tags.string, class: "hl-string" },
  { tag: [tags.number, tags.bool, tags.null], class: "hl-literal" },
  { tag: [tags.lineComment, tags.blockComment], class: "hl-comment" },
  { tag: [tags.separator, tags.squareBracket, tags.brace], class: "hl-sign" },
]));
