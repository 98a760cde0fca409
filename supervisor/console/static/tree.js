// The living tree: every process of the broker a cell, fed by one stream of differences.
//
// A difference changes attributes of the cells it names, once for each frame of the screen. Elements are made or removed
// only when processes come or go, and cells keep their place: by kind, then by topic or group, then by number.

import { byId, confirmed, el, say } from "./dom.js";
import { acted, get, post } from "./http.js";
import { linkState } from "./frame.js";
import { bytes, clock, count, duration, rate, STATE_LOOKS } from "./format.js";
import { TimeChart } from "./chart.js";

const KINDS = ["controller", "gateway", "http", "console", "partition", "replica", "coordinator", "subscriber", "deployed", "scheduler", "transactions", "link", "mirror"];
const KIND_NAMES = {
  controller: "controller", gateway: "gateways", partition: "partitions", replica: "replicas", coordinator: "coordinators of groups",
  subscriber: "hosted subscribers", deployed: "deployed subscribers", scheduler: "schedulers of delayed messages", transactions: "coordinators of transactions", link: "links to nodes", mirror: "mirrors", http: "metrics and probes", console: "console",
};
const STATE_TEXT = { backing_off: "dead, restarts soon" };
const MAX_EVENTS = 200;
const MIN_HEAT_STEP = 0.04;
const AGAIN_MS = 2000;

const nodes = new Map();
const cells = new Map();
const kinds = new Map();
const twigs = new Map();
const dirty = new Set();
const asked = new Map(); // address -> time of our signal, until the supervisor has noticed
let selected = null;
let broker = {};
let shownAt = ""; // the endpoint of the broker whose processes are shown
let isTable = false;
let frame = 0;
let isFirst = true;
let eventCount = 0;

const chart = new TimeChart(byId("traffic"), { series: [{ label: "in / s", colour: "--in" }, { label: "out / s", colour: "--out" }] });

// Structure.

const stem = el("div.root", {}, el("span.seed", {}, el("img", { src: "/static/planaria.svg", alt: "" })), el("span", {}, "supervisor ", el("span.dim", { id: "root-facts" })));
const branches = el("ul.branches");
byId("tree").append(stem, branches);
byId("legend").append(...[["ready", "ready"], ["wait", "starting"], ["dead", "dead"], ["quar", "quarantined"], ["cold", "silent"], ["idle", "asleep"]].map(([look, text]) => el(`span.l-${look}`, {}, text)));

function order(map, parent, key, made, compare) {
  map.set(key, made);
  const after = [...parent.children].find((child) => compare(child.dataset.key, key) > 0);
  parent.insertBefore(made.element, after || null);
}

const natural = new Intl.Collator("en", { numeric: true }).compare;
const byKind = (a, b) => ((KINDS.indexOf(a) + 99) % 99) - ((KINDS.indexOf(b) + 99) % 99) || natural(a, b);
const byTopic = (a, b) => a.startsWith("__") - b.startsWith("__") || natural(a, b);

function twigOf(node) {
  const isNamed = Boolean(node.name) && node.number !== null;
  const key = `${node.kind}/${isNamed ? node.name : ""}`;
  const found = twigs.get(key);
  if (found) return found;
  let kind = kinds.get(node.kind);
  if (!kind) {
    const list = el("ul.twigs");
    const total = el("span.count");
    kind = { element: el("li", { "data-key": node.kind }, el("div.hub", {}, KIND_NAMES[node.kind] || node.kind, total), list), list, total, size: 0 };
    order(kinds, branches, node.kind, kind, byKind);
  }
  const box = el("div.cells");
  const traffic = el("span.rate");
  const name = el("span.name", {}, isNamed ? node.name : null);
  kind.element.classList.toggle("plain", !isNamed);
  const twig = { element: el("li", { "data-key": isNamed ? node.name : "" }, el("div.twig", {}, isNamed && name, box, traffic)), box, traffic, members: new Set(), kind, key };
  order(twigs, kind.list, key, twig, () => 0);
  const sorted = [...kind.list.children].sort((a, b) => byTopic(a.dataset.key, b.dataset.key));
  const next = sorted[sorted.indexOf(twig.element) + 1];
  kind.list.insertBefore(twig.element, next || null);
  return twig;
}

function addCell(node) {
  const twig = twigOf(node);
  const mark = node.number !== null ? String(node.number) : (node.name ? node.name.slice(0, 2) : "");
  const cell = el("button.cell", { type: "button", tabindex: "-1", "data-address": node.address, "aria-pressed": "false" }, el("i"), el("u"), el("b", { "aria-hidden": "true" }, mark));
  const after = [...twig.box.children].find((other) => natural(other.dataset.address, node.address) > 0);
  twig.box.insertBefore(cell, after || null);
  twig.members.add(node.address);
  twig.kind.size += 1;
  cells.set(node.address, { cell, twig });
  sized(twig);
}

function dropCell(address) {
  const found = cells.get(address);
  if (!found) return;
  found.cell.remove();
  cells.delete(address);
  found.twig.members.delete(address);
  found.twig.kind.size -= 1;
  if (found.twig.members.size) sized(found.twig);
  else {
    found.twig.element.remove();
    twigs.delete(found.twig.key);
    if (!found.twig.kind.size) {
      found.twig.kind.element.remove();
      kinds.delete(found.twig.kind.element.dataset.key);
    }
  }
  if (selected === address) select(null);
}

function sized(twig) {
  const size = twig.members.size;
  const look = size > 48 ? "s" : size > 16 ? "m" : "l";
  twig.box.className = `cells ${look}`;
  twig.element.firstElementChild.classList.toggle("many", size > 12);
  twig.kind.total.textContent = twig.kind.size > 1 ? count(twig.kind.size) : "";
}

// News of the stream.

function take(found) {
  linkState(found.trouble ? "lost" : "live", found.trouble ? found.trouble.message : "live");
  if (found.broker) {
    broker = found.broker;
    // The console of a cluster whose node is gone asks another one.
    if (broker.endpoint && shownAt && broker.endpoint !== shownAt) say(`these are now the processes of ${broker.endpoint}`, true);
    shownAt = broker.endpoint || shownAt;
  }
  if (found.is_anew) {
    for (const address of [...cells.keys()]) if (!found.nodes.some((node) => node.address === address)) { dropCell(address); nodes.delete(address); }
  }
  for (const address of found.removed) { dropCell(address); nodes.delete(address); dirty.delete(address); }
  for (const change of found.nodes) {
    const before = nodes.get(change.address);
    const node = { ...before, ...change };
    nodes.set(node.address, node);
    if (!cells.has(node.address)) addCell(node);
    if (before && !isFirst) noticed(before, node);
    dirty.add(node.address);
  }
  for (const [at, messagesIn, , messagesOut] of found.points) chart.add(at, [messagesIn, messagesOut]);
  if (found.nodes.length || found.removed.length || found.points.length) isFirst = false;
  if (!frame) frame = requestAnimationFrame(() => { frame = 0; draw(found.points.length > 0 || hasPoints); hasPoints = false; });
  else hasPoints = hasPoints || found.points.length > 0;
}
let hasPoints = false;

function noticed(before, node) {
  // Not by the time of the death: another console computes it anew.
  const hasDied = node.died_ms !== null && node.deaths > before.deaths;
  if (hasDied) {
    asked.delete(node.address);
    chart.mark(node.died_ms);
    addEvent(node);
    animate(node.address, "dying");
  }
  if (node.downtime_ms !== null && (hasDied || before.downtime_ms === null)) {
    finishEvent(node);
    animate(node.address, "reborn");
    floating(node.address, `+${duration(node.downtime_ms)}`);
  }
  if (node.state === "quarantined" && before.state !== "quarantined") say(`${node.address} is quarantined: ${node.reason}`, true);
}

function animate(address, name) {
  const found = cells.get(address);
  if (!found) return;
  found.cell.classList.remove("dying", "reborn");
  requestAnimationFrame(() => found.cell.classList.add(name));
  setTimeout(() => found.cell.classList.remove(name), 900);
}

function floating(address, text) {
  const found = cells.get(address);
  if (!found) return;
  found.cell.querySelector("em")?.remove();
  const made = el("em", {}, text);
  found.cell.append(made);
  setTimeout(() => made.remove(), 2600);
}

const openEvents = new Map();

function addEvent(node) {
  if (!eventCount) byId("events").replaceChildren();
  eventCount += 1;
  const took = el("span.took.dim", {}, "down");
  const line = el("li", {}, el("time", {}, clock(node.died_ms)), el("span", {}, el("b", {}, node.address), ` ${node.reason || "died"}`), took);
  byId("events").prepend(line);
  while (byId("events").children.length > MAX_EVENTS) byId("events").lastElementChild.remove();
  openEvents.set(node.address, { took, died_ms: node.died_ms });
}

function finishEvent(node) {
  const found = openEvents.get(node.address);
  if (!found) return;
  openEvents.delete(node.address);
  found.took.className = "took";
  found.took.textContent = `back after ${duration(node.downtime_ms)}`;
  byId("f-down").textContent = duration(node.downtime_ms);
}

// Drawing.

const traffic = (node) => node.rates.messages_in + node.rates.messages_out;

function stateText(node) {
  if (node.is_silent) return "silent";
  return STATE_TEXT[node.state] || node.state;
}

function drawCell(node) {
  const { cell } = cells.get(node.address);
  if (cell.dataset.state !== node.state) cell.dataset.state = node.state;
  cell.classList.toggle("silent", node.is_silent);
  cell.classList.toggle("alarm", node.alarms.length > 0);
  const load = traffic(node);
  const heat = node.state === "ready" ? Math.min(1, 0.22 + Math.log10(1 + load) / 4.5) : 0;
  const before = Number(cell.dataset.heat ?? -1);
  // A change of less than a pixel is not shown: animating it would cost the page more than all its scripts.
  if (Math.abs(heat - before) > MIN_HEAT_STEP || (heat === 0) !== (before === 0)) { cell.dataset.heat = heat.toFixed(2); cell.style.setProperty("--heat", heat.toFixed(2)); }
  const label = `${node.address}, ${stateText(node)}${node.restarts ? `, ${node.restarts} restarts` : ""}${node.alarms.length ? ", alarm" : ""}`;
  if (cell.getAttribute("aria-label") !== label) { cell.setAttribute("aria-label", label); cell.title = label; }
}

function draw(withFigures) {
  const touched = new Set();
  for (const address of dirty) {
    const node = nodes.get(address);
    if (!node || !cells.has(address)) continue;
    drawCell(node);
    touched.add(cells.get(address).twig);
  }
  for (const twig of touched) {
    let sum = 0;
    for (const address of twig.members) sum += traffic(nodes.get(address));
    const text = sum >= 0.5 ? `${rate(sum)} / s` : "";
    if (twig.traffic.textContent !== text) twig.traffic.textContent = text;
    twig.element.classList.toggle("flows", sum >= 0.5);
  }
  if (selected && dirty.has(selected)) drawDetail();
  if (!document.querySelector('.cell[tabindex="0"]')) document.querySelector(".cell")?.setAttribute("tabindex", "0");
  if (withFigures) { drawFigures(); chart.draw(); }
  if (isTable && (withFigures || dirty.size)) drawTable();
  dirty.clear();
}

function drawFigures() {
  let ready = 0, restarts = 0, memory = 0, asleep = 0;
  for (const node of nodes.values()) {
    ready += node.state === "ready";
    asleep += node.state === "asleep";
    restarts += node.restarts;
    memory += node.memory_bytes;
  }
  const points = chart.data;
  byId("f-ready").textContent = `${ready} of ${nodes.size - asleep}`;
  byId("f-in").textContent = rate(points[1].at(-1) ?? 0);
  byId("f-out").textContent = rate(points[2].at(-1) ?? 0);
  byId("f-restarts").textContent = count(restarts);
  byId("f-memory").textContent = bytes(memory);
  byId("root-facts").textContent = broker.supervisor_pid ? `pid ${broker.supervisor_pid}, up ${duration(Date.now() - broker.started_ms)}, ${broker.endpoint}, ${broker.data_directory}` : "";
}

// The selected process.

function select(address) {
  if (selected && cells.has(selected)) cells.get(selected).cell.setAttribute("aria-pressed", "false");
  selected = address;
  byId("detail").classList.toggle("chosen", address !== null);
  if (address) cells.get(address).cell.setAttribute("aria-pressed", "true");
  drawDetail();
}

function drawDetail() {
  const box = byId("detail");
  const node = selected && nodes.get(selected);
  if (!node) {
    box.replaceChildren(el("h2", {}, "No process selected"), el("p.dim", {}, "Select one with a click, or with the arrow keys and Enter, and kill it: the supervisor restarts it, and this page shows how long that took."));
    return;
  }
  const fact = (name, value) => (value === null || value === undefined || value === "" ? [] : [el("dt", {}, name), el("dd", {}, value)]);
  const looks = node.is_silent ? "cold" : STATE_LOOKS[node.state];
  const hasProcess = node.pid !== null;
  const canRevive = ["quarantined", "backing_off", "asleep"].includes(node.state);
  const focused = box.contains(document.activeElement) ? document.activeElement.textContent : null;
  box.replaceChildren(...[
    el("div.row", {}, el("h2", {}, node.address), el("span.push"), el("button.quiet.small", { type: "button", "aria-label": "Close", onclick: () => { const was = selected; select(null); cells.get(was)?.cell.focus(); } }, "✕")),
    el(`span.pill.${looks}`, {}, stateText(node)),
    watch(node),
    el("div.row", {},
      el("button.bad", { type: "button", disabled: !hasProcess, onclick: () => signal(node, "SIGKILL") }, "Kill"),
      node.is_silent
        ? el("button", { type: "button", onclick: () => signal(node, "SIGCONT") }, "Continue")
        : el("button", { type: "button", disabled: !hasProcess, onclick: () => signal(node, "SIGSTOP"), title: "SIGSTOP" }, "Freeze"),
      canRevive && el("button.main", { type: "button", onclick: () => revive(node) }, "Revive")),
    el("dl.facts", {},
      fact("process", hasProcess ? String(node.pid) : "none"),
      fact("incarnation", String(node.incarnation)),
      fact("restarts", String(node.restarts)),
      fact("up", node.started_ms ? duration(Date.now() - node.started_ms) : null),
      fact("memory", node.memory_bytes ? bytes(node.memory_bytes) : null),
      fact("messages in", `${rate(node.rates.messages_in)} / s`),
      fact("messages out", `${rate(node.rates.messages_out)} / s`),
      fact("bytes", `${bytes(node.rates.bytes_in)} in, ${bytes(node.rates.bytes_out)} out / s`),
      fact("in flight", node.in_flight ? count(node.in_flight) : null),
      fact("retrying", node.retrying ? count(node.retrying) : null),
      fact("last death", node.died_ms ? `${clock(node.died_ms)}${node.downtime_ms !== null ? `, back after ${duration(node.downtime_ms)}` : ""}` : (node.reason ? null : "never")),
      fact(node.state === "asleep" ? "asleep because" : "reason", node.reason)),
    ...node.alarms.map((alarm) => el("p.failure", {}, alarm)),
    node.has_traceback && el("button.small", { type: "button", onclick: () => trace(node.address) }, "Traceback"),
    " ",
    el("button.small", { type: "button", onclick: () => everything(node.address) }, "All metrics"),
  ].filter(Boolean));
  if (focused) [...box.querySelectorAll("button")].find((button) => button.textContent === focused && !button.disabled)?.focus();
}

function watch(node) {
  if (node.died_ms === null && !asked.has(node.address)) return null;
  const isDown = node.died_ms !== null && node.downtime_ms === null;
  if (isDown) return el("div.watch.open", {}, el("b", {}, duration(Date.now() - node.died_ms)), "since it died");
  if (node.downtime_ms === null || asked.has(node.address)) return null;
  return el("div.watch", {}, el("b", {}, duration(node.downtime_ms)), `from death to ready, incarnation ${node.incarnation}`);
}
// A stopwatch runs while the selected process is down.
setInterval(() => { const node = selected && nodes.get(selected); if (node && node.died_ms !== null && node.downtime_ms === null) drawDetail(); }, 100);

async function signal(node, name) {
  if (name !== "SIGCONT") {
    const text = name === "SIGKILL"
      ? `Process ${node.pid} is killed without cleaning up. The supervisor restarts it.`
      : `Process ${node.pid} is stopped. When it makes no progress for some seconds, the supervisor replaces it.`;
    if (!(await confirmed(`${name === "SIGKILL" ? "Kill" : "Freeze"} ${node.address}?`, text, { action: name === "SIGKILL" ? "Kill" : "Freeze" }))) return;
  }
  asked.set(node.address, Date.now());
  const found = await acted(() => post("/api/kill", { address: node.address, signal: name }), (reply) => `${name} sent to process ${reply.pid}`);
  if (!found) asked.delete(node.address);
}

const revive = (node) => acted(() => post("/api/revive", { address: node.address }), `${node.address} started`);

function shown(title, text) {
  const dialog = el("dialog", { "aria-label": title }, el("h2", {}, title), el("pre", { tabindex: "0" }, text), el("form.row", { method: "dialog" }, el("button", {}, "Close")));
  dialog.addEventListener("close", () => dialog.remove());
  document.body.append(dialog);
  dialog.showModal();
}

const trace = async (address) => { const found = await acted(() => get("/api/actor", { address })); if (found) shown(`Traceback of ${address}`, found.traceback || "no longer available"); };
const everything = async (address) => { const found = await acted(() => get("/api/actor", { address })); if (found) shown(address, JSON.stringify(found, null, 2)); };

// The table, for those who prefer one.

let sortBy = { key: "address", isDown: false };
const COLUMNS = [
  ["address", "address", (node) => node.address], ["state", "state", stateText], ["pid", "pid", (node) => node.pid ?? "–", true],
  ["incarnation", "incarnation", (node) => node.incarnation, true], ["restarts", "restarts", (node) => node.restarts, true],
  ["memory_bytes", "memory", (node) => bytes(node.memory_bytes), true], ["in", "in / s", (node) => rate(node.rates.messages_in), true], ["out", "out / s", (node) => rate(node.rates.messages_out), true],
  ["died_ms", "last death", (node) => (node.died_ms ? `${clock(node.died_ms)} ${node.downtime_ms === null ? "" : duration(node.downtime_ms)}` : ""), true], ["reason", "reason", (node) => node.reason || ""],
];
const sortValue = (node, key) => (key === "in" ? node.rates.messages_in : key === "out" ? node.rates.messages_out : node[key]);

function drawTable() {
  const { key, isDown } = sortBy;
  const rows = [...nodes.values()].sort((a, b) => {
    const [x, y] = [sortValue(a, key), sortValue(b, key)];
    const found = typeof x === "number" || typeof y === "number" ? (x ?? -1) - (y ?? -1) : natural(String(x ?? ""), String(y ?? ""));
    return isDown ? -found : found;
  });
  byId("table").replaceChildren(el("table", {},
    el("thead", {}, el("tr", {}, COLUMNS.map(([name, title, , isNumber]) => el(isNumber ? "th.n" : "th", { "aria-sort": key === name ? (isDown ? "descending" : "ascending") : null }, el("button", { type: "button", onclick: () => { sortBy = { key: name, isDown: key === name ? !isDown : Boolean(isNumber) }; drawTable(); } }, title, key === name ? (isDown ? " ↓" : " ↑") : ""))))),
    el("tbody", {}, rows.map((node) => el("tr", {}, COLUMNS.map(([name, , value, isNumber]) => el(isNumber ? "td.n" : name === "reason" ? "td.wrap" : "td", {}, name === "address" ? el("button.quiet.small", { type: "button", onclick: () => select(node.address) }, node.address) : name === "state" ? el(`span.pill.${node.is_silent ? "cold" : STATE_LOOKS[node.state]}`, {}, value(node)) : String(value(node)))))))));
}

function showAs(asTable) {
  isTable = asTable;
  byId("tree").hidden = asTable;
  byId("table").hidden = !asTable;
  byId("as-tree").setAttribute("aria-pressed", String(!asTable));
  byId("as-table").setAttribute("aria-pressed", String(asTable));
  if (asTable) drawTable();
}
byId("as-tree").addEventListener("click", () => showAs(false));
byId("as-table").addEventListener("click", () => showAs(true));

// Mouse and keys.

branches.addEventListener("click", (event) => {
  const cell = event.target.closest(".cell");
  if (cell) { move(cell); select(cell.dataset.address); }
});

function move(cell) {
  for (const other of branches.querySelectorAll('.cell[tabindex="0"]')) other.setAttribute("tabindex", "-1");
  cell.setAttribute("tabindex", "0");
  cell.focus();
}

branches.addEventListener("keydown", (event) => {
  const cell = event.target.closest(".cell");
  if (!cell || event.ctrlKey || event.metaKey || event.altKey) return;
  const all = [...branches.querySelectorAll(".cell")];
  const at = all.indexOf(cell);
  const twig = cell.closest("li");
  const other = (step) => { const found = [...branches.querySelectorAll(".twigs > li")]; return found[found.indexOf(twig) + step]?.querySelector(".cell"); };
  const target = { ArrowRight: () => all[at + 1], ArrowLeft: () => all[at - 1], ArrowDown: () => other(1), ArrowUp: () => other(-1), Home: () => all[0], End: () => all.at(-1) }[event.key];
  if (target) { event.preventDefault(); const found = target(); if (found) move(found); return; }
  const node = nodes.get(cell.dataset.address);
  if (event.key.toLowerCase() === "k" && node.pid !== null) { event.preventDefault(); select(node.address); signal(node, "SIGKILL"); }
});

// The stream.

select(null);
linkState("wait", "connecting");
follow();

function follow() {
  const stream = new EventSource("/api/tree");
  stream.onmessage = (event) => take(JSON.parse(event.data));
  stream.onerror = () => {
    linkState("lost", "no connection to the console");
    // The browser connects again by itself after a lost connection, but not after a refusal.
    if (stream.readyState === EventSource.CLOSED) setTimeout(followAgain, AGAIN_MS);
  };
}

/** Follow again after a refusal: too many pages follow the tree, or the user has to sign in. */
async function followAgain() {
  const found = await fetch("/", { method: "HEAD", redirect: "manual" }).catch(() => null);
  if (found?.type === "opaqueredirect") location.assign("/login");
  else follow();
}
