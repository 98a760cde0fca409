// Messages: those of a place in the log, or as they arrive; and publishing one.

import { byId, el, say } from "./dom.js";
import { acted, get, post, query } from "./http.js";
import { bytes, count, time } from "./format.js";
import { filled, parameter, put, settings, table } from "./listing.js";

const form = byId("form");
let stream = null;
let shown = [];
let search = 0; // the number of the present search: an earlier one ends when it sees another

for (const name of ["topic", "partition", "from", "offset", "key"]) if (parameter(name)) form.elements[name].value = parameter(name);
function showPlace() {
  byId("at-offset").hidden = form.elements.from.value !== "offset";
  byId("at-time").hidden = form.elements.from.value !== "time";
}
showPlace();
form.elements.from.addEventListener("change", showPlace);
acted(async () => byId("topics").append(...(await get("/api/topics", { internal: 1 })).topics.map((each) => el("option", { value: each.topic }))));

const brief = (part, length) => (part === null ? "–" : part.text.length > length ? `${part.text.slice(0, length)}…` : part.text);

function draw() {
  put(byId("list"), table([
    ["partition", (row) => row.partition, "n"],
    ["offset", (row) => el("button.quiet.small", { type: "button", onclick: () => open(row) }, String(row.offset)), "n"],
    ["time", (row) => time(row.timestamp_ms)],
    ["key", (row) => brief(row.key, 40), "mono"],
    ["format", (row) => row.value?.format ?? "none"],
    ["value", (row) => brief(row.value && { ...row.value, text: row.value.text.replace(/\s+/g, " ") }, 160), "mono"],
    ["size", (row) => (row.value ? bytes(row.value.size) : "–"), "n"],
  ], shown, "No messages."));
}

function open(row) {
  const value = row.value;
  const text = el("pre", { tabindex: "0" }, value === null ? "no value" : value.text + (value.is_cut ? "\n… (cut)" : ""));
  const looks = value === null ? [] : [value.format, "hex"];
  const choice = el("div.choice", { role: "group", "aria-label": "Shown as" }, looks.map((look, position) => el("button", { type: "button", "aria-pressed": String(position === 0), onclick: (event) => {
    text.textContent = look === "hex" ? value.hex : value.text;
    for (const each of choice.children) each.setAttribute("aria-pressed", String(each === event.currentTarget));
  } }, look)));
  const headers = Object.entries(row.headers);
  const dialog = el("dialog", { "aria-label": `Message ${row.offset}` },
    el("h2", {}, `${form.elements.topic.value}/${row.partition} at ${row.offset}`),
    el("dl.facts", {}, el("dt", {}, "time"), el("dd", {}, time(row.timestamp_ms)), el("dt", {}, "key"), el("dd.mono", {}, row.key === null ? "none" : row.key.text), el("dt", {}, "size"), el("dd", {}, value ? bytes(value.size) : "–")),
    choice, text,
    headers.length ? el("h3", {}, "Headers") : null,
    headers.length ? el("dl.facts", {}, headers.flatMap(([name, each]) => [el("dt", {}, name), el("dd", {}, each)])) : null,
    el("form.row", { method: "dialog" }, el("button", {}, "Close")));
  dialog.addEventListener("close", () => dialog.remove());
  document.body.append(dialog);
  dialog.showModal();
}

async function show() {
  stop();
  const values = form.elements;
  if (!values.topic.value) return;
  const place = values.from.value;
  const at = place === "offset" ? values.offset.value : place === "time" ? new Date(values.time.value).getTime() : "";
  if (place === "time" && !Number.isFinite(at)) { say("enter a time", true); return; }
  const asked = { topic: values.topic.value, partition: values.partition.value, from: place, at, key: values.key.value, limit: values.limit.value };
  history.replaceState(null, "", `/messages${query({ topic: asked.topic, partition: asked.partition, from: place === "end" ? "" : place, offset: place === "offset" ? at : "", key: asked.key })}`);
  const own = ++search;
  byId("told").textContent = "Reading…";
  shown = [];
  let read = 0;
  for (let places = ""; ;) {
    const found = await acted(() => get("/api/messages", { ...asked, places }));
    if (own !== search) return;
    if (!found) { byId("told").textContent = ""; break; }
    read += found.read;
    shown = (place === "end" ? [...found.messages, ...shown] : [...shown, ...found.messages]).slice(0, Number(asked.limit));
    draw();
    places = asked.key && (place === "end" || shown.length < Number(asked.limit)) ? found.places : "";
    const summary = `${count(shown.length)} messages${asked.key ? ` with this key, of ${count(read)} read` : ""}`;
    if (!places) { byId("told").textContent = `${summary}${found.left ? "; more are available" : ""}`; return; }
    byId("told").replaceChildren(`${summary}; ${count(found.left)} to read `, el("button.small", { type: "button", onclick: () => { search += 1; byId("told").textContent = `${summary}; stopped`; } }, "Stop"));
  }
  draw();
}
form.addEventListener("submit", (event) => { event.preventDefault(); show(); });

function stop() {
  search += 1;
  stream?.close();
  stream = null;
  byId("tail").setAttribute("aria-pressed", "false");
  byId("tail").textContent = "Follow";
}

byId("tail").addEventListener("click", () => {
  if (stream) { stop(); return; }
  if (!form.reportValidity()) return;
  shown = [];
  draw();
  let skipped = 0;
  byId("tail").setAttribute("aria-pressed", "true");
  byId("tail").textContent = "Stop following";
  byId("told").textContent = "Waiting for messages…";
  stream = new EventSource(`/api/messages/tail${query({ topic: form.elements.topic.value, partition: form.elements.partition.value })}`);
  stream.onmessage = (event) => {
    const news = JSON.parse(event.data);
    if (news.error) { stop(); say(news.error.message, true); return; }
    skipped += news.skipped;
    shown = [...news.messages.reverse(), ...shown].slice(0, 200);
    byId("told").textContent = `Live${skipped ? `; ${count(skipped)} messages skipped` : ""}`;
    draw();
  };
  stream.onerror = () => { if (stream?.readyState === EventSource.CLOSED) { stop(); byId("told").textContent = "The broker has ended the live view."; } };
});

byId("publish").addEventListener("click", () => filled("Publish a message", [
  { name: "topic", label: "Topic", value: form.elements.topic.value, required: true },
  { name: "key", label: "Key", placeholder: "none" },
  { name: "format", label: "Format", type: "select", options: ["json", "text", "hex"], value: "json" },
  { name: "value", label: "Value", type: "textarea", value: "{}" },
  { name: "headers", label: "Headers", type: "textarea", rows: 2, hint: "one NAME=TEXT per line" },
  { name: "partition", label: "Partition", placeholder: "by key" },
], "Publish", async (values) => {
  const headers = Object.fromEntries(Object.entries(settings(values.headers)).map(([name, value]) => [name, String(value)]));
  const found = await post("/api/messages/publish", { topic: values.topic, value: values.value, format: values.format, key: values.key || null, headers, partition: values.partition === "" ? null : Number(values.partition) });
  say(`published to ${values.topic}/${found.partition} at ${found.offset}`);
}).then((isDone) => { if (isDone && !stream) show(); }));

if (form.elements.topic.value) show(); else draw();
