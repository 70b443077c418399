// Menus, dialogs, toasts, copying, keys: what every page of the panel does without its server.
const $ = (selector, root = document) => root.querySelector(selector);
const texts = () => $("#texts")?.dataset ?? {};

// --- toasts ---------------------------------------------------------------------------------------------
const TOAST_MS = 6000;
const MAX_TOASTS = 4;

function toast(message, { error = false } = {}) {
  const list = $("#toasts");
  if (!list || !message) return;
  const item = document.createElement("div");
  item.className = error ? "toast-item error" : "toast-item";
  item.textContent = message;
  list.append(item);
  raise(list);
  while (list.children.length > MAX_TOASTS) list.firstChild.remove();
  setTimeout(() => item.remove(), error ? TOAST_MS * 2 : TOAST_MS);
}

// Above an open dialog, too: what was shown last in the top layer is on top.
function raise(list) {
  if (list.matches(":popover-open")) list.hidePopover();
  list.showPopover();
}

if ($("#toasts")?.children.length) raise($("#toasts"));
// "failed" is bad news of a good answer: htmx takes an event's "error" for one of its own, and logs it.
document.addEventListener("toast", ({ detail }) => toast(detail.message, { error: detail.error || detail.failed }));

// --- menus: popovers that open under their button -------------------------------------------------------
const GAP = 6;

function place(menu, button) {
  const box = button.getBoundingClientRect();
  const width = menu.offsetWidth;
  const height = menu.offsetHeight;
  const left = menu.dataset.align === "start" ? box.left : box.right - width;
  const below = box.bottom + GAP + height <= innerHeight || box.top < height + GAP;
  menu.style.left = `${Math.max(8, Math.min(left, innerWidth - width - 8))}px`;
  menu.style.top = `${below ? Math.min(box.bottom + GAP, innerHeight - height - 8) : box.top - GAP - height}px`;
}

document.addEventListener("toggle", (event) => {
  const menu = event.target;
  if (!(menu instanceof HTMLElement) || !menu.matches(".menu[popover]")) return;
  const button = $(`[popovertarget="${menu.id}"]`);
  const open = event.newState === "open";
  button?.setAttribute("aria-expanded", String(open));
  if (open && button) {
    place(menu, button);
    $(".menu-item", menu)?.focus({ preventScroll: true });
  }
}, true);

const closeMenus = () => document.querySelectorAll(".menu:popover-open").forEach((menu) => menu.hidePopover());
addEventListener("resize", closeMenus);
document.addEventListener("scroll", (event) => {
  if (!(event.target instanceof HTMLElement) || !event.target.closest(".menu")) closeMenus();
}, { capture: true, passive: true });

document.addEventListener("keydown", (event) => {
  const menu = event.target instanceof Element ? event.target.closest(".menu") : null;
  if (!menu || (event.key !== "ArrowDown" && event.key !== "ArrowUp")) return;
  event.preventDefault();
  const items = [...menu.querySelectorAll(".menu-item")];
  const step = event.key === "ArrowDown" ? 1 : -1;
  items.at((items.indexOf(document.activeElement) + step) % items.length)?.focus();
});

// --- where the keyboard is, after what it stood on was replaced ------------------------------------------
const buttonOf = (element) => {
  const menu = element?.closest(".menu");
  return menu ? $(`[popovertarget="${menu.id}"]`) : element;
};
let stoodIn = "";

document.addEventListener("htmx:beforeSwap", (event) => {
  const { target } = event.detail;
  stoodIn = target.contains(document.activeElement) ? target.id : "";
});
document.addEventListener("htmx:afterSettle", () => {
  if (stoodIn && document.activeElement === document.body) {
    document.getElementById(stoodIn)?.querySelector("[popovertarget], a, button")?.focus({ preventScroll: true });
  }
  stoodIn = "";
});

// --- the one dialog -------------------------------------------------------------------------------------
const sheet = () => $("#sheet");
let openerId = "";

document.addEventListener("htmx:afterSwap", (event) => {
  const dialog = sheet();
  if (event.detail.target !== dialog || !dialog.firstElementChild) return;
  if (!dialog.open) openerId = buttonOf(event.detail.requestConfig?.elt)?.id ?? "";
  closeMenus();
  if (!dialog.open) dialog.showModal();
  const heading = $("h2", dialog);
  if (heading) {
    heading.id = "sheet-title";
    dialog.setAttribute("aria-labelledby", heading.id);
  }
  ($("[autofocus]", dialog) ?? $("input:not([type=hidden]), select, textarea", dialog))?.focus();
});

function closeSheet() {
  const dialog = sheet();
  if (dialog?.open) dialog.close();
}

document.addEventListener("closeSheet", closeSheet);
document.addEventListener("close", (event) => {
  if (event.target !== sheet()) return;
  for (const form of event.target.querySelectorAll("[data-stops]")) htmx.trigger(form, "htmx:abort");
  event.target.replaceChildren();
  if (openerId && document.activeElement === document.body) document.getElementById(openerId)?.focus({ preventScroll: true });
}, true);

document.addEventListener("click", (event) => {
  const target = event.target instanceof Element ? event.target : null;
  if (!target) return;
  if (target.closest("[data-close-sheet]") && sheet()?.open) {
    event.preventDefault();
    closeSheet();
  } else if (target === sheet() && !$("[data-keep-open]", sheet())) {
    closeSheet();
  } else if (target.closest("[data-nav-toggle]")) {
    setNav(!document.body.classList.contains("nav-open"));
  } else if (target.closest("[data-reload]")) {
    location.reload();
  } else if (target.closest("[data-copy]")) {
    copy(target.closest("[data-copy]"));
  } else if (target.closest(".menu a.menu-item, .menu button.menu-item:not([popovertarget])")) {
    closeMenus();
  }
});

// --- the drawer on small screens ------------------------------------------------------------------------
function setNav(open) {
  document.body.classList.toggle("nav-open", open);
  const button = $(".menu-button");
  button?.setAttribute("aria-expanded", String(open));
  $(".main").inert = open;
  (open ? $(".side nav a") : button)?.focus();
}

// --- times, in the reader's own zone and way -------------------------------------------------------------
const { lang } = document.documentElement;
const locale = navigator.languages.find((one) => one.split("-")[0] === lang) ?? lang;
const asDay = new Intl.DateTimeFormat(locale, { dateStyle: "medium" });
const asMinute = new Intl.DateTimeFormat(locale, { dateStyle: "medium", timeStyle: "short" });

function localTimes() {
  for (const element of document.querySelectorAll("time[data-moment]")) {
    const text = (element.dataset.moment === "day" ? asDay : asMinute).format(new Date(element.dateTime));
    if (element.title) element.title = text;
    else if (element.textContent !== text) element.textContent = text;
  }
}

localTimes();
document.addEventListener("htmx:afterSettle", localTimes);

// --- copying --------------------------------------------------------------------------------------------
const COPIED_MS = 1500;

function writeOldWay(text) {  // pages served by plain http have no clipboard API
  const area = document.createElement("textarea");
  area.value = text;
  area.className = "visually-hidden";
  (sheet()?.open ? sheet() : document.body).append(area);
  area.select();
  const done = document.execCommand("copy");
  area.remove();
  return done;
}

async function copy(button) {
  const text = button.dataset.copy;
  let done = false;
  try {
    await navigator.clipboard.writeText(text);
    done = true;
  } catch {
    done = writeOldWay(text);
  }
  button.focus();
  if (done) markCopied(button);
  toast(done ? texts().copied : texts().copyFailed, { error: !done });
}

function markCopied(button) {
  const use = $("use", button);
  if (!use) return;
  const copyIcon = use.getAttribute("href").replace(/#.*/, "#copy");
  use.setAttribute("href", copyIcon.replace("#copy", "#check"));
  setTimeout(() => use.setAttribute("href", copyIcon), COPIED_MS);
}

document.addEventListener("keydown", (event) => {
  if (event.key === "Escape" && document.body.classList.contains("nav-open")) setNav(false);
});

// --- answers of the server ------------------------------------------------------------------------------
document.addEventListener("htmx:configRequest", (event) => {
  const body = document.body.dataset;
  if (body.csrf) event.detail.headers["X-CSRFToken"] = body.csrf;
  if (body.tailnet) event.detail.headers["X-Trenza-Tailnet"] = body.tailnet;
});

document.addEventListener("htmx:responseError", (event) => {
  const { status } = event.detail.xhr;
  if (event.detail.xhr.getResponseHeader("HX-Trigger")) return;  // it brought its own words
  toast(texts()[`error${status}`] ?? texts().error, { error: true });
});
// A switch shows what is true: a change that was refused goes back.
const undo = (event) => event.detail.elt?.closest?.("form[data-undo]")?.reset();
document.addEventListener("htmx:responseError", undo);
document.addEventListener("htmx:sendError", undo);
document.addEventListener("htmx:sendError", () => toast(texts().offline, { error: true }));

document.addEventListener("otherTailnet", () => {
  const banner = $("#other-tailnet");
  if (banner) banner.hidden = false;
});
