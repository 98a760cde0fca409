// Requests to the console. Only a script of its own pages can set the header, which is the proof against other sites.

import { say } from "./dom.js";

export class Refused extends Error {
  constructor(status, failure) {
    super(failure.message);
    this.status = status;
    this.code = failure.code;
  }
}

async function answered(response) {
  if (response.status === 401 && location.pathname !== "/login") location.assign("/login");
  const text = await response.text();
  let found;
  try {
    found = JSON.parse(text);
  } catch {
    throw new Refused(response.status, { code: "NO_JSON", message: `the console answered with status ${response.status}: ${text.slice(0, 200)}` });
  }
  if (!response.ok) throw new Refused(response.status, found.error);
  return found;
}

/** The parameters that have a value, as a query. */
export function query(parameters) {
  const kept = Object.entries(parameters).filter(([, value]) => value !== null && value !== undefined && value !== "");
  return kept.length ? `?${new URLSearchParams(kept)}` : "";
}

export async function get(path, parameters = {}, signal = undefined) {
  return answered(await fetch(path + query(parameters), { headers: { accept: "application/json" }, signal }));
}

export async function post(path, body) {
  return answered(await fetch(path, {
    method: "POST",
    headers: { "content-type": "application/json", "x-planaria-console": "1" },
    body: JSON.stringify(body),
  }));
}

/** Run an act of a person; its failure is shown. Returns the result, or undefined after a failure. */
export async function acted(act, done = null) {
  try {
    const found = await act();
    if (done) say(typeof done === "function" ? done(found) : done);
    return found;
  } catch (error) {
    say(error.message, true);
    return undefined;
  }
}
