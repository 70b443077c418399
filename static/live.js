// One WebSocket a page. It carries only {type, id, version}; what changed is fetched again through htmx, so
// permissions are checked where every page checks them.
const FIRST_WAIT_MS = 500;
const MAX_WAIT_MS = 15000;
const SILENCE_MS = 45000;
const QUIET_MS = 120;
const NOTICE_MS = 800;
const PATHS_MS = 2000; // paths change all the time in a large tailnet
const OTHER_TAILNET = 4409;
const SIGNED_OUT = 4401;

const body = document.body;
const banner = document.getElementById("reconnecting");
let wait = FIRST_WAIT_MS;
let lost = false;
let stopped = false;
let silence = 0;
let timer = 0;
let due = Infinity;
const changed = new Map();

// The element itself is the source: htmx runs one request per source at a time and drops what queues up, because
// the answer replaces the source. What changes meanwhile may have come too late for that answer: once more, then.
const onceMore = new Set();
function refetch(path, target, swap) {
  if (!target.classList.contains("htmx-request")) {
    htmx.ajax("GET", path, { source: target, target, swap });
  } else if (target.id && !onceMore.has(target.id)) {
    onceMore.add(target.id);
    later(() => onceMore.delete(target.id));
    laterFor(target, (fresh) => refetch(path, fresh, swap));
  }
}
const later = (action) => setTimeout(action, 1000);
// In a while, with what stands in the element's place then: an answer may have replaced it.
function laterFor(element, action) {
  later(() => {
    const fresh = element.isConnected ? element : element.id && document.getElementById(element.id);
    if (fresh) action(fresh);
  });
}
const here = () => location.pathname + location.search;
const all = (selector) => [...document.querySelectorAll(selector)];
// A list says in data-list which types of change its rows show; a row has the id "TYPE-ID" and its own data-src.
const lists = () => all("[data-list]");
// Rows never move under somebody's pointer, focus or open menu; an empty list has none to move.
const ROWS = ":is(tbody, ol.events)";
const paused = () => document.body.classList.contains("lists-paused");
const busy = (list) => paused() || list.querySelector(`${ROWS}:is(:hover, :focus-within, :has(:popover-open, details[open]))`) !== null;
const hasMenu = (element) => element.querySelector(":popover-open") !== null;

// --- what a change touches ------------------------------------------------------------------------------
function concerns(element, { type, id }) {
  const { live, node } = element.dataset;
  const ofDevices = type === "node" || type === "path";
  return live.split(" ").includes(type) && (!ofDevices || node === undefined || node === String(id));
}

function refreshFragment(element) {
  if (!element.isConnected) return;
  if (hasMenu(element)) laterFor(element, refreshFragment);
  else refetch(element.dataset.src, element, "outerHTML");
}

document.addEventListener("htmx:beforeSwap", ({ detail }) => {
  const { target, requestConfig } = detail;
  if (requestConfig.elt !== target || target.dataset.live === undefined || !hasMenu(target)) return;
  detail.shouldSwap = false; // a menu was opened while the answer came
  laterFor(target, refreshFragment);
});

// A device's paths are shown in its row.
const rowOf = ({ type, id }) => document.getElementById(`${type === "path" ? "node" : type}-${id}`);
const shows = (list, { type }) => list.dataset.list === "*" || list.dataset.list.split(" ").includes(type);

function refreshRow(change) {
  const row = rowOf(change);
  if (!row?.dataset.src) return;
  if (hasMenu(row)) later(() => refreshRow(change));
  else refetch(row.dataset.src, row, "outerHTML");
}

// A change of something without a row here may belong into a list; the paths of what is not shown do not.
const isElsewhere = (change) => !rowOf(change)?.dataset.src && change.type !== "path";

const refreshList = (list) => refetch(here(), list, "outerHTML");

// What somebody has just asked for within it comes first: its answer would find nobody to tell.
document.addEventListener("htmx:beforeSwap", (event) => {
  const { target, requestConfig } = event.detail;
  if (requestConfig.elt !== target || !target.querySelector(".htmx-request")) return;
  event.detail.shouldSwap = false;
  event.stopImmediatePropagation();
  laterFor(target, (fresh) => refetch(requestConfig.path, fresh, "outerHTML"));
});

// A list that somebody is in is replaced only where that moves nothing; else a bar offers what is new. Rows that
// were decided about ("is-done") stay in their places meanwhile.
const idsOf = (list) => [...list.querySelectorAll(`${ROWS} > [id]:not(.is-done)`)].map((row) => row.id).join(" ");

document.addEventListener("htmx:beforeSwap", (event) => {
  const { target: list, requestConfig, serverResponse } = event.detail;
  if (requestConfig.elt !== list || list.dataset.list === undefined || list.dataset.wanted !== undefined || !busy(list)) return;
  const fresh = new DOMParser().parseFromString(serverResponse, "text/html").getElementById(list.id);
  const same = fresh !== null && idsOf(fresh) === idsOf(list);
  const bar = list.querySelector(".new-bar");
  if (!same && bar) bar.hidden = false;
  if (!same || hasMenu(list) || list.querySelector(".is-done, tbody :focus:not([id])")) event.detail.shouldSwap = false;
});

// For pages that draw by themselves: what changed; nothing named = anything.
const tell = (batch) => document.dispatchEvent(new CustomEvent("changes", { detail: batch }));

function flush() {
  due = Infinity;
  const batch = [...changed.values()];
  changed.clear();
  if (batch.some((one) => one.type === "tailnet")) {
    refreshEverything();
    return;
  }
  const elsewhere = batch.filter(isElsewhere);
  if (batch.some(({ type }) => type === "path")) elsewhere.push({ type: "link" });  // a list of pairs
  for (const list of lists()) if (elsewhere.some((one) => shows(list, one))) refreshList(list);
  tell(batch);
  batch.forEach(refreshRow);
  for (const element of all("[data-live]")) if (batch.some((one) => concerns(element, one))) refreshFragment(element);
}

function refreshEverything() {
  tell([]);
  lists().forEach(refreshList);
  all("[data-live]").forEach(refreshFragment);
}

function onMessage(message) {
  changed.set(`${message.type}.${message.id}`, message);
  const wait = message.type === "path" ? PATHS_MS : QUIET_MS;
  if (performance.now() + wait >= due) return;
  clearTimeout(timer);
  due = performance.now() + wait;
  timer = setTimeout(flush, wait);
}

// --- the socket -----------------------------------------------------------------------------------------
function connect() {
  const scheme = location.protocol === "https:" ? "wss" : "ws";
  const socket = new WebSocket(`${scheme}://${location.host}/ws/panel/${body.dataset.tailnet}`);
  const heard = () => {
    clearTimeout(silence);
    silence = setTimeout(() => socket.close(), SILENCE_MS);
  };
  socket.addEventListener("message", (event) => {
    heard();
    const message = JSON.parse(event.data);
    if (message.type === "hello") {
      wait = FIRST_WAIT_MS;
      body.dataset.connection = "on";
      if (banner) banner.hidden = true;
      if (lost || message.version > Number(body.dataset.version || 0)) refreshEverything();
      lost = false;
    } else if (message.type !== "ping") {
      onMessage(message);
    }
  });
  socket.addEventListener("open", heard);
  socket.addEventListener("close", (event) => {
    clearTimeout(silence);
    if (stopped) return;
    body.dataset.connection = "off";
    if (event.code === OTHER_TAILNET) {
      document.dispatchEvent(new CustomEvent("otherTailnet"));
      return;
    }
    if (event.code === SIGNED_OUT) {
      location.assign("/sign-in");
      return;
    }
    lost = true;
    setTimeout(() => { if (banner && body.dataset.connection === "off") banner.hidden = false; }, NOTICE_MS);
    setTimeout(connect, wait * (0.75 + Math.random() / 2));
    wait = Math.min(wait * 2, MAX_WAIT_MS);
  });
}

document.addEventListener("click", (event) => {
  const list = event.target instanceof Element && event.target.closest("[data-show-new]")?.closest("[data-list]");
  if (list) refetch(here(), list, "outerHTML");
});
// Somebody has just changed what a list shows, and wants to see it.
document.addEventListener("showChanges", () => lists().forEach((list) => {
  list.dataset.wanted = "";
  refreshList(list);
}));

addEventListener("pagehide", () => { stopped = true; });
addEventListener("pageshow", (event) => { if (event.persisted) location.reload(); });
if (body.dataset.tailnet && body.dataset.socket !== undefined) connect();
