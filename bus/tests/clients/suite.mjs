// nats.js, unmodified, against the server at the URL given: one line a test, and a line of counts that libtest would print.

import assert from "node:assert/strict";
import { createRequire } from "node:module";
import { setTimeout as sleep } from "node:timers/promises";

const [url, modules] = process.argv.slice(2);
const { connect, headers, AckPolicy, DeliverPolicy, StringCodec } = createRequire(`${modules}/`)("nats");
const sc = StringCodec();
const tests = [];
const test = (name, run) => tests.push({ name, run });
const text = (message) => sc.decode(message.data);

async function filled(nc, name, count) {
  const jsm = await nc.jetstreamManager();
  await jsm.streams.add({ name, subjects: [`${name.toLowerCase()}.>`] });
  const js = nc.jetstream();
  for (let n = 1; n <= count; n++) await js.publish(`${name.toLowerCase()}.${n % 3}`, sc.encode(`${n}`));
  return { js, jsm };
}

async function take(iterator, count) {
  const found = [];
  for await (const message of iterator) {
    found.push(message);
    if (found.length === count) break;
  }
  return found;
}

test("core_publish_subscribe_headers", async (nc) => {
  const sub = nc.subscribe("js.core.*", { max: 1 });
  const h = headers();
  h.set("A", "b");
  nc.publish("js.core.a", sc.encode("hello"), { headers: h });
  const [message] = await take(sub, 1);
  assert.deepEqual([message.subject, text(message), message.headers.get("A")], ["js.core.a", "hello", "b"]);
});

test("core_request_reply_and_no_responders", async (nc) => {
  nc.subscribe("js.ask", { callback: (_, message) => message.respond(sc.encode("yes")) });
  assert.equal(text(await nc.request("js.ask", undefined, { timeout: 5000 })), "yes");
  await assert.rejects(nc.request("js.nobody", undefined, { timeout: 5000 }), { code: "503" });
});

test("core_drain_and_queue_group", async (nc) => {
  let seen = [0, 0];
  nc.subscribe("js.queue", { queue: "g", callback: () => seen[0]++ });
  nc.subscribe("js.queue", { queue: "g", callback: () => seen[1]++ });
  for (let n = 0; n < 60; n++) nc.publish("js.queue");
  await nc.flush();
  await sleep(200);
  assert.equal(seen[0] + seen[1], 60);
  assert.ok(seen[0] > 0 && seen[1] > 0, `${seen}`);
  await nc.drain();
  assert.ok(nc.isClosed());
});

test("core_services", async (nc) => {
  const service = await nc.services.add({ name: "adder", version: "1.0.0", description: "adds" });
  service.addEndpoint("sum", (error, message) => message.respond(sc.encode("3")));
  assert.equal(text(await nc.request("sum", undefined, { timeout: 5000 })), "3");
  const found = await take(await nc.services.client().ping("adder"), 1);
  assert.equal(found[0].name, "adder");
});

test("streams_life", async (nc) => {
  const { jsm } = await filled(nc, "JSLIFE", 10);
  const info = await jsm.streams.info("JSLIFE", { subjects_filter: ">" });
  assert.deepEqual([info.state.messages, info.state.first_seq, info.state.last_seq], [10, 1, 10]);
  assert.deepEqual(info.state.subjects, { "jslife.0": 3, "jslife.1": 4, "jslife.2": 3 });
  await jsm.streams.update("JSLIFE", { max_msgs: 4 });
  assert.equal((await jsm.streams.info("JSLIFE")).state.messages, 4);
  assert.equal(await jsm.streams.find("jslife.x"), "JSLIFE");
  assert.equal((await jsm.streams.purge("JSLIFE", { filter: "jslife.1" })).purged, 2);
  assert.ok((await jsm.streams.names().next()).includes("JSLIFE"));
  assert.ok(await jsm.streams.delete("JSLIFE"));
  await assert.rejects(jsm.streams.info("JSLIFE"), (error) => error.api_error.err_code === 10059);
});

test("publish_acknowledgements_and_expectations", async (nc) => {
  const jsm = await nc.jetstreamManager();
  await jsm.streams.add({ name: "JSPUB", subjects: ["jspub"] });
  const js = nc.jetstream();
  const first = await js.publish("jspub", sc.encode("x"), { msgID: "a" });
  const again = await js.publish("jspub", sc.encode("x"), { msgID: "a" });
  assert.deepEqual([first.seq, first.duplicate, again.seq, again.duplicate], [1, false, 1, true]);
  await assert.rejects(js.publish("jspub", sc.encode("x"), { expect: { lastSequence: 7 } }), (error) => error.api_error.err_code === 10071);
  await js.publish("jspub", sc.encode("x"), { expect: { lastSequence: 1, streamName: "JSPUB" } });
});

test("messages_by_sequence_and_subject", async (nc) => {
  const { jsm } = await filled(nc, "JSGET", 6);
  assert.equal(sc.decode((await jsm.streams.getMessage("JSGET", { seq: 2 })).data), "2");
  assert.equal((await jsm.streams.getMessage("JSGET", { last_by_subj: "jsget.0" })).seq, 6);
  assert.ok(await jsm.streams.deleteMessage("JSGET", 2));
  await assert.rejects(jsm.streams.getMessage("JSGET", { seq: 2 }), (error) => error.api_error.err_code === 10037);
  await jsm.streams.update("JSGET", { allow_direct: true });
  assert.equal((await jsm.direct.getMessage("JSGET", { seq: 3 })).seq, 3);
  assert.equal((await jsm.direct.getMessage("JSGET", { last_by_subj: "jsget.1" })).seq, 4);
});

test("pull_fetch_and_acknowledge", async (nc) => {
  const { js, jsm } = await filled(nc, "JSPULL", 6);
  await jsm.consumers.add("JSPULL", { durable_name: "d", ack_policy: AckPolicy.Explicit });
  const consumer = await js.consumers.get("JSPULL", "d");
  const messages = await take(await consumer.fetch({ max_messages: 4, expires: 2000 }), 4);
  assert.deepEqual(messages.map(text), ["1", "2", "3", "4"]);
  assert.deepEqual([messages[0].info.pending, messages[0].seq], [5, 1]);
  assert.ok(await messages[0].ackAck());
  messages[1].nak();
  messages[2].term("no good");
  messages[3].working();
  await nc.flush();
  const again = await take(await consumer.fetch({ max_messages: 3, expires: 2000 }), 3);
  assert.deepEqual(again.map(text), ["2", "5", "6"]);
  const info = await consumer.info();
  assert.deepEqual([info.num_ack_pending, info.num_pending], [4, 0]);
  assert.equal(await consumer.next({ expires: 1000 }), null);
});

test("pull_consume_with_heartbeats", async (nc) => {
  const { js, jsm } = await filled(nc, "JSCONSUME", 200);
  await jsm.consumers.add("JSCONSUME", { durable_name: "d", ack_policy: AckPolicy.Explicit });
  const consumer = await js.consumers.get("JSCONSUME", "d");
  const messages = await consumer.consume({ max_messages: 20, expires: 5000 });
  let expected = 1;
  for await (const message of messages) {
    assert.equal(text(message), `${expected}`);
    message.ack();
    if (expected++ === 200) break;
  }
});

test("ordered_consumer", async (nc) => {
  const { js } = await filled(nc, "JSORD", 60);
  const consumer = await js.consumers.get("JSORD", { filterSubjects: ["jsord.1", "jsord.2"] });
  const messages = await take(await consumer.consume(), 40);
  assert.deepEqual(messages.slice(0, 4).map(text), ["1", "2", "4", "5"]);
  assert.equal(messages[39].info.pending, 0);
});

test("push_subscription_with_flow_control", async (nc) => {
  const { js } = await filled(nc, "JSPUSH", 50);
  const { consumerOpts } = createRequire(`${modules}/`)("nats");
  const opts = consumerOpts().deliverTo("jspushed.here").durable("p").ackExplicit().manualAck().flowControl().idleHeartbeat(1000);
  const sub = await js.subscribe("jspush.>", opts);
  const messages = await take(sub, 50);
  messages.forEach((message) => message.ack());
  assert.deepEqual(messages.map(text), Array.from({ length: 50 }, (_, n) => `${n + 1}`));
});

test("consumers_listed_paused_and_deleted", async (nc) => {
  const { jsm } = await filled(nc, "JSCONS", 3);
  for (const durable_name of ["a", "b"]) {
    await jsm.consumers.add("JSCONS", { durable_name, ack_policy: AckPolicy.Explicit, deliver_policy: DeliverPolicy.New });
  }
  const found = await jsm.consumers.list("JSCONS").next();
  assert.deepEqual(found.map((info) => info.name).sort(), ["a", "b"]);
  await jsm.consumers.update("JSCONS", "a", { max_ack_pending: 7 });
  assert.equal((await jsm.consumers.info("JSCONS", "a")).config.max_ack_pending, 7);
  assert.ok(await jsm.consumers.delete("JSCONS", "a"));
  await assert.rejects(jsm.consumers.info("JSCONS", "a"), (error) => error.api_error.err_code === 10014);
});

test("key_value", async (nc) => {
  const kv = await nc.jetstream().views.kv("jskv", { history: 5 });
  assert.equal(await kv.put("a", sc.encode("1")), 1);
  assert.equal((await kv.get("a")).string(), "1");
  await kv.update("a", sc.encode("2"), 1);
  await assert.rejects(kv.update("a", sc.encode("3"), 1));
  await kv.create("b", sc.encode("x"));
  await assert.rejects(kv.create("b", sc.encode("y")));
  const keys = await take(await kv.keys(), 2);
  assert.deepEqual(keys.sort(), ["a", "b"]);
  const history = await take(await kv.history({ key: "a" }), 2);
  assert.deepEqual(history.map((entry) => entry.string()), ["1", "2"]);
  await kv.delete("b");
  assert.equal((await kv.get("b")).operation, "DEL");
  await kv.purge("a");
  assert.equal((await kv.status()).values, 3);
});

test("key_value_watch", async (nc) => {
  const kv = await nc.jetstream().views.kv("jswatch");
  await kv.put("x.1", sc.encode("old"));
  const watch = await kv.watch();
  await kv.put("x.2", sc.encode("new"));
  const seen = await take(watch, 2);
  assert.deepEqual(seen.map((entry) => [entry.key, entry.string()]), [["x.1", "old"], ["x.2", "new"]]);
});

test("object_store", async (nc) => {
  const store = await nc.jetstream().views.os("jsobj");
  const content = Uint8Array.from({ length: 700000 }, (_, n) => (n * 7) % 251);
  const info = await store.putBlob({ name: "big" }, content);
  assert.equal(info.size, content.length);
  assert.deepEqual(Buffer.from(await store.getBlob("big")), Buffer.from(content));
  await store.putBlob({ name: "small" }, sc.encode("s"));
  assert.deepEqual((await store.list()).map((entry) => entry.name).sort(), ["big", "small"]);
  assert.ok((await store.delete("small")).success);
});

test("account_information", async (nc) => {
  const jsm = await nc.jetstreamManager();
  const info = await jsm.getAccountInfo();
  assert.equal(info.limits.max_streams, -1);
});

let [passed, failed] = [0, 0];
for (const { name, run } of tests) {
  const nc = await connect({ servers: url });
  const late = sleep(30000, "late", { ref: false });
  try {
    const done = await Promise.race([run(nc).then(() => "done"), late]);
    assert.equal(done, "done", "not done within 30 s");
    console.log(`test ${name} ... ok`);
    passed++;
  } catch (error) {
    console.log(`test ${name} ... FAILED: ${String(error.stack ?? error).split("\n").slice(0, 3).join(" | ")}`);
    failed++;
  }
  if (!nc.isClosed()) await nc.close();
}
console.log(`test result: ${failed ? "FAILED" : "ok"}. ${passed} passed; ${failed} failed; 0 ignored; 0 measured; 0 filtered out`);
process.exit(failed ? 1 : 0);
