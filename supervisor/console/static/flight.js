// Who has which record now, and which records wait for another attempt.

import { byId } from "./dom.js";
import { get } from "./http.js";
import { duration, time } from "./format.js";
import { linkTo, put, repeating, table } from "./listing.js";

repeating(async () => {
  const found = await get("/api/in-flight");
  const wanted = byId("filter").value.toLowerCase();
  const matches = (row) => `${row.topic}/${row.partition} ${row.offset} ${row.group} ${row.member}`.toLowerCase().includes(wanted);
  put(byId("list"), table([
    ["topic", (row) => linkTo("topic", row.topic)], ["partition", (row) => row.partition, "n"],
    ["offset", (row) => (row.last_offset > row.offset ? `${row.offset} to ${row.last_offset}` : row.offset), "n"],
    ["group", (row) => linkTo("group", row.group)], ["member", (row) => row.member, "mono"], ["process", (row) => row.pid, "n"],
    ["attempt", (row) => row.attempt, "n"], ["for", (row) => duration(found.now_ms - row.since_ms), "n"],
  ], found.records.filter(matches), "No record is being handled."));
  put(byId("retrying"), table([
    ["topic", (row) => linkTo("topic", row.topic)], ["partition", (row) => row.partition, "n"], ["offset", (row) => row.offset, "n"], ["key", (row) => row.key, "mono"], ["group", (row) => row.group],
    ["attempts", (row) => row.attempts, "n"], ["next", (row) => (row.parked ? "parked" : time(row.next_try_ms))], ["reason", (row) => row.reason, "wrap"],
  ], found.retrying.filter(matches), "No record waits for a retry."));
}, 1000);
