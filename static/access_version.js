// One version of the policy: what it changed, in the editor's own view of differences.
const place = document.getElementById("version-diff");
const { dataset } = document.getElementById("version");
const [before, after] = ["text-before", "text-after"].map((id) => document.getElementById(id).value);

if (before !== after) {
  const { EditorState, EditorView, colours, jsonc, lineNumbers, unifiedMergeView } = await import(dataset.editor);
  const fallback = place.firstElementChild;
  const view = new EditorView({
    doc: after,
    parent: place,
    extensions: [
      EditorView.cspNonce.of(document.querySelector("script[nonce]").nonce),
      EditorState.phrases.of(JSON.parse(dataset.phrases)),
      EditorView.contentAttributes.of({ "aria-label": fallback.getAttribute("aria-label"), "aria-readonly": "true", tabindex: "0" }),
      EditorState.readOnly.of(true), EditorView.editable.of(false), lineNumbers(), colours, jsonc(), EditorView.lineWrapping,
      unifiedMergeView({ original: before, mergeControls: false, collapseUnchanged: { margin: 3, minSize: 6 } }),
    ],
  });
  fallback.hidden = true;
  place.dataset.ready = String(view.state.doc.lines);
}
