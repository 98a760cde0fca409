// Dead letters: reasons, one letter with its stack, redrive of the selected ones.

import { byId, confirmed, el, say } from "./dom.js";
import { acted, get, post } from "./http.js";
import { count, time } from "./format.js";
import { parameter, put, repeating, table } from "./listing.js";

const chosen = new Map();
let reason = "";
let found = null;
const letters = (number) => `${count(number)} ${number === 1 ? "letter" : "letters"}`;

function draw() {
  const most = Math.max(1, ...found.reasons.map(([, number]) => number));
  const bar = (number) => { const made = el("span.bar"); made.style.width = `${Math.max(2, (120 * number) / most)}px`; return made; };
  put(byId("reasons"), table([
    ["letters", ([, number]) => count(number), "n"], ["", ([, number]) => bar(number)],
    ["reason", ([text]) => text, "wrap"],
  ], found.reasons, "No dead letters."));
  byId("told").textContent = `${count(found.pending)} letters pending, ${count(found.all - found.unread - found.pending)} redriven.${found.unread ? ` ${count(found.unread)} older ones were not read; a redrive without a selection includes them.` : ""}`;
  byId("chosen").textContent = chosen.size ? `${chosen.size} selected` : "none selected: a redrive takes all of them";
  put(byId("list"), table([
    ["", (row) => {
      const box = el("input", { type: "checkbox", "aria-label": `Letter ${row.offset}`, onchange: (event) => { const key = `${row.partition}:${row.offset}`; if (event.target.checked) chosen.set(key, [row.partition, row.offset]); else chosen.delete(key); draw(); } });
      box.toggleAttribute("checked", chosen.has(`${row.partition}:${row.offset}`));
      return box;
    }],
    ["letter", (row) => el("button.quiet.small", { type: "button", onclick: () => open(row) }, `${row.partition}:${row.offset}`)],
    ["from", (row) => row.from], ["group", (row) => row.group], ["failures", (row) => row.failures, "n"], ["last", (row) => time(row.failed_ms)], ["reason", (row) => row.reason, "wrap"],
  ], found.letters, "No dead letters."));
}

async function open(row) {
  const topic = byId("topic").value;
  const letter = await acted(() => get("/api/letter", { topic, partition: row.partition, offset: row.offset }));
  if (!letter) return;
  const fact = (name, value) => (value === null || value === "" || value === undefined ? [] : [el("dt", {}, name), el("dd", {}, String(value))]);
  const dialog = el("dialog", { "aria-label": "Dead letter" }, el("h2", {}, `${topic}/${row.partition} at ${row.offset}`),
    el("dl.facts", {}, fact("from", letter.from), fact("group", letter.group), fact("reason", letter.reason), fact("exception", letter.exception), fact("failures", letter.failures), fact("first failed", time(letter.first_failure_ms)), fact("last failed", time(letter.failed_ms)), fact("redriven before", letter.redrives || null), fact("key", letter.message.key?.text)),
    el("h3", {}, "Value"), el("pre", { tabindex: "0" }, letter.message.value?.text ?? "none"),
    letter.traceback && el("h3", {}, "Stack"), letter.traceback && el("pre", { tabindex: "0" }, letter.traceback),
    el("form.row", { method: "dialog" }, el("button", {}, "Close")));
  dialog.addEventListener("close", () => dialog.remove());
  document.body.append(dialog);
  dialog.showModal();
}

const order = (isDry) => ({ topic: byId("topic").value, positions: chosen.size ? [...chosen.values()] : null, is_dry_run: isDry });

byId("dry").addEventListener("click", async () => {
  const answer = await acted(() => post("/api/redrive", order(true)));
  if (!answer) return;
  const dialog = el("dialog", { "aria-label": "Dry run" }, el("h2", {}, `${letters(answer.count)} would be sent`),
    el("p.hint", {}, `${count(answer.held_back)} have reached the limit of redrives, ${count(answer.no_origin)} have no original topic.`),
    el("div.scroll", {}, table([["letter", (row) => `${row.partition}:${row.offset}`], ["to", (row) => row.to], ["reason", (row) => row.reason, "wrap"]], answer.letters.slice(0, 50))),
    el("form.row", { method: "dialog" }, el("button", {}, "Close")));
  dialog.addEventListener("close", () => dialog.remove());
  document.body.append(dialog);
  dialog.showModal();
});
byId("redrive").addEventListener("click", async () => {
  const number = chosen.size || found?.pending || 0;
  if (!(await confirmed(`Redrive ${letters(number)}?`, "Each is published again to the topic that it came from.", { action: "Redrive", isBad: false }))) return;
  const answer = await acted(() => post("/api/redrive", order(false)));
  if (answer) { say(`${letters(answer.moved)} redriven${answer.refused ? `, ${answer.refused} refused` : ""}`); chosen.clear(); again(); }
});

let again = () => {};
acted(async () => {
  const { topics } = await get("/api/letter-topics");
  byId("topic").append(...topics.map((name) => el("option", { value: name, selected: name === parameter("topic") }, name)));
  byId("dry").disabled = byId("redrive").disabled = !topics.length;
  if (!topics.length) { byId("told").textContent = "No topic has dead letters."; return; }
  byId("told").textContent = "Reading…";
  again = repeating(async () => { found = await get("/api/letters", { topic: byId("topic").value }); draw(); }, 60000);
  byId("topic").addEventListener("change", () => { chosen.clear(); again(); });
});
