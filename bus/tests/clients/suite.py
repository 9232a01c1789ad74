"""nats-py, unmodified, against the server at the URL given: one line a test, and a line of counts that libtest would print."""

import asyncio
import sys

sys.path.insert(0, sys.argv[2])

import nats  # noqa: E402
from nats.js.api import AckPolicy, ConsumerConfig, DeliverPolicy, KeyValueConfig, StreamConfig  # noqa: E402
from nats.js.errors import APIError, KeyNotFoundError, KeyWrongLastSequenceError, NoKeysError, NotFoundError  # noqa: E402
from nats.errors import NoRespondersError, TimeoutError  # noqa: E402

URL = sys.argv[1]
TESTS = []


def test(function):
    TESTS.append(function)
    return function


def same(left, right):
    if left != right:
        raise AssertionError(f"{left!r} is not {right!r}")


async def filled(js, name, count):
    await js.add_stream(name=name, subjects=[f"{name.lower()}.>"])
    for n in range(1, count + 1):
        await js.publish(f"{name.lower()}.{n % 3}", str(n).encode())


@test
async def core_publish_subscribe_headers(nc, js):
    sub = await nc.subscribe("py.core.*")
    await nc.flush()
    await nc.publish("py.core.a", b"hello", headers={"A": "b"})
    message = await sub.next_msg(timeout=5)
    same((message.subject, message.data, message.headers["A"]), ("py.core.a", b"hello", "b"))


@test
async def core_request_reply_and_no_responders(nc, js):
    async def answer(message):
        await message.respond(message.data.upper())

    await nc.subscribe("py.ask", cb=answer)
    same((await nc.request("py.ask", b"x", timeout=5)).data, b"X")
    try:
        await nc.request("py.nobody", b"x", timeout=5)
        raise AssertionError("somebody answered")
    except NoRespondersError:
        pass


@test
async def core_queue_group_and_unsubscribe(nc, js):
    seen = [0, 0]

    def count(which):
        async def on(message):
            seen[which] += 1

        return on

    await nc.subscribe("py.queue", queue="g", cb=count(0))
    await nc.subscribe("py.queue", queue="g", cb=count(1))
    sub = await nc.subscribe("py.some")
    await sub.unsubscribe(limit=2)
    for _ in range(60):
        await nc.publish("py.queue", b"")
    for _ in range(5):
        await nc.publish("py.some", b"")
    await nc.flush()
    await asyncio.sleep(0.3)
    same(sum(seen), 60)
    if 0 in seen:
        raise AssertionError(f"one got everything: {seen}")
    same(sub.pending_msgs, 2)


@test
async def streams_life(nc, js):
    await filled(js, "PYLIFE", 10)
    info = await js.stream_info("PYLIFE", subjects_filter=">")
    same((info.state.messages, info.state.first_seq, info.state.last_seq), (10, 1, 10))
    same(info.state.subjects, {"pylife.0": 3, "pylife.1": 4, "pylife.2": 3})
    await js.update_stream(StreamConfig(name="PYLIFE", subjects=["pylife.>"], max_msgs=4))
    same((await js.stream_info("PYLIFE")).state.messages, 4)
    same(await js.find_stream_name_by_subject("pylife.x"), "PYLIFE")
    await js.purge_stream("PYLIFE", subject="pylife.1")
    same((await js.stream_info("PYLIFE")).state.messages, 2)
    await js.delete_stream("PYLIFE")
    try:
        await js.stream_info("PYLIFE")
        raise AssertionError("still there")
    except NotFoundError as error:
        same(error.err_code, 10059)


@test
async def publish_acknowledgements_and_duplicates(nc, js):
    await js.add_stream(name="PYPUB", subjects=["pypub"])
    first = await js.publish("pypub", b"x", headers={"Nats-Msg-Id": "a"})
    again = await js.publish("pypub", b"x", headers={"Nats-Msg-Id": "a"})
    same((first.seq, first.duplicate, again.seq, again.duplicate), (1, None, 1, True))
    try:
        await js.publish("pypub", b"x", headers={"Nats-Expected-Last-Sequence": "7"})
        raise AssertionError("accepted")
    except APIError as error:
        same(error.err_code, 10071)


@test
async def messages_by_sequence_and_subject(nc, js):
    await filled(js, "PYGET", 6)
    message = await js.get_msg("PYGET", seq=2)
    same((message.subject, message.data), ("pyget.2", b"2"))
    same((await js.get_last_msg("PYGET", "pyget.0")).seq, 6)
    await js.delete_msg("PYGET", 2)
    try:
        await js.get_msg("PYGET", seq=2)
        raise AssertionError("still there")
    except NotFoundError:
        pass


@test
async def pull_fetch_ack_nak_term(nc, js):
    await filled(js, "PYPULL", 6)
    sub = await js.pull_subscribe("pypull.>", durable="d")
    messages = await sub.fetch(4, timeout=5)
    same([m.data for m in messages], [b"1", b"2", b"3", b"4"])
    same((messages[0].metadata.num_pending, messages[0].metadata.sequence.stream), (5, 1))
    await messages[0].ack_sync()
    await messages[1].nak()
    await messages[2].term()
    await messages[3].in_progress()
    await nc.flush()
    again = await sub.fetch(3, timeout=5)
    same([m.data for m in again], [b"2", b"5", b"6"])
    same(again[0].metadata.num_delivered, 2)
    info = await sub.consumer_info()
    same((info.num_ack_pending, info.num_pending), (4, 0))
    try:
        await sub.fetch(1, timeout=0.5)
        raise AssertionError("something came")
    except TimeoutError:
        pass


@test
async def push_subscribe_with_callback_and_flow_control(nc, js):
    await filled(js, "PYPUSH", 50)
    seen = []

    async def on(message):
        seen.append(int(message.data))
        await message.ack()

    await js.subscribe("pypush.>", cb=on, durable="p", manual_ack=True, flow_control=True, idle_heartbeat=0.5)
    for _ in range(50):
        if len(seen) == 50:
            break
        await asyncio.sleep(0.1)
    same(seen, list(range(1, 51)))


@test
async def ordered_consumer(nc, js):
    await filled(js, "PYORD", 40)
    sub = await js.subscribe("pyord.>", ordered_consumer=True)
    for n in range(1, 41):
        same((await sub.next_msg(timeout=5)).data, str(n).encode())


@test
async def consumers_listed_and_deleted(nc, js):
    await filled(js, "PYCONS", 3)
    for name in ["a", "b"]:
        config = ConsumerConfig(durable_name=name, ack_policy=AckPolicy.EXPLICIT, deliver_policy=DeliverPolicy.NEW)
        await js.add_consumer("PYCONS", config)
    same(sorted(info.name for info in await js.consumers_info("PYCONS")), ["a", "b"])
    same((await js.consumer_info("PYCONS", "a")).num_pending, 0)
    await js.delete_consumer("PYCONS", "a")
    try:
        await js.consumer_info("PYCONS", "a")
        raise AssertionError("still there")
    except NotFoundError as error:
        same(error.err_code, 10014)


async def there(asked):
    """What a bucket holds. nats.py asks for its consumer's state once: an answer that comes before the first delivery counts as an empty
    bucket (seen with nats-server on a busy machine), and as NoKeysError."""
    for _ in range(20):
        try:
            return await asked()
        except NoKeysError:
            await asyncio.sleep(0.1)
    return await asked()


@test
async def key_value(nc, js):
    kv = await js.create_key_value(config=KeyValueConfig(bucket="pykv", history=5))
    same(await kv.put("a", b"1"), 1)
    same((await kv.get("a")).value, b"1")
    await kv.update("a", b"2", last=1)
    try:
        await kv.update("a", b"3", last=1)
        raise AssertionError("an old revision was updated")
    except KeyWrongLastSequenceError:
        pass
    await kv.create("b", b"x")
    same(sorted(await there(kv.keys)), ["a", "b"])
    same([entry.value for entry in await there(lambda: kv.history("a"))], [b"1", b"2"])
    await kv.delete("b")
    try:
        await kv.get("b")
        raise AssertionError("still there")
    except KeyNotFoundError:
        pass
    same((await kv.status()).values, 4)


@test
async def key_value_watch(nc, js):
    kv = await js.create_key_value(bucket="pywatch")
    await kv.put("x.1", b"old")
    watcher = await kv.watchall()
    same((await watcher.updates(timeout=5)).value, b"old")
    same(await watcher.updates(timeout=5), None)
    await kv.put("x.2", b"new")
    same((await watcher.updates(timeout=5)).key, "x.2")
    await watcher.stop()


@test
async def object_store(nc, js):
    store = await js.create_object_store(bucket="pyobj")
    content = bytes(n * 7 % 251 for n in range(700_000))
    info = await store.put("big", content)
    same(info.size, len(content))
    if (await store.get("big")).data != content:
        raise AssertionError("another content")
    await store.put("small", b"s")
    same(sorted(entry.name for entry in await store.list()), ["big", "small"])
    await store.delete("small")
    same([entry.name for entry in await store.list() if not entry.deleted], ["big"])


@test
async def account_information(nc, js):
    info = await js.account_info()
    same((info.limits.max_streams, info.api.errors >= 0), (-1, True))


async def main():
    passed = failed = 0
    for function in TESTS:
        nc = await nats.connect(URL)
        try:
            await asyncio.wait_for(function(nc, nc.jetstream()), 30)
            print(f"test {function.__name__} ... ok")
            passed += 1
        except BaseException as error:  # noqa: BLE001
            print(f"test {function.__name__} ... FAILED: {type(error).__name__}: {error}")
            failed += 1
        await nc.close()
    verdict = "FAILED" if failed else "ok"
    print(f"test result: {verdict}. {passed} passed; {failed} failed; 0 ignored; 0 measured; 0 filtered out")
    sys.exit(1 if failed else 0)


asyncio.run(main())
