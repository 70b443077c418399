// Picking rows of the queue: all at once, how many, and kept while the list is fetched again.
const boxes = () => [...document.querySelectorAll("#queue-form input[name=item]")];
const picked = new Set();

function show() {
  const all = document.querySelector("[data-pick-all]");
  const there = boxes();
  const some = there.filter((box) => box.checked);
  if (all) {
    all.hidden = false;
    all.checked = some.length > 0 && some.length === there.length;
    all.indeterminate = some.length > 0 && !all.checked;
  }
  const number = document.querySelector("[data-picked]");
  if (number) number.textContent = String(some.length);
}

// What is no longer in the list is picked no more.
function restore() {
  const there = boxes();
  for (const box of there) box.checked = picked.has(box.value);
  const known = new Set(there.map((box) => box.value));
  for (const one of picked) if (!known.has(one)) picked.delete(one);
  show();
}

document.addEventListener("change", ({ target }) => {
  if (!(target instanceof HTMLInputElement) || !target.closest("#queue-form")) return;
  if (target.matches("[data-pick-all]")) for (const box of boxes()) box.checked = target.checked;
  picked.clear();
  for (const box of boxes()) if (box.checked) picked.add(box.value);
  show();
});

// For the keyboard: a row that was decided about takes the focus with it, so that goes on to the next one.
let byKeyboard = false;
document.addEventListener("click", ({ detail }) => { byKeyboard = detail === 0; }, true);
document.addEventListener("htmx:oobAfterSwap", ({ detail }) => {
  const rows = [...document.querySelectorAll("#queue tbody tr")];
  const row = rows.find((one) => one.id === detail.target.id);
  if (!row || !byKeyboard || document.activeElement !== document.body) return;
  const next = rows.slice(rows.indexOf(row) + 1).find((one) => !one.matches(".is-done"));
  next?.querySelector("button, a")?.focus({ preventScroll: true });
});
document.addEventListener("htmx:afterSettle", restore);
document.addEventListener("htmx:afterRequest", restore);
restore();
