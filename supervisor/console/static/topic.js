// One topic.

import { byId, confirmed, el } from "./dom.js";
import { acted, get, post } from "./http.js";
import { bytes, count, rate } from "./format.js";
import { filled, parameter, put, repeating, settings, table } from "./listing.js";
import { TimeChart } from "./chart.js";

const topic = parameter("topic");
byId("name").textContent = topic;
document.title = `${topic} · Planaria`;
byId("to-messages").href = `/messages?${new URLSearchParams({ topic })}`;
const rates = new TimeChart(byId("c-rate"), { series: [{ label: "in / s", colour: "--in" }], seconds: 300 });
const sizes = new TimeChart(byId("c-size"), { series: [{ label: "on disk", colour: "--third" }], seconds: 300, format: bytes });
let last = null;
let found = null;

const again = repeating(async () => {
  found = await get("/api/topic", { topic });
  const now = Date.now();
  if (last && now > last.at) {
    const value = Math.max(0, (found.written - last.written) / ((now - last.at) / 1000));
    rates.add(now, [value]);
    rates.draw();
    byId("f-rate").textContent = rate(value);
  }
  last = { at: now, written: found.written };
  sizes.add(now, [found.size_bytes]);
  sizes.draw();
  byId("f-messages").textContent = count(found.messages);
  byId("f-size").textContent = bytes(found.size_bytes);
  byId("f-online").textContent = `${found.online} of ${found.partitions.length}`;
  put(byId("parts"), table([
    ["partition", (row) => row.partition, "n"],
    ["state", (row) => el(row.online ? "span.pill.ready" : "span.pill.dead", {}, row.online ? "online" : "offline")],
    ["first offset", (row) => count(row.log_start_offset), "n"],
    ["end", (row) => count(row.high_watermark), "n"],
    ["on disk", (row) => bytes(row.size_bytes), "n"],
    ["incarnation", (row) => row.incarnation, "n"],
    ["reason", (row) => row.reason || "", "wrap"],
    ["", (row) => el("button.small", { type: "button", onclick: () => cut(row) }, "Delete records"), "act"],
  ], found.partitions));
  const config = Object.entries(found.config).flatMap(([key, value]) => [el("dt", {}, key), el("dd", {}, String(value))]);
  if (byId("config").children.length !== config.length || byId("config").textContent !== config.map((each) => each.textContent).join("")) byId("config").replaceChildren(...config);
});

async function cut(row) {
  await filled(`Delete records of ${topic}/${row.partition}`, [
    { name: "before", label: "All records before this offset", type: "number", value: row.high_watermark ?? 0, required: true, hint: `the log has ${row.log_start_offset} to ${row.high_watermark}` },
  ], "Delete", async (values) => { await post("/api/topic/delete-records", { topic, partition: row.partition, before_offset: Number(values.before) }); });
  again();
}

byId("grow").addEventListener("click", async () => {
  await filled("Add partitions", [
    { name: "partitions", label: "Partitions", type: "number", value: (found?.partitions.length ?? 1) + 1, required: true, hint: "keys move to other partitions; the number cannot be reduced" },
  ], "Add", async (values) => { await post("/api/topic/alter", { topic, partitions: Number(values.partitions) }); });
  again();
});
byId("configure").addEventListener("click", async () => {
  await filled(`Configure ${topic}`, [
    { name: "config", label: "Settings to change", type: "textarea", hint: "one KEY=VALUE per line, such as retention_ms=86400000; -1: no limit", required: true },
  ], "Change", async (values) => { await post("/api/topic/alter", { topic, config: settings(values.config) }); });
  again();
});
byId("delete").addEventListener("click", async () => {
  if (!(await confirmed(`Delete ${topic}?`, "The topic and all its records are deleted. This cannot be undone.", { action: "Delete", typed: topic }))) return;
  if (await acted(() => post("/api/topic/delete", { topic, typed: topic }))) location.assign("/topics");
});
