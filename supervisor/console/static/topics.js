// The list of topics.

import { byId } from "./dom.js";
import { get, post } from "./http.js";
import { bytes, count, rate } from "./format.js";
import { filled, linkTo, put, repeating, settings, table } from "./listing.js";

let rows = [];
const written = new Map(); // topic -> [time, messages ever written, rate]

function rateOf(row) {
  if (row.written === undefined) return null;
  const now = performance.now();
  const before = written.get(row.topic);
  const found = before && now - before[0] > 200 ? Math.max(0, (row.written - before[1]) / ((now - before[0]) / 1000)) : before?.[2] ?? null;
  written.set(row.topic, [now, row.written, found]);
  return found;
}

function draw() {
  const wanted = byId("filter").value.toLowerCase();
  put(byId("list"), table([
    ["topic", (row) => linkTo("topic", row.topic)],
    ["partitions", (row) => (row.online === undefined || row.online === row.partitions ? row.partitions : `${row.online} of ${row.partitions} online`), "n"],
    ["messages", (row) => count(row.messages), "n"],
    ["in / s", (row) => (row.rate === null || row.rate === undefined ? "–" : rate(row.rate)), "n"],
    ["on disk", (row) => bytes(row.size_bytes), "n"],
    ["cleanup", (row) => row.cleanup],
    ["", (row) => linkTo("messages", row.topic, "messages"), "act"],
  ], rows.filter((row) => row.topic.toLowerCase().includes(wanted)), "There is no topic yet."));
}

const again = repeating(async () => {
  rows = (await get("/api/topics", { internal: byId("internal").checked ? 1 : "" })).topics;
  for (const row of rows) row.rate = rateOf(row);
  draw();
});
byId("filter").addEventListener("input", draw);
byId("internal").addEventListener("change", again);
byId("create").addEventListener("click", async () => {
  await filled("Create a topic", [
    { name: "topic", label: "Name", required: true },
    { name: "partitions", label: "Partitions", type: "number", value: 3, required: true },
    { name: "config", label: "Settings that differ from the defaults", type: "textarea", rows: 4, hint: "one KEY=VALUE per line, such as retention_ms=86400000 or cleanup=compact" },
  ], "Create", async (values) => { await post("/api/topic/create", { topic: values.topic, partitions: Number(values.partitions), config: settings(values.config) }); });
  again();
});
