// One group: its lag over time, its members, and the operator's acts on it.

import { byId, confirmed, el, say } from "./dom.js";
import { acted, get, post } from "./http.js";
import { count, duration, time } from "./format.js";
import { filled, linkTo, parameter, put, repeating, settings, table } from "./listing.js";
import { TimeChart } from "./chart.js";

const group = parameter("group");
byId("name").textContent = group;
document.title = `${group} · Planaria`;
const lags = new TimeChart(byId("c-lag"), { series: [{ label: "messages", colour: "--out" }], seconds: 300 });
const ages = new TimeChart(byId("c-age"), { series: [{ label: "seconds", colour: "--third" }], seconds: 300, format: (value) => `${value < 10 ? value.toFixed(1) : Math.round(value)} s` });
let found = null;

const parts = (assignment) => Object.entries(assignment).map(([topic, numbers]) => `${topic} ${numbers.join(", ")}`).join("; ");

const again = repeating(async () => {
  found = await get("/api/group", { group });
  const now = Date.now();
  const age = found.oldest_ms === null ? 0 : Math.max(0, now - found.oldest_ms);
  lags.add(now, [found.lag]);
  ages.add(now, [age / 1000]);
  lags.draw();
  ages.draw();
  byId("f-lag").textContent = count(found.lag);
  byId("f-age").textContent = found.oldest_ms === null ? "none" : duration(age);
  const isShare = found.share !== null;
  byId("f-members").textContent = count(isShare ? found.share.members.length : found.members.length);
  byId("pause").textContent = found.paused ? "Resume" : "Pause";
  byId("reset").hidden = isShare;
  byId("settings").hidden = !isShare;
  const state = `${found.state}${found.paused ? `: ${found.paused.reason || "paused"}` : ""}`;
  put(byId("state"), el("span.pill.cold", {}, state));
  put(byId("members"), isShare
    ? table([["member", (row) => row, "mono"]], found.share.members, "No member works on this queue.")
    : table([
      ["member", (row) => row.member_id, "mono"], ["client", (row) => row.client_id || "–"], ["topics", (row) => row.topics.join(", ")],
      ["partitions", (row) => parts(row.assignment), "wrap"], ["generation", (row) => row.generation, "n"],
    ], found.members, "The group has no members."));
  put(byId("parts"), table([
    ["topic", (row) => linkTo("topic", row.topic)], ["partition", (row) => row.partition, "n"], ["position", (row) => count(row.position), "n"], ["end", (row) => count(row.end), "n"],
    ["behind", (row) => count(row.lag), "n"], ["oldest unread", (row) => (row.oldest_ms ? duration(now - row.oldest_ms) : "–"), "n"],
  ], found.lags, "The group has read nothing yet."));
  byId("queue").hidden = !isShare;
  if (isShare) {
    const held = found.share.partitions.flatMap((each) => each.held.map((range) => ({ ...range, ...{ topic: each.topic, partition: each.partition, state: `locked to ${range.member_id}`, until: range.locked_until_ms } })));
    const retrying = found.share.partitions.flatMap((each) => each.retrying.map((range) => ({ ...range, topic: each.topic, partition: each.partition, state: range.reason || "failed", until: range.next_try_ms })));
    put(byId("records"), table([
      ["records", (row) => `${row.topic}/${row.partition} ${row.first_offset}${row.last_offset > row.first_offset ? ` to ${row.last_offset}` : ""}`], ["delivery", (row) => row.delivery_count, "n"], ["state", (row) => row.state, "wrap"], ["until", (row) => time(row.until)],
    ], [...held, ...retrying], "No record is locked or waits for a retry."));
    const { partitions, members, ...facts } = found.share;
    byId("facts").replaceChildren(...Object.entries(facts).flatMap(([key, value]) => [el("dt", {}, key), el("dd", {}, typeof value === "object" ? JSON.stringify(value) : String(value))]));
  }
});

byId("pause").addEventListener("click", async () => {
  if (found?.paused) await acted(() => post("/api/group/resume", { group }), "resumed");
  else await filled(`Pause ${group}`, [{ name: "reason", label: "Reason" }], "Pause", async (values) => { await post("/api/group/pause", { group, reason: values.reason }); });
  again();
});
byId("settings").addEventListener("click", async () => {
  await filled(`Configure ${group}`, [{ name: "settings", label: "Settings to change", type: "textarea", rows: 4, required: true, hint: "one KEY=VALUE per line, such as max_deliveries=5" }], "Change", async (values) => { await post("/api/group/configure", { group, settings: settings(values.settings) }); });
  again();
});
byId("reset").addEventListener("click", async () => {
  const preview = el("div.scroll");
  await filled(`Reset the offsets of ${group}`, [
    { name: "to", label: "To", type: "select", options: ["earliest", "latest", "offset", "time"], value: "earliest" },
    { name: "at", label: "Offset, or time (2026-01-31T12:00)" },
    { name: "topic", label: "Topic", placeholder: "all" }, { name: "partition", label: "Partition", placeholder: "all" },
    { name: "sure", label: "Set them now (else only a preview)", type: "checkbox" },
  ], "Continue", async (values) => {
    const at = values.to === "time" ? new Date(values.at).getTime() : Number(values.at || 0);
    if (!Number.isFinite(at)) throw new Error(`${values.at} is neither an offset nor a time`);
    const answer = await post("/api/group/reset", { group, to: values.to, at, topic: values.topic || null, partition: values.partition === "" ? null : Number(values.partition), is_preview: !values.sure });
    if (answer.is_done) { say(`${answer.offsets.length} offsets are set`); return false; }
    preview.replaceChildren(table([["topic", (row) => row.topic], ["partition", (row) => row.partition, "n"], ["from", (row) => count(row.from), "n"], ["to", (row) => count(row.to), "n"], ["messages", (row) => `${row.to < row.from ? "again " : "skipped "}${count(Math.abs(row.to - row.from))}`, "n"]], answer.offsets));
    return true;
  }, preview);
  again();
});
byId("delete").addEventListener("click", async () => {
  if (!(await confirmed(`Delete ${group}?`, "The group and its offsets are deleted.", { action: "Delete", typed: group }))) return;
  if (await acted(() => post("/api/group/delete", { group, typed: group }))) location.assign("/groups");
});
