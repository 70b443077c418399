// Choosing people in the list: each, or all on the page; the bar says how many.
const boxes = () => [...document.querySelectorAll("#people-list .pick-one")];

function show() {
  const head = document.getElementById("pick-all");
  const bar = document.getElementById("bulk");
  if (!head || !bar) return;
  const all = boxes();
  const ticked = all.filter((box) => box.checked).length;
  head.hidden = all.length === 0;
  head.checked = ticked > 0 && ticked === all.length;
  head.indeterminate = ticked > 0 && ticked < all.length;
  const text = ticked === 1 ? bar.dataset.one : bar.dataset.many.replace("{n}", ticked.toLocaleString());
  bar.querySelector(".bulk-count").textContent = ticked ? text : "";
}

document.addEventListener("change", (event) => {
  if (event.target.id === "pick-all") for (const box of boxes()) box.checked = event.target.checked;
  if (event.target.closest?.("#people-list")) show();
});
document.addEventListener("reset", (event) => { if (event.target.id === "bulk") setTimeout(show); });
// What was asked for is done: nobody stays chosen.
document.addEventListener("showChanges", () => document.getElementById("bulk")?.reset());
document.addEventListener("htmx:afterSettle", show);
show();
