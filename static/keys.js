// Keys of every page. Those of one letter reach a page's own scripts as "shortcut" events, unless somebody is
// typing, a dialog or menu is open, or they were switched off in the list of keys.
const OFF = "trenza.keys";
const $ = (selector) => document.querySelector(selector);
const busy = () => $("dialog[open], .menu:popover-open") !== null;
const typing = (target) => target instanceof Element && target.matches("input:not([type=checkbox]), textarea, select");

const areOff = () => localStorage.getItem(OFF) === "off";

function openSheet(path) {
  htmx.ajax("GET", path, { source: document.body, target: "#sheet", swap: "innerHTML" });
}

function search() {
  const field = [...document.querySelectorAll("[data-search]")].find((one) => one.offsetParent !== null);
  if (!field) return openSheet("/search");
  field.focus();
  return field.select();
}

const KEYS = { "?": () => openSheet("/shortcuts"), "/": search };

document.addEventListener("keydown", (event) => {
  if (!$("#sheet") || !document.body.dataset.tailnet) return;
  if (event.key.toLowerCase() === "k" && (event.ctrlKey || event.metaKey)) {
    event.preventDefault();
    if (!$("dialog[open]")) openPalette();
    return;
  }
  if (typedAhead(event)) return event.preventDefault();
  if (event.ctrlKey || event.metaKey || event.altKey || typing(event.target) || busy() || areOff()) return;
  const act = KEYS[event.key];
  const taken = act !== undefined || !document.dispatchEvent(
    new CustomEvent("shortcut", { cancelable: true, detail: { key: event.key, event } }),
  );
  if (taken) event.preventDefault();
  act?.();
});

// --- the switch in the list of keys -----------------------------------------------------------------------
function showSwitch() {
  const box = $("#single-keys");
  if (box) box.checked = !areOff();
}

showSwitch();
document.addEventListener("htmx:afterSwap", showSwitch);
document.addEventListener("change", (event) => {
  if (event.target.id === "single-keys") localStorage.setItem(OFF, event.target.checked ? "on" : "off");
});

// --- the palette: a field, and options that the arrows go through ------------------------------------------
const input = () => $("#palette-input");
const options = () => [...document.querySelectorAll("#palette-results [role=option]")];
let wanted = false;  // Enter came before the answer to what was typed
const AHEAD_MS = 5000;
let ahead = null;  // what is typed while the palette is still on its way, and until when that is waited for

function openPalette() {
  ahead = { text: "", until: Date.now() + AHEAD_MS };
  openSheet("/search");
}

function typedAhead(event) {
  if (ahead === null || Date.now() > ahead.until || event.ctrlKey || event.metaKey || event.altKey) return false;
  if (event.key === "Enter") wanted = true;
  else if (event.key === "Backspace") ahead.text = ahead.text.slice(0, -1);
  else if (event.key.length === 1) ahead.text += event.key;
  else return false;
  return true;
}

document.addEventListener("htmx:afterSettle", () => {  // by then htmx listens to the field
  if (ahead === null || !input()) return;
  if (ahead.text) {
    input().value = ahead.text;
    input().dispatchEvent(new Event("input", { bubbles: true }));
  }
  ahead = null;
});
for (const failed of ["htmx:sendError", "htmx:responseError"]) document.addEventListener(failed, () => { ahead = null; });

function mark(index) {
  const all = options();
  const at = all.length ? (index + all.length) % all.length : -1;
  all.forEach((one, number) => one.setAttribute("aria-selected", String(number === at)));
  all[at]?.scrollIntoView({ block: "nearest" });
  if (all[at]) input().setAttribute("aria-activedescendant", all[at].id);
  else input().removeAttribute("aria-activedescendant");
}

const marked = () => options().findIndex((one) => one.getAttribute("aria-selected") === "true");
const isFresh = () => $("#palette-results")?.dataset.query === input().value.trim();

function follow() {
  wanted = !isFresh();
  if (!wanted) options()[marked()]?.click();
}

document.addEventListener("keydown", (event) => {
  if (event.target !== input() || event.isComposing) return;
  const acts = { ArrowDown: () => mark(marked() + 1), ArrowUp: () => mark(marked() - 1), Enter: follow };
  if (!acts[event.key]) return;
  event.preventDefault();
  acts[event.key]();
});
document.addEventListener("htmx:afterSettle", () => {
  if (!input() || !$("#palette-results")) return;
  if (marked() < 0) mark(0);
  if (wanted && isFresh()) follow();
});
document.addEventListener("close", () => { wanted = false; }, true);
