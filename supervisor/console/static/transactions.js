// Transactional ids and their last transactions.

import { byId, el } from "./dom.js";
import { get } from "./http.js";
import { duration } from "./format.js";
import { put, repeating, table } from "./listing.js";

const looks = { Ongoing: "wait", PrepareCommit: "wait", PrepareAbort: "wait", CompleteCommit: "ready", CompleteAbort: "dead" };
const parts = (row) => Object.entries(row.partitions).map(([topic, numbers]) => `${topic} ${numbers.join(", ")}`).join("; ");

repeating(async () => {
  const found = await get("/api/transactions");
  const wanted = byId("filter").value.toLowerCase();
  put(byId("list"), table([
    ["transactional id", (row) => row.transactional_id, "mono"], ["state", (row) => el(`span.pill.${looks[row.state] ?? "idle"}`, {}, row.state)],
    ["open for", (row) => (row.started_ms ? duration(found.now_ms - row.started_ms) : "–"), "n"], ["timeout", (row) => duration(row.timeout_ms), "n"],
    ["partitions", parts, "wrap"], ["groups", (row) => row.groups.join(", ")], ["producer", (row) => `${row.producer_id}, epoch ${row.producer_epoch}`, "n"],
  ], found.transactions.filter((row) => row.transactional_id.toLowerCase().includes(wanted)), "No program has used transactions."));
}, 1000);
