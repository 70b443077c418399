// Access controls: the policy's text in an editor, its rules beside it, and what a save would do.
// Without this script the same form works with a plain text field.
const $ = (selector, root = document) => root.querySelector(selector);
const form = $("#access");
const area = $("#policy-text");
const side = () => $("#access-side");
const facts = () => side().dataset;
const words = form.dataset;

const CHECK_MS = 600; // of no typing, before the text is looked at
const NARROW = matchMedia("(max-width: 62rem)");
const { nonce } = $("script[nonce]");
const {
  Compartment, EditorState, EditorView, autocompletion, bracketMatching, closeBrackets, closeBracketsKeymap, colours,
  completionKeymap, defaultKeymap, drawSelection, foldGutter, foldKeymap, highlightActiveLine, highlightActiveLineGutter,
  highlightSelectionMatches, history, historyKeymap, indentOnInput, indentUnit, isolateHistory, jsonc, keymap, lineNumbers, lintGutter, lintKeymap,
  search, searchKeymap, setDiagnostics, syntaxTree, unifiedMergeView,
} = await import(words.editor);

// --- the editor -------------------------------------------------------------------------------------------
// What can be named in a rule: what this tailnet has, and what the text itself defines.
function namesIn(text) {
  const found = text.matchAll(/"((?:group|tag|ipset|posture):[^"\\\s:]+)"/g);
  return [...new Set([...JSON.parse(words.names), ...[...found].map(([, name]) => name)])];
}

function complete(context) {
  const node = syntaxTree(context.state).resolveInner(context.pos, -1);
  if (!/String/.test(node.name)) return null;
  const typed = context.matchBefore(/[^"]*/);
  if (!typed || (typed.from === typed.to && !context.explicit)) return null;
  return { from: typed.from, options: namesIn(context.state.doc.toString()).map((label) => ({ label })), validFor: /^[^"]*$/ };
}

const merging = new Compartment();
let saved = area.defaultValue;
const readOnly = area.readOnly;

const view = new EditorView({
  doc: area.value,
  extensions: [
    EditorView.cspNonce.of(nonce),
    EditorState.phrases.of(JSON.parse(words.phrases)),
    EditorView.contentAttributes.of({ "aria-label": words.label, tabindex: "0", ...(readOnly ? { "aria-readonly": "true" } : {}) }),
    EditorState.readOnly.of(readOnly),
    EditorView.editable.of(!readOnly),
    EditorState.tabSize.of(2),
    indentUnit.of("\t"),
    lineNumbers(), highlightActiveLineGutter(), foldGutter(), history(), drawSelection(), indentOnInput(), bracketMatching(),
    closeBrackets(), autocompletion({ override: [complete] }), highlightActiveLine(), highlightSelectionMatches(), search({ top: true }),
    lintGutter(), colours, jsonc(), merging.of([]), EditorView.lineWrapping,
    // The Tab key leaves the editor, as it leaves any field.
    keymap.of([...closeBracketsKeymap, ...defaultKeymap, ...searchKeymap, ...historyKeymap, ...foldKeymap, ...completionKeymap, ...lintKeymap]),
    EditorView.updateListener.of((update) => { if (update.docChanged) changed(); }),
  ],
});
area.before(view.dom);
area.hidden = true;
form.classList.add("has-editor");

const text = () => view.state.doc.toString();
const isDirty = () => !readOnly && text() !== saved;

// Only what differs is replaced: the place, the folds and the way back stay.
function replaceText(fresh) {
  const old = text();
  let from = 0;
  while (from < old.length && from < fresh.length && old[from] === fresh[from]) from += 1;
  let end = 0;
  while (end < Math.min(old.length, fresh.length) - from && old.at(-1 - end) === fresh.at(-1 - end)) end += 1;
  if (old === fresh) return;
  view.dispatch({ changes: { from, to: old.length - end, insert: fresh.slice(from, fresh.length - end) }, effects: EditorView.scrollIntoView(from, { y: "center" }),
    annotations: isolateHistory.of("full") }); // each is taken back by itself
}

// --- unsaved, checked, shown ------------------------------------------------------------------------------
let timer = 0;

function changed() {
  clearTimeout(timer);
  timer = setTimeout(look, CHECK_MS);
  showDirty();
}

function showDirty() {
  const dirty = isDirty();
  const bar = $("#save-bar");
  if (bar) bar.hidden = !dirty;
  form.classList.toggle("is-dirty", dirty);
}

// Not from the form itself: htmx would send it where its last button does.
const look = () => htmx.ajax("POST", "/access", { source: "#policy-card", target: "#access-side", swap: "outerHTML", values: { show: facts().show, glance: "1" } });

function placeOf({ line, column }) {
  const { doc } = view.state;
  if (!line || line > doc.lines) return { from: 0, to: Math.min(1, doc.length) };
  const at = doc.line(line);
  const from = Math.min(at.from + Math.max(0, column - 1), at.to);
  return { from: from === at.to ? at.from : from, to: at.to };
}

function showProblems() {
  const problems = JSON.parse(facts().problems || "[]");
  view.dispatch(setDiagnostics(view.state, problems.map((one) => ({ ...placeOf(one), severity: one.severity, message: one.message }))));
}

function showIn(from, to) {
  const { doc } = view.state;
  const range = { anchor: Math.min(from, doc.length), head: Math.min(to, doc.length) };
  view.dispatch({ selection: range, effects: EditorView.scrollIntoView(range.anchor, { y: "center" }) });
  if (NARROW.matches) $("#policy-card").scrollIntoView();
  view.focus();
}

function toggleChanges(button) {
  const on = button.getAttribute("aria-pressed") !== "true";
  button.setAttribute("aria-pressed", String(on));
  showChanges(on);
}

const showChanges = (on) => view.dispatch({ effects: merging.reconfigure(on ? unifiedMergeView({ original: saved, mergeControls: false, highlightChanges: true, gutter: true }) : []) });

// --- what the server says ---------------------------------------------------------------------------------
let sent = "";
document.addEventListener("htmx:configRequest", ({ detail }) => {
  if (detail.parameters.text === undefined) return;
  if (detail.elt.closest("#access")) detail.parameters.text = text();
  sent = detail.parameters.text;
});
form.addEventListener("submit", () => { area.value = text(); leaving = true; });

// What comes by itself, because of typing, takes no open menu away.
document.addEventListener("htmx:beforeSwap", ({ detail }) => {
  if (detail.requestConfig.elt.id !== "policy-card" || !detail.target.querySelector(":popover-open")) return;
  detail.shouldSwap = false;
  clearTimeout(timer);
  timer = setTimeout(look, CHECK_MS);
});

// What was typed while the answer came is newer than the answer.
document.addEventListener("htmx:afterSwap", ({ detail }) => {
  if (detail.target.id !== "access-side" && detail.target !== form) return;
  const fresh = $("#policy-fresh");
  const known = fresh ? fresh.value : sent;
  if (fresh && text() === sent) replaceText(fresh.value);
  if (facts().saved !== undefined) {
    saved = known;
    $("[name=comment]", form).value = "";
    const button = $("[data-changes]");
    if (button?.getAttribute("aria-pressed") === "true") showChanges(true);
  }
  fresh?.remove();
  clearTimeout(timer);
  if (text() !== known) timer = setTimeout(look, CHECK_MS);
  showProblems();
  showDirty();
});

document.addEventListener("click", (event) => {
  const target = event.target instanceof Element ? event.target : null;
  const rule = target?.closest("[data-from]");
  if (rule) showIn(Number(rule.dataset.from), Number(rule.dataset.to));
  const line = target?.closest("[data-line]");
  if (line) {
    event.preventDefault();
    const at = placeOf({ line: Number(line.dataset.line), column: Number(line.dataset.column || 1) });
    showIn(at.from, at.from);
  }
  const changes = target?.closest("[data-changes]");
  if (changes) toggleChanges(changes);
});

let leaving = false;
addEventListener("beforeunload", (event) => { if (isDirty() && !leaving) event.preventDefault(); });
document.addEventListener("click", (event) => { if (event.target instanceof Element && event.target.closest("[data-discard]")) leaving = true; });
addEventListener("keydown", (event) => {
  if ((event.ctrlKey || event.metaKey) && event.key === "s" && !readOnly) {
    event.preventDefault();
    if (isDirty()) $("#save-policy").click();
  }
});

showProblems();
showDirty();
form.dataset.ready = "";
