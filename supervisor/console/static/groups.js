// The list of groups.

import { byId, el } from "./dom.js";
import { get, post } from "./http.js";
import { count, duration } from "./format.js";
import { filled, linkTo, put, repeating, settings, table } from "./listing.js";

let rows = [];
const looks = { stable: "ready", active: "ready", paused: "cold", pausing: "cold", quarantined: "quar", dead: "dead", preparing_rebalance: "wait" };

function draw() {
  const wanted = byId("filter").value.toLowerCase();
  put(byId("list"), table([
    ["group", (row) => linkTo("group", row.group)],
    ["type", (row) => (row.type === "share" ? "work queue" : row.type === "consumer" ? "consumers" : "–")],
    ["state", (row) => el(`span.pill.${looks[row.state] ?? "idle"}`, {}, row.state)],
    ["members", (row) => count(row.members), "n"],
    ["messages behind", (row) => count(row.lag), "n"],
    ["oldest unread", (row) => (row.oldest_ms ? duration(Math.round((Date.now() - row.oldest_ms) / 1000) * 1000) : row.lag === 0 ? "none" : "–"), "n"],
  ], rows.filter((row) => row.group.toLowerCase().includes(wanted)), "There is no group yet."));
}

const again = repeating(async () => { rows = (await get("/api/groups")).groups; draw(); }, 3000);
byId("filter").addEventListener("input", draw);
byId("create").addEventListener("click", async () => {
  await filled("Create a work queue", [
    { name: "group", label: "Name", required: true },
    { name: "settings", label: "Settings that differ from the defaults", type: "textarea", rows: 4, hint: "one KEY=VALUE per line, such as lock_ms=30000, max_deliveries=5, dead_letter=ORDERS.dlq, fair=true" },
  ], "Create", async (values) => { await post("/api/group/configure", { group: values.group, settings: settings(values.settings) }); });
  again();
});
