// Quotas of clients.

import { byId, confirmed, el } from "./dom.js";
import { acted, get, post } from "./http.js";
import { bytes, count } from "./format.js";
import { filled, put, repeating, table } from "./listing.js";

const RATES = [["produce_bytes", "bytes published"], ["fetch_bytes", "bytes read"], ["produce_requests", "publish requests"], ["fetch_requests", "read requests"]];
const limit = (value, show) => (value === null ? "no limit" : `${show(value)} / s`);

const again = repeating(async () => {
  const { quotas } = await get("/api/quotas");
  put(byId("list"), table([
    ["client", (row) => row.client_id, "mono"],
    ...RATES.map(([name, title]) => [title, (row) => limit(row[name], name.endsWith("bytes") ? bytes : count), "n"]),
    ["", (row) => [el("button.small", { type: "button", onclick: () => change(row) }, "Change"), " ", el("button.small.bad", { type: "button", onclick: () => remove(row) }, "Remove")], "act"],
  ], quotas, "No client has a quota."));
});

async function change(row) {
  await filled(row.client_id ? `Quota of ${row.client_id}` : "Set a quota", [
    ...(row.client_id ? [] : [{ name: "client_id", label: "Client id", required: true, hint: "default: each client without a quota of its own" }]),
    ...RATES.map(([name, title]) => ({ name, label: `${title} per second`, type: "number", value: row[name] ?? "", placeholder: "no limit" })),
  ], "Set", async (values) => {
    const quota = Object.fromEntries(RATES.map(([name]) => [name, values[name] === "" ? -1 : Number(values[name])]));
    await post("/api/quota", { client_id: row.client_id ?? values.client_id, quota });
  });
  again();
}

async function remove(row) {
  if (!(await confirmed(`Remove the quota of ${row.client_id}?`, "Its requests are no longer limited by it.", { action: "Remove" }))) return;
  await acted(() => post("/api/quota", { client_id: row.client_id, quota: null }), "removed");
  again();
}
byId("create").addEventListener("click", () => change({}));
