// Users, keys, rules, the trial of a right, and the audit.

import { byId, confirmed, el, say } from "./dom.js";
import { acted, get, post } from "./http.js";
import { time } from "./format.js";
import { filled, put, repeating, table } from "./listing.js";

const RIGHTS = ["produce", "consume", "queue", "manage", "operate", "admin"];

const again = repeating(async () => {
  const found = await get("/api/security");
  byId("told").textContent = found.principals?.length ? "" : found.message ?? "This broker has no users: every client that can connect may do everything.";
  put(byId("users"), table([
    ["user", (row) => row.principal], ["", (row) => (row.is_disabled ? el("span.pill.dead", {}, "disabled") : "")], ["roles", (row) => row.roles.join(", ")],
    ["credentials", (row) => row.credentials.map((each) => Object.values(each).filter((value) => typeof value === "string").join(" ")).join("; "), "wrap"],
    ["", (row) => [
      el("button.small", { type: "button", onclick: () => change(row, row.is_disabled ? "enable" : "disable") }, row.is_disabled ? "Enable" : "Disable"), " ",
      el("button.small", { type: "button", onclick: () => token(row) }, "New token"), " ",
      el("button.small.bad", { type: "button", onclick: () => remove(row) }, "Remove")], "act"],
  ], found.principals ?? [], "No users."));
  put(byId("rules"), table([
    ["subject", (row) => row.subject], ["effect", (row) => el(`span.pill.${row.effect === "deny" ? "dead" : "ready"}`, {}, row.effect)], ["rights", (row) => row.rights.join(", ")], ["resource", (row) => row.resource, "mono"],
    ["", (row) => el("button.small", { type: "button", onclick: () => revoke(row) }, "Revoke"), "act"],
  ], found.rules ?? [], "No rules."));
  const { entries } = await get("/api/audit");
  put(byId("audit"), table([
    ["time", (row) => time(row.timestamp_ms)], ["entry", (row) => (row.value ? row.value.text.replace(/\s+/g, " ") : ""), "wrap"],
  ], entries ?? [], "No entries."));
}, 5000);

const user = (principal, action, more = {}) => post("/api/security/user", { principal, action, ...more });
const change = async (row, action) => { await acted(() => user(row.principal, action), "done"); again(); };
async function token(row) {
  const found = await acted(() => user(row.principal, "token"));
  if (found) await filled("A new token", [{ name: "token", label: "Copy it now, it cannot be shown again", value: found.token }], "Done", async () => {});
  again();
}
async function remove(row) {
  if (!(await confirmed(`Remove ${row.principal}?`, "Its credentials and rules are removed, too.", { action: "Remove", typed: row.principal }))) return;
  await change(row, "remove");
}
const rule = (values, isRemoved) => post("/api/security/rule", { subject: values.subject, rights: values.rights, resource: values.resource, effect: values.effect, is_removed: isRemoved });
const revoke = async (row) => { if (await confirmed(`Revoke ${row.rights.join(", ")} of ${row.subject}?`, row.resource, { action: "Revoke" })) { await acted(() => rule(row, true), "revoked"); again(); } };

byId("add").addEventListener("click", async () => {
  await filled("Add a user", [{ name: "principal", label: "Name", required: true }, { name: "password", label: "Password", type: "password", required: true }], "Add", async (values) => { await user(values.principal, "password", { password: values.password }); });
  again();
});
byId("grant").addEventListener("click", async () => {
  await filled("Add a rule", [
    { name: "subject", label: "User, or role:NAME", required: true }, { name: "right", label: "Right", type: "select", options: RIGHTS, value: "consume" },
    { name: "resource", label: "Resource", placeholder: "topic:orders*", required: true }, { name: "effect", label: "Effect", type: "select", options: ["allow", "deny"], value: "allow" },
  ], "Add", async (values) => { await rule({ ...values, rights: [values.right] }, false); });
  again();
});
byId("test").addEventListener("click", () => filled("Test access", [
  { name: "principal", label: "User", required: true }, { name: "right", label: "Right", type: "select", options: RIGHTS, value: "produce" }, { name: "resource", label: "Resource", placeholder: "topic:orders", required: true },
], "Test", async (values) => { const found = await get("/api/security/test", values); say(JSON.stringify(found)); return true; }));
