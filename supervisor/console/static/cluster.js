// Nodes and replicas of a cluster, and moves of replicas.
//
// Moves that a person has confirmed are begun a few at a time. The page has the list of the others: when it is closed, those that
// have begun go on, and a new plan has the rest.

import { byId, confirmed, el } from "./dom.js";
import { acted, get, post } from "./http.js";
import { count } from "./format.js";
import { filled, linkTo, put, repeating, say, table } from "./listing.js";

const NODE_LOOKS = { alive: "ready", suspected: "wait", down: "dead" };

let moves = []; // not begun
let atOnce = 1;
let begun = [];
let total = 0;
let hasFailed = false;

const again = repeating(async () => {
  const found = await get("/api/cluster");
  for (const id of ["rebalance", "reassign"]) byId(id).hidden = !found.cluster;
  if (!found.cluster) {
    byId("told").textContent = found.message;
    put(byId("nodes"), el("p.none", {}, "This broker runs on one machine."));
    put(byId("parts"), el("p.none", {}, "None."));
    return;
  }
  byId("told").textContent = `${found.cluster}, answer of ${found.node}, led by ${found.leading ?? "no node"}${found.unplaced ? `; ${found.unplaced}` : ""}`;
  put(byId("nodes"), table([
    ["node", (row) => row.node], ["state", (row) => el(`span.pill.${NODE_LOOKS[row.state]}`, {}, row.state)], ["endpoint", (row) => row.endpoint, "mono"], ["rack", (row) => row.rack],
    ["replicas", (row) => count(row.replicas), "n"], ["leaders", (row) => count(row.leaders), "n"], ["not in sync", (row) => count(row.under_replicated), "n"],
    ["", (row) => ["cordoned", "draining", "leaving", "stopping"].filter((name) => row[name]).join(", ")],
    ["", (row) => (row.cordoned || row.draining || row.leaving
      ? [el("button.small", { type: "button", onclick: () => change(row, "uncordon") }, "Uncordon")]
      : [el("button.small", { type: "button", onclick: () => change(row, "cordon") }, "Cordon"), " ", el("button.small", { type: "button", onclick: () => change(row, "drain") }, "Drain"), " ", el("button.small", { type: "button", onclick: () => change(row, "leave") }, "Decommission")]), "act"],
  ], found.nodes));
  put(byId("parts"), table([
    ["topic", (row) => linkTo("topic", row.topic)], ["partition", (row) => row.partition, "n"], ["state", (row) => el(`span.pill.${row.offline ? "dead" : row.under_replicated ? "wait" : "ready"}`, {}, row.offline ? "offline" : row.under_replicated ? "under-replicated" : "in sync")],
    ["leader", (row) => row.leader], ["replicas", (row) => row.replicas.join(", ")], ["in sync", (row) => row.in_sync.join(", ")], ["moves to", (row) => row.target.join(", ")], ["epoch", (row) => row.leader_epoch, "n"],
    ["", (row) => (row.leader !== row.replicas[0] ? el("button.small", { type: "button", onclick: () => elect(row) }, `Make ${row.replicas[0]} leader`) : ""), "act"],
  ], found.partitions.slice(0, 1000)));
  await goOn(found.partitions);
});

// Moves.

/** Begin the next moves when those before are done, and show the progress. */
async function goOn(partitions) {
  if (!total) return;
  const present = new Map(partitions.map((each) => [`${each.topic}/${each.partition}`, each]));
  begun = begun.filter((each) => present.get(`${each.topic}/${each.partition}`)?.target.length);
  if (!begun.length && moves.length) {
    begun = moves.splice(0, atOnce);
    try {
      await post("/api/cluster/move", { moves: begun.map(({ topic, partition, replicas }) => ({ topic, partition, replicas })) });
    } catch (error) {
      say(error.message, true);
      [begun, moves, hasFailed] = [[], [], true];
    }
    again();
  }
  const left = begun.length + moves.length;
  byId("moving").textContent = left ? `${count(total - left)} of ${count(total)} moved` : "";
  byId("stop").hidden = !moves.length;
  if (left) return;
  if (!hasFailed) say(`${count(total)} ${total === 1 ? "partition is" : "partitions are"} moved`);
  total = 0;
}

function start(plan) {
  [moves, begun, total, hasFailed, atOnce] = [plan.moves, [], plan.moves.length, false, plan.at_once];
  again();
}

const planned = (found) => table([
  ["partition", (row) => `${row.topic}/${row.partition}`], ["now", (row) => row.from.join(", ")], ["then", (row) => row.replicas.join(", ")], ["gets a copy", (row) => row.copies.join(", ")],
], found, "Nothing to move.");

byId("rebalance").addEventListener("click", async () => {
  const plan = await acted(() => get("/api/cluster/plan"));
  if (!plan) return;
  if (!plan.moves.length) { say("replicas are spread evenly, nothing to move"); return; }
  if (await filled("Spread replicas and leaders evenly", [], `Move ${count(plan.moves.length)}`, async () => false, el("div.scroll", {}, planned(plan.moves)))) start(plan);
});

byId("reassign").addEventListener("click", async () => {
  const preview = el("div.scroll");
  let shown = null; // the values of the preview, and its plan
  const isDone = await filled("Move a topic to other nodes", [
    { name: "topic", label: "Topic", required: true }, { name: "partition", label: "Partition", placeholder: "all", hint: "For one partition, the first node is its preferred leader. For all partitions, the nodes take turns." },
    { name: "nodes", label: "Nodes", required: true, placeholder: "n1, n2, n3" },
    { name: "sure", label: "Move it now (otherwise only a preview is shown)", type: "checkbox" },
  ], "Continue", async (values) => {
    const body = { topic: values.topic.trim(), partition: values.partition.trim() === "" ? null : Number(values.partition), replicas: values.nodes.split(",").map((each) => each.trim()).filter(Boolean) };
    const text = JSON.stringify(body);
    if (values.sure && shown?.text === text) return false;
    shown = { text, plan: await post("/api/cluster/target", body) };
    preview.replaceChildren(planned(shown.plan.moves));
    return true;
  }, preview);
  if (isDone) start(shown.plan);
});

byId("stop").addEventListener("click", () => { total -= moves.length; moves = []; again(); });

async function change(row, action) {
  const [name, text] = {
    cordon: ["Cordon", "The node gets no new replicas."], drain: ["Drain", "Its leaders move to other nodes."], uncordon: ["Uncordon", "The node gets replicas and leaders again."],
    leave: ["Decommission", "All its replicas move to other nodes. After that it can be removed from the cluster."],
  }[action];
  if (!(await confirmed(`${name} ${row.node}?`, text, { action: name, isBad: action !== "uncordon" }))) return;
  await acted(() => post("/api/cluster/node", { node: row.node, action }), "done");
  again();
}
const elect = async (row) => { await acted(() => post("/api/cluster/elect", { topic: row.topic, partition: row.partition }), "elected"); again(); };
