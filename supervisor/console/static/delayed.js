// Delayed messages.

import { byId, confirmed, el } from "./dom.js";
import { acted, get, post } from "./http.js";
import { bytes, duration, time } from "./format.js";
import { linkTo, put, repeating, table } from "./listing.js";

const again = repeating(async () => {
  const found = await get("/api/delayed");
  const wanted = byId("filter").value.toLowerCase();
  put(byId("list"), table([
    ["id", (row) => row.scheduled_id, "mono"], ["topic", (row) => linkTo("topic", row.topic)], ["key", (row) => row.key_text, "mono"],
    ["due", (row) => time(row.deliver_at_ms)], ["in", (row) => (row.deliver_at_ms > found.now_ms ? duration(row.deliver_at_ms - found.now_ms) : "due"), "n"],
    ["size", (row) => bytes(row.size_bytes), "n"], ["reason", (row) => row.reason || "", "wrap"],
    ["", (row) => el("button.small", { type: "button", onclick: () => cancel(row) }, "Cancel"), "act"],
  ], found.messages.filter((row) => `${row.scheduled_id} ${row.topic} ${row.key_text}`.toLowerCase().includes(wanted)), "No delayed messages."));
});

async function cancel(row) {
  if (!(await confirmed(`Cancel ${row.scheduled_id}?`, "It will not be delivered.", { action: "Cancel the message" }))) return;
  await acted(() => post("/api/delayed/cancel", { scheduled_id: row.scheduled_id }), "cancelled");
  again();
}
