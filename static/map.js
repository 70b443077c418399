// The map: draws what /map/data says, changes it in place when something changes, and never moves what stands.
/* global cytoscape, htmx */
const $ = (selector, root = document) => root.querySelector(selector);
const stage = $("#map");
const form = $("#map-filters");
const card = $("#map-device");

const LOOK_MS = 30000; // what nobody tells of is looked for now and then
const GAP_MS = 1500;
const TYPING_MS = 300;
const SPREAD = 110;
const GRID = 120;
const HIGH = 96;
const CONCERNS = new Set(["node", "path", "route", "membership", "relay", "policyversion"]);
const SHAPES = { plain: "ellipse", exit: "diamond", router: "round-rectangle", both: "hexagon" };
const calm = matchMedia("(prefers-reduced-motion: reduce)");

// --- colours and icons: canvas knows neither CSS variables nor the sprite ---------------------------------
function colour(name) {
  const probe = document.createElement("span");
  probe.className = `map-colour ${name}`;
  stage.append(probe);
  const found = getComputedStyle(probe).color;
  probe.remove();
  return found;
}

let sprite = null;
const loadSprite = async () => {
  const answer = await fetch(stage.dataset.icons);
  sprite = new DOMParser().parseFromString(await answer.text(), "image/svg+xml");
};

function iconUrl(name, stroke) {
  const symbol = sprite?.getElementById(name);
  if (!symbol) return "none";
  const svg = `<svg xmlns="http://www.w3.org/2000/svg" width="24" height="24" viewBox="0 0 24 24" fill="none" stroke="${stroke}" stroke-width="1.75" stroke-linecap="round" stroke-linejoin="round">${symbol.innerHTML}</svg>`;
  return `data:image/svg+xml;utf8,${encodeURIComponent(svg)}`;
}

const NARROW = 500;
const NAME = 22;
const NAME_NARROW = 14;

function short(name) {
  const most = stage.clientWidth < NARROW ? NAME_NARROW : NAME;
  return name.length > most ? `${name.slice(0, most - 1)}…` : name;
}

function look() {
  const [text, muted, line, brand, surface, amber, page, violet] = ["text", "muted", "line", "brand", "surface", "amber", "page", "violet"].map(colour);
  const font = getComputedStyle(document.body).fontFamily;
  const large = stage.clientWidth < NARROW ? 1.5 : 1; // a narrow picture is drawn small
  return [
    { selector: "node", style: {
      width: 42, height: 42, shape: (node) => SHAPES[node.data("role")], "background-color": surface, "border-width": 2.5, "border-color": brand,
      "background-image": (node) => iconUrl(node.data("icon"), text), "background-width": 20, "background-height": 20, "background-fit": "none",
      label: (node) => [short(node.data("name")), node.data("marks")].filter(Boolean).join("\n"), "text-wrap": "wrap", "text-max-width": 150 * large, "font-family": font, "font-size": 12 * large, "line-height": 1.3,
      color: text, "text-valign": "bottom", "text-margin-y": 6, "text-background-color": page, "text-background-opacity": 0.85, "text-background-padding": 2, "min-zoomed-font-size": 6.5 } },
    { selector: "node[role != 'plain']", style: { width: 52, height: 52 } },
    { selector: "node[role = 'router']", style: { width: 50, height: 42 } },
    { selector: "node[state != 'online']", style: { "border-color": line, "border-style": "dashed", "background-image": (node) => iconUrl(node.data("icon"), muted), color: muted } },
    { selector: "node[?beside]", style: { "border-width": 1.5, "font-size": 11 * large } },
    { selector: "edge", style: {
      width: 2.5, "curve-style": "straight", "line-color": brand, label: "data(label)", "font-family": font, "font-size": 10.5 * large, color: text, "text-background-color": page,
      "text-background-opacity": 0.9, "text-background-padding": 3, "text-background-shape": "round-rectangle", "min-zoomed-font-size": 6.5 } },
    { selector: "edge[kind = 'relayed']", style: { "line-color": amber, "line-style": "dashed", "line-dash-pattern": [9, 6] } },
    { selector: "edge[kind = 'idle']", style: { "line-color": line, "line-style": "dashed", "line-dash-pattern": [1, 7], "line-cap": "round", width: 3 } },
    { selector: "edge[kind = 'allowed']", style: {
      width: 1.5, "line-color": violet, "line-style": "dashed", "line-dash-pattern": [4, 4], "curve-style": "unbundled-bezier", "control-point-distances": 26, "control-point-weights": 0.5, "z-index": 0,
      "target-arrow-shape": "vee", "target-arrow-color": violet, "arrow-scale": 0.9, "source-arrow-color": violet } },
    { selector: "edge[kind = 'allowed'][?both]", style: { "source-arrow-shape": "vee" } },
    { selector: "edge[?exit]", style: { "target-arrow-shape": "triangle", "arrow-scale": 1.3, "target-arrow-color": brand } },
    { selector: "edge[?exit][kind = 'relayed']", style: { "target-arrow-color": amber } },
    { selector: "edge[?exit][kind = 'idle']", style: { "target-arrow-color": line } },
    { selector: ".away", style: { opacity: 0.18 } },
    { selector: "node.picked", style: { "border-width": 5, "border-style": "solid", "background-color": surface, "z-index": 10 } },
  ];
}

// --- drawing ----------------------------------------------------------------------------------------------
let cy = null;
let picked = "";

function draw() {
  cy = cytoscape({ container: stage, style: look(), minZoom: 0.1, maxZoom: 2.5, boxSelectionEnabled: false, autounselectify: true });
  cy.on("tap", "node", (event) => pick(event.target.id()));
  cy.on("tap", "edge", (event) => pick(event.target.source().id()));
  cy.on("tap", (event) => { if (event.target === cy) unpick(); });
  cy.on("dbltap", "node", (event) => location.assign(`/devices/${event.target.data("key")}`));
  cy.on("mouseover", "node, edge", () => stage.classList.add("pointing"));
  cy.on("mouseout", "node, edge", () => stage.classList.remove("pointing"));
}

// Every device that talks is laid out by its links; the others stand in rows beside or below, by their names.
function arrange() {
  const talking = cy.edges("[kind != 'allowed']"); // what rules allow moves nobody
  const linked = talking.connectedNodes();
  const alone = cy.nodes().difference(linked).sort((a, b) => a.data("name").localeCompare(b.data("name")));
  const around = linked.sort((a, b) => b.degree() - a.degree() || a.data("name").localeCompare(b.data("name")));
  around.forEach((node, index) => { // a sunflower: the busiest in the middle, and the same picture each time
    const radius = SPREAD * 0.7 * Math.sqrt(index);
    node.position({ x: radius * Math.cos(index * 2.39996), y: radius * Math.sin(index * 2.39996) });
  });
  if (linked.length) {
    linked.union(talking).layout({
      name: "cose", animate: false, randomize: false, fit: false, nodeDimensionsIncludeLabels: true, idealEdgeLength: () => SPREAD,
      nodeRepulsion: () => 60000, nodeOverlap: 30, componentSpacing: 90, gravity: 0.6, numIter: linked.length > 120 ? 400 : 1000,
    }).run();
  }
  rows(alone, linked);
  fit();
}

function rows(alone, linked) {
  const wide = cy.width() > cy.height();
  const most = Math.ceil(Math.sqrt(alone.length * (wide ? cy.height() / cy.width() : cy.width() / cy.height())));
  const box = linked.length ? linked.boundingBox({ includeLabels: true }) : { x1: 0, x2: 0, y1: 0, y2: 0, w: 0, h: 0 };
  const across = Math.max(1, most, Math.floor((wide ? box.h / HIGH : box.w / GRID)));
  alone.forEach((node, index) => {
    const [line, place] = [Math.floor(index / across), index % across];
    if (wide) node.position({ x: box.x2 + GRID * (line + 0.9), y: box.y1 + HIGH * (place + 0.4) });
    else node.position({ x: box.x1 + GRID * (place + 0.5), y: box.y2 + HIGH * (line + 0.9) });
  });
}

function fit() {
  cy.fit(undefined, 28);
  if (cy.zoom() > 1.2) {
    cy.zoom(1.2);
    cy.center();
  }
}

// A newcomer stands beside one that it talks to, else below everybody.
function place(node, index) {
  const known = node.neighborhood("node").filter((one) => !one.scratch("new"));
  const box = cy.nodes().filter((one) => !one.scratch("new")).boundingBox();
  if (known.length) {
    const at = known[0].position();
    node.position({ x: at.x + SPREAD * Math.cos(index * 2.4 + 0.6), y: at.y + SPREAD * Math.sin(index * 2.4 + 0.6) });
  } else {
    node.position({ x: box.x1 + index * GRID, y: box.y2 + GRID });
  }
}

function merge(group, wanted) {
  const ids = new Set(wanted.map((one) => one.id));
  cy.elements(group === "nodes" ? "node" : "edge").filter((one) => !ids.has(one.id())).remove();
  const fresh = [];
  for (const data of wanted) {
    const there = cy.getElementById(data.id);
    const turned = there.nonempty() && group === "edges" && there.data("source") !== data.source;
    if (there.nonempty() && !turned) there.data(data);
    else {
      if (turned) there.remove();
      fresh.push(cy.add({ group, data }));
    }
  }
  return fresh;
}

function show({ nodes, links: talking, allowed = [], allowed_notice: allowedNotice = "", notice: tooMany = "", groups = [] }, { anew }) {
  const links = [...talking, ...allowed];
  const notice = [tooMany, allowedNotice].filter(Boolean).join(" ");
  cy.startBatch();
  merge("edges", links.filter((link) => cy.getElementById(link.id).nonempty()));
  const fresh = merge("nodes", nodes);
  fresh.forEach((node) => node.scratch("new", true));
  merge("edges", links);
  cy.endBatch();
  if (anew) arrange();
  else fresh.forEach(place);
  fresh.forEach((node) => node.removeScratch("new"));
  tellTooMany(notice, groups);
  const few = nodes.length < 2 && !new URLSearchParams(location.search).size;
  $("#map-first").hidden = !few;
  $("#map-none").hidden = few || nodes.length > 0;
  const node = cy.getElementById(picked);
  if (picked && node.empty()) unpick();
  else if (picked) openCard(node, { anew: true });
  mark();
  stage.dataset.drawn = `${nodes.length} ${talking.length}`;
  stage.dataset.allowed = allowed.length;
}

function tellTooMany(text, groups) {
  const notice = $("#map-notice");
  notice.hidden = !text;
  $("p", notice).textContent = text;
  $(".map-groups", notice).replaceChildren(...groups.map(({ owner, name, n }) => {
    const chip = document.createElement("a");
    chip.className = "btn btn-plain btn-sm";
    chip.href = `/map?owner=${encodeURIComponent(owner)}`;
    chip.textContent = `${name} · ${n}`;
    return chip;
  }));
}

// --- picking ----------------------------------------------------------------------------------------------
function mark() {
  cy.elements().removeClass("picked away");
  const node = cy.getElementById(picked);
  if (node.empty()) return;
  node.addClass("picked");
  cy.elements().difference(node.closedNeighborhood()).addClass("away");
}

function pick(id, { focus = false } = {}) {
  const node = cy.getElementById(id);
  if (node.empty()) return;
  picked = id;
  mark();
  const box = node.renderedBoundingBox();
  const seen = box.x1 > 0 && box.y1 > 0 && box.x2 < cy.width() && box.y2 < cy.height();
  if (!seen) calm.matches ? cy.center(node) : cy.animate({ center: { eles: node }, duration: 200 });
  $("#map-said").textContent = [node.data("name"), node.data("word"), node.data("marks")].filter(Boolean).join(", ");
  if (!focus) goesIn = false;
  openCard(node, { focus });
}

// Whoever moves on before the card has come gets the next one's instead.
let coming = "";
let goesIn = false;

async function openCard(node, { focus = false, anew = false } = {}) {
  const id = node.id();
  goesIn ||= focus;
  if ($("[data-picked]", card)?.dataset.picked === id && !anew) enterCard();
  else if (coming !== id) {
    htmx.trigger(card, "htmx:abort");
    coming = id;
    await htmx.ajax("GET", `/map/devices/${encodeURIComponent(node.data("key"))}`, { source: card, target: card, swap: "innerHTML" });
    if (coming !== id) return;
    coming = "";
    if (picked === id) enterCard();
    else card.replaceChildren();
  }
}

function enterCard() {
  if (goesIn) $("a, button:not([data-map])", card)?.focus();
  goesIn = false;
}

function unpick() {
  picked = "";
  card.replaceChildren();
  mark();
}

// The nearest device in the direction of an arrow key.
function towards(dx, dy) {
  const from = cy.getElementById(picked);
  if (from.empty()) return cy.nodes().sort((a, b) => b.degree() - a.degree())[0];
  const at = from.position();
  let best;
  let least = Infinity;
  cy.nodes().difference(from).forEach((node) => {
    const x = node.position("x") - at.x;
    const y = node.position("y") - at.y;
    const along = x * dx + y * dy;
    const cost = along + 2.5 * Math.abs(x * dy - y * dx);
    if (along > 1 && cost < least) [best, least] = [node, cost];
  });
  return best;
}

const zoom = (factor) => cy.zoom({ level: cy.zoom() * factor, renderedPosition: { x: cy.width() / 2, y: cy.height() / 2 } });
const deeds = { in: () => zoom(1.25), out: () => zoom(0.8), fit, arrange, close: () => { unpick(); stage.focus(); } };
const arrows = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

stage.addEventListener("keydown", (event) => {
  if (!cy || event.ctrlKey || event.metaKey || event.altKey) return;
  const step = arrows[event.key];
  if (step) {
    const next = towards(...step);
    if (next) pick(next.id());
  } else if (event.key === "Enter" && picked) pick(picked, { focus: true });
  else if (event.key === "Escape" && picked) unpick();
  else if (event.key === "+" || event.key === "=") zoom(1.25);
  else if (event.key === "-") zoom(0.8);
  else if (event.key === "0") fit();
  else return;
  event.preventDefault();
});

document.addEventListener("click", (event) => {
  const button = event.target instanceof Element ? event.target.closest("[data-map], [data-pick]") : null;
  if (!button || !cy) return;
  if (button.dataset.pick) pick(button.dataset.pick);
  else deeds[button.dataset.map]();
});

// --- what is asked for ------------------------------------------------------------------------------------
const asked = () => {
  const values = new URLSearchParams(new FormData(form));
  for (const [name, value] of [...values]) if (!value) values.delete(name);
  return values.toString();
};

let drawn = null; // the filters of the picture that stands
let busy = false;
let again = false;
let timer = 0;

async function refresh() {
  clearTimeout(timer);
  timer = setTimeout(refresh, LOOK_MS);
  if (document.hidden && drawn !== null) return;
  if (busy) {
    again = true;
    return;
  }
  busy = true;
  const wanted = asked();
  try {
    const answer = await fetch(`${stage.dataset.src}?${wanted}`, { headers: { "X-Trenza-Tailnet": document.body.dataset.tailnet } });
    if (answer.status === 409) document.dispatchEvent(new CustomEvent("otherTailnet"));
    if (answer.ok && !answer.redirected) {
      const content = await answer.json();
      show(content, { anew: wanted !== drawn });
      if (wanted !== drawn) $("#map-said").textContent = content.summary;
      drawn = wanted;
    }
  } catch (error) {
    if (!(error instanceof TypeError)) throw error; // the server is away: the banner says so
  } finally {
    busy = false;
    $("#map-wait").hidden = true;
  }
  if (again || wanted !== asked()) {
    again = false;
    soon(GAP_MS);
  }
}

function soon(wait) {
  clearTimeout(timer);
  timer = setTimeout(refresh, wait);
}

function filter(wait) {
  const values = asked();
  history.replaceState(null, "", values ? `/map?${values}` : "/map");
  $("#view-table").href = `/map?${values}${values ? "&" : ""}view=table`;
  $("#map-clear").hidden = !values;
  soon(wait);
}

form.addEventListener("input", (event) => filter(event.target.type === "search" ? TYPING_MS : 0));
form.addEventListener("submit", (event) => {
  event.preventDefault();
  filter(0);
});
document.addEventListener("changes", ({ detail }) => {
  if (!detail.length || detail.some(({ type }) => CONCERNS.has(type))) soon(GAP_MS);
});
document.addEventListener("visibilitychange", () => { if (!document.hidden) soon(0); });

new MutationObserver(() => cy?.style(look())).observe(document.documentElement, { attributes: true, attributeFilter: ["data-bs-theme"] });

await loadSprite().catch(() => undefined); // without icons it is a map all the same
draw();
refresh();
