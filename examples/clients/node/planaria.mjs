// A thin client of Planaria: one DEALER socket, headers in JSON, CURVE. docs/protocol.md has the fields of all requests.
//
// Each request has one of three outcomes:
//   ok       the broker has done it:            { ok: reply }
//   fail     the broker has not done it:        { fail: { code, message, retriable } }
//   unknown  no answer before the deadline:     { unknown: true }; it may have been done, now or later
// A request with retriable `fail` may be sent again. One with an `unknown` outcome only if a repetition does no harm: reads,
// and records with a dedup_id.

import { readFileSync, statSync } from "node:fs";
import { setTimeout as sleep } from "node:timers/promises";
import { Dealer, curveKeyPair } from "zeromq";

const FIRST_PAUSE_MS = 50;
const LONGEST_PAUSE_MS = 2_000;

/** Read a key file of `planaria key create`: lines of NAME = "text". Others must not be able to read it. */
export function readKeyFile(path) {
  if (statSync(path).mode & 0o077) throw new Error(`${path}: others may read it; change that with chmod 600`);
  const pairs = readFileSync(path, "utf8").matchAll(/^(\w+)\s*=\s*"([^"]*)"/gm);
  return Object.fromEntries([...pairs].map(([, name, text]) => [name, text]));
}

export class Client {
  #socket;
  #waiting = new Map(); // id -> resolve
  #lastId = 0;
  #sending = Promise.resolve();
  #hello;

  /**
   * `key` is a key file; or `serverKey` with `token`, or with `user` and `password`; or none of these for a broker without
   * authentication. Connects in the background, and again after each interruption.
   */
  constructor(url, { key, serverKey, token = "", user = "", password = "", clientId = "" } = {}) {
    const options = { linger: 0, heartbeatInterval: 10_000, heartbeatTimeout: 30_000 };
    const own = key ? readKeyFile(key) : curveKeyPair();
    const pinned = serverKey ?? own.server_key;
    if (pinned) {
      options.curveServerKey = pinned;
      options.curvePublicKey = own.public_key ?? own.publicKey;
      options.curveSecretKey = own.secret_key ?? own.secretKey;
    }
    this.#hello = { version: 1, client_id: clientId, token, user, password };
    this.#socket = new Dealer(options);
    this.#socket.connect(url);
    this.#receive();
  }

  /** Greet the broker; needed before other requests. Returns its reply. */
  async hello() {
    return (await this.repeated("hello", this.#hello)).ok;
  }

  /** Send a request once, and return its outcome. */
  async ask(op, fields = {}, { timeoutMs = 10_000 } = {}) {
    const id = ++this.#lastId;
    const header = JSON.stringify({ op, id, ...(op === "hello" ? {} : { greeted: true }), ...fields });
    const answered = new Promise((resolve) => this.#waiting.set(id, resolve));
    const deadline = new AbortController();
    this.#send(header);
    const reply = await Promise.race([
      answered,
      sleep(timeoutMs, null, { signal: deadline.signal }).catch(() => null),
    ]);
    deadline.abort();
    this.#waiting.delete(id);
    if (reply === null) {
      this.#send(JSON.stringify({ op: "cancel", request_id: id })); // nobody waits for the answer any longer
      return { unknown: true };
    }
    return reply.error ? { fail: reply.error } : { ok: reply };
  }

  /** Send a request that does no harm when it is done twice, until its outcome is known and final, or the time is over. */
  async repeated(op, fields = {}, { timeoutMs = 30_000, attemptMs = 10_000 } = {}) {
    const ends = Date.now() + timeoutMs;
    for (let pauseMs = FIRST_PAUSE_MS; ; pauseMs = Math.min(2 * pauseMs, LONGEST_PAUSE_MS)) {
      const left = ends - Date.now();
      const outcome = await this.ask(op, fields, { timeoutMs: Math.max(1, Math.min(attemptMs, left)) });
      if (outcome.ok || (outcome.fail && !outcome.fail.retriable) || Date.now() >= ends) return outcome;
      if (outcome.fail?.code === "HELLO_REQUIRED") await this.ask("hello", this.#hello);
      await sleep(outcome.fail?.retry_after_ms ?? pauseMs);
    }
  }

  /** Publish one record: { value, key?, dedupId, headers? }. The dedup id makes a repetition harmless. */
  async publish(topic, { value, key, dedupId, headers }) {
    if (!dedupId) throw new TypeError("dedupId: without one a repetition would publish twice");
    const record = { value_text: value, key_text: key, dedup_id: dedupId, headers };
    const outcome = await this.repeated("publish", { topic, records: [record] });
    if (!outcome.ok) return outcome;
    const [written] = outcome.ok.records;
    return written.error ? { fail: written.error } : { ok: written };
  }

  /** Yield the records of one partition from an offset on, for ever. Commits nothing: keep `offset + 1` yourself. */
  async *consume(topic, partition, offset) {
    for (;;) {
      const fields = { topic, partition, offset, max_wait_ms: 5_000 };
      const outcome = await this.repeated("fetch", fields, { attemptMs: 15_000 });
      if (outcome.fail && !outcome.fail.retriable) throw new Error(`${outcome.fail.code}: ${outcome.fail.message}`);
      if (!outcome.ok) continue; // no broker for a while
      yield* outcome.ok.records ?? [];
      offset = outcome.ok.next_offset;
    }
  }

  close() {
    this.#socket.close();
  }

  #send(header) {
    // A socket takes one message at a time.
    this.#sending = this.#sending.then(() => this.#socket.send(header)).catch(() => {});
  }

  async #receive() {
    for await (const [header] of this.#socket) {
      const reply = JSON.parse(header.toString());
      this.#waiting.get(reply.id)?.(reply);
    }
  }
}
