// Choosing rows of a list: with the mouse, by ranges (Shift), and by keys (j, k, x, a, Escape).
const list = () => document.querySelector("[data-picks]");
const boxes = () => [...document.querySelectorAll("[data-picks] .pick-one")];
const chosen = () => boxes().filter((box) => box.checked);
const byId = (id) => document.getElementById(id);
let anchor = "";  // the id of the box that was ticked last: a range begins there

// --- what the bar says ----------------------------------------------------------------------------------
function show() {
  const head = byId("pick-all");
  const bar = byId("bulk");
  if (!head || !bar) return;
  const all = boxes();
  const ticked = chosen().length;
  const matching = byId("pick-matching");
  head.hidden = all.length === 0;
  head.checked = ticked > 0 && ticked === all.length;
  head.indeterminate = ticked > 0 && ticked < all.length;
  if (matching && ticked < all.length) matching.checked = false;
  const number = matching?.checked ? Number(list().dataset.total) : ticked;
  const text = number === 1 ? bar.dataset.one : bar.dataset.many.replace("{n}", number.toLocaleString());
  bar.querySelector(".bulk-count").textContent = ticked ? text : "";
}

function tick(box, on, { range = false } = {}) {
  const all = boxes();
  const from = all.findIndex((one) => one.id === anchor);
  const to = all.indexOf(box);
  if (range && from >= 0) for (const one of all.slice(Math.min(from, to), Math.max(from, to) + 1)) one.checked = on;
  box.checked = on;
  anchor = box.id;
  show();
}

function tickAll(on) {
  for (const box of boxes()) box.checked = on;
  show();
}

document.addEventListener("click", (event) => {
  if (event.target instanceof HTMLInputElement && event.target.matches(".pick-one")) {
    tick(event.target, event.target.checked, { range: event.shiftKey });
  }
});
document.addEventListener("change", (event) => {
  if (event.target.id === "pick-all") tickAll(event.target.checked);
  if (event.target.id === "pick-matching") {
    if (event.target.checked) tickAll(true);
    show();
  }
});
document.addEventListener("reset", (event) => { if (event.target.id === "bulk") setTimeout(show); });
document.addEventListener("mousedown", (event) => {
  if (event.shiftKey && event.target.closest?.(".pick")) event.preventDefault();  // selects no text
});
// What was asked for is done: nothing stays chosen.
document.addEventListener("showChanges", () => byId("bulk")?.reset());
document.addEventListener("htmx:afterSettle", show);
show();

// --- by keys --------------------------------------------------------------------------------------------
const names = () => [...document.querySelectorAll("[data-picks] .thing-name")];
const current = () => document.activeElement?.closest("[data-picks] tbody tr");

function move(step) {
  const all = names();
  const at = all.findIndex((name) => name.closest("tr") === current());
  const next = all[at < 0 ? (step > 0 ? 0 : all.length - 1) : Math.max(0, Math.min(all.length - 1, at + step))];
  next?.focus();
  next?.closest("tr").scrollIntoView({ block: "nearest" });
}

const KEYS = {
  j: () => move(1),
  k: () => move(-1),
  x: (event) => {
    const box = current()?.querySelector(".pick-one");
    if (box) tick(box, !box.checked, { range: event.shiftKey });
  },
  a: () => tickAll(chosen().length < boxes().length),
  escape: () => byId("bulk")?.reset(),
};

document.addEventListener("shortcut", (event) => {
  const act = KEYS[event.detail.key.toLowerCase()];
  if (!act || !list()) return;
  event.preventDefault();
  act(event.detail.event);
});
