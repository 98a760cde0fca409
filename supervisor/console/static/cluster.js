// Nodes and replicas of a cluster.

import { byId, confirmed, el } from "./dom.js";
import { acted, get, post } from "./http.js";
import { count } from "./format.js";
import { linkTo, put, repeating, table } from "./listing.js";

const again = repeating(async () => {
  const found = await get("/api/cluster");
  if (!found.cluster) {
    byId("told").textContent = found.message;
    put(byId("nodes"), el("p.none", {}, "One machine, no other nodes."));
    put(byId("parts"), el("p.none", {}, "No replicas."));
    return;
  }
  byId("told").textContent = `${found.cluster}, answered by ${found.node}, led by ${found.leading ?? "none"}${found.unplaced ? `; ${found.unplaced}` : ""}`;
  put(byId("nodes"), table([
    ["node", (row) => row.node], ["state", (row) => el(`span.pill.${row.state === "down" ? "dead" : "ready"}`, {}, row.state)], ["endpoint", (row) => row.endpoint, "mono"], ["rack", (row) => row.rack],
    ["replicas", (row) => count(row.replicas), "n"], ["leaders", (row) => count(row.leaders), "n"], ["not in sync", (row) => count(row.under_replicated), "n"],
    ["", (row) => ["cordoned", "draining", "leaving", "stopping"].filter((name) => row[name]).join(", ")],
    ["", (row) => (row.cordoned || row.draining || row.leaving
      ? [el("button.small", { type: "button", onclick: () => change(row, "uncordon") }, "Uncordon")]
      : [el("button.small", { type: "button", onclick: () => change(row, "cordon") }, "Cordon"), " ", el("button.small", { type: "button", onclick: () => change(row, "drain") }, "Drain")]), "act"],
  ], found.nodes));
  put(byId("parts"), table([
    ["topic", (row) => linkTo("topic", row.topic)], ["partition", (row) => row.partition, "n"], ["state", (row) => el(`span.pill.${row.offline ? "dead" : row.under_replicated ? "wait" : "ready"}`, {}, row.offline ? "offline" : row.under_replicated ? "under-replicated" : "in sync")],
    ["leader", (row) => row.leader], ["replicas", (row) => row.replicas.join(", ")], ["in sync", (row) => row.in_sync.join(", ")], ["moves to", (row) => row.target.join(", ")], ["epoch", (row) => row.leader_epoch, "n"],
    ["", (row) => (row.leader !== row.replicas[0] ? el("button.small", { type: "button", onclick: () => elect(row) }, `Let ${row.replicas[0]} lead`) : ""), "act"],
  ], found.partitions.slice(0, 1000)));
});

async function change(row, action) {
  const text = { cordon: "It gets no new replicas.", drain: "Its leaders move to other nodes.", uncordon: "It takes part again." }[action];
  if (!(await confirmed(`${action[0].toUpperCase()}${action.slice(1)} ${row.node}?`, text, { action: action[0].toUpperCase() + action.slice(1), isBad: action !== "uncordon" }))) return;
  await acted(() => post("/api/cluster/node", { node: row.node, action }), "done");
  again();
}
const elect = async (row) => { await acted(() => post("/api/cluster/elect", { topic: row.topic, partition: row.partition }), "elected"); again(); };
