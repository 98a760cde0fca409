// Publish, read, and see the three outcomes.
//
//   npm install && node example.mjs tcp://127.0.0.1:5570 shop.key ORDERS

import { Client } from "./planaria.mjs";

const [url = "tcp://127.0.0.1:5570", key = process.env.PLANARIA_KEY, topic = "ORDERS"] = process.argv.slice(2);
const client = new Client(url, {
  key,
  serverKey: process.env.PLANARIA_SERVER_KEY,
  token: process.env.PLANARIA_TOKEN,
  clientId: "node-example",
});

const greeting = await client.hello();
if (!greeting) throw new Error(`no broker at ${url}, or it does not accept the key`);
console.log("hello", greeting.principal ?? "-");

const start = await client.repeated("list_offsets", { topic, partition: 0, at: "latest" });
for (const dedupId of ["node-1", "node-2", "node-2"]) {
  const outcome = await client.publish(topic, { value: `order ${dedupId}`, key: "k", dedupId });
  console.log("published", outcome.ok ? `duplicate=${outcome.ok.duplicate}` : JSON.stringify(outcome));
}
let count = 0;
for await (const record of client.consume(topic, 0, start.ok.offset)) {
  console.log("consumed", record.key_text, record.value_text);
  if (++count === 2) break;
}

const refused = await client.ask("delete_topic", { topic: "__offsets" });
console.log("fail", refused.fail.code, `retriable=${refused.fail.retriable}`);

const end = await client.repeated("list_offsets", { topic, partition: 0, at: "latest" });
const late = { topic, partition: 0, offset: end.ok.offset, max_wait_ms: 30_000 };
console.log((await client.ask("fetch", late, { timeoutMs: 200 })).unknown ? "unknown" : "answered");
client.close();
