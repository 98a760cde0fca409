"""Segment files damaged or deleted under a whole broker: every kind of reader gets the lost offsets, skips them
as docs/operations.md says, and reads all intact records.
"""

import base64
import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import zmq

from command_line import planaria
from live_trees import actor, read_topic, until
from patience import TIMEOUT_S
from planaria import Broker, CorruptData, Message
from planaria.supervisor.broker import LOG_FILE
from planaria.transport.batch import split

pytestmark = pytest.mark.processes

PAGE_BYTES = 4096
RECORDS = 240
PRODUCERS = 3
SEGMENT_BYTES = 16 * 1024
FOLDER = Path("topics/ORDERS/0")

Loss = tuple[int, int]
"""First lost offset, and the next intact one."""


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[int, bytes]]:
    """A data directory with records of several producers, in several segments of several batches, and those records."""
    folder = tmp_path_factory.mktemp("intact") / "data"
    with Broker(folder) as broker:
        broker.create_topic("ORDERS", 1, segment_bytes=SEGMENT_BYTES)
        producers = [broker.producer(linger_ms=0) for _ in range(PRODUCERS)]
        draw = random.Random(7)
        for number in range(RECORDS):
            published = producers[number % PRODUCERS].publish("ORDERS", b"%d:" % number + draw.randbytes(300))
            published.result(TIMEOUT_S)
        for producer in producers:
            producer.close()
        values = {message.offset: message.value or b"" for message in read_topic(broker.client, "ORDERS")}
    return folder, values


@pytest.fixture
def values(written: tuple[Path, dict[int, bytes]], data_dir: Path) -> dict[int, bytes]:
    """The records by offset; a copy of their files is in `data_dir`, of a broker that has stopped."""
    folder, values = written
    shutil.copytree(folder, data_dir)
    return values


def segments(data_dir: Path) -> list[Path]:
    found = sorted((data_dir / FOLDER).glob("*.log"))
    assert len(found) >= 5
    return found


def base(path: Path) -> int:
    return int(path.stem)


def overwrite(path: Path, position: int, rot: bytes) -> list[Loss]:
    """Overwrite a stretch and return the loss: every batch that has a byte in it."""
    whole = path.read_bytes()
    data = bytearray(whole)
    data[position : position + len(rot)] = rot
    path.write_bytes(data)
    at, lost = 0, []
    for header, _ in split(whole):
        if at < position + len(rot) and position < at + header.size_bytes:
            lost.append(header)
        at += header.size_bytes
    return [(lost[0].base_offset, lost[-1].next_offset)]


def zero_a_page(data_dir: Path) -> list[Loss]:
    return overwrite(segments(data_dir)[1], PAGE_BYTES, bytes(PAGE_BYTES))


def write_random_bytes(data_dir: Path) -> list[Loss]:
    return overwrite(segments(data_dir)[2], 1_000, random.Random(1).randbytes(9_000))


def damage_two_places(data_dir: Path) -> list[Loss]:
    return zero_a_page(data_dir) + write_random_bytes(data_dir)


def delete(which: int) -> Callable[[Path], list[Loss]]:
    def damage(data_dir: Path) -> list[Loss]:
        paths = segments(data_dir)
        paths[which].unlink()
        bases = [*map(base, paths), RECORDS]
        return [(bases[which % len(paths)], bases[which % len(paths) + 1])]

    return damage


def delete_newest_and_checkpoint(data_dir: Path) -> list[Loss]:
    (data_dir / FOLDER / "checkpoint").unlink()
    return delete(-1)(data_dir)


DAMAGES = {
    "a page of zeros": zero_a_page,
    "random bytes": write_random_bytes,
    "two places": damage_two_places,
    "first segment": delete(0),
    "middle segment": delete(2),
    "newest segment": delete(-1),
    "newest segment and checkpoint": delete_newest_and_checkpoint,
}
MISSING = [name for name in DAMAGES if "segment" in name]


def damage_alarms(broker: Broker) -> list[str]:
    return [
        alarm for alarm in actor(broker.client, "partition/ORDERS/0").alarms if "records are lost" in alarm
    ]


def intact(values: dict[int, bytes], losses: list[Loss]) -> dict[int, bytes]:
    return {
        offset: value
        for offset, value in values.items()
        if not any(first <= offset < following for first, following in losses)
    }


@pytest.mark.parametrize("name", DAMAGES)
def test_a_consumer_is_told_what_is_lost_and_reads_the_rest(
    data_dir: Path, values: dict[int, bytes], name: str
) -> None:
    losses = DAMAGES[name](data_dir)
    with Broker(data_dir) as broker:
        if name in MISSING:
            [alarm] = until(lambda: damage_alarms(broker), "the alarm")
            [(first, following)] = losses
            assert f"offsets {first} to {following - 1}" in alarm
        seen: dict[int, bytes] = {}
        met: list[Loss] = []
        with broker.client.consumer(partitions=[("ORDERS", 0)], auto_offset_reset="earliest") as consumer:
            while (position := consumer.position("ORDERS", 0, 20)) < RECORDS:
                try:
                    seen.update(
                        (message.offset, message.value or b"") for message in consumer.poll(TIMEOUT_S)
                    )
                except CorruptData as error:
                    following = error.next_offset or position
                    met.append((position, following))
                    consumer.seek("ORDERS", 0, following)
        assert met == losses
        assert seen == intact(values, losses)
        alarms = until(
            lambda: found if len(found := damage_alarms(broker)) >= len(losses) else None, "the alarms"
        )
        assert len(alarms) == len(losses)
        for (first, following), alarm in zip(losses, alarms, strict=True):
            assert f"offsets {first} to {following - 1}" in alarm
        assert broker.publish("ORDERS", None, b"new").offset == RECORDS
    if name in MISSING:
        assert f"offsets {losses[0][0]} to {losses[0][1] - 1} are lost" in (data_dir / LOG_FILE).read_text()


def test_a_group_passes_the_damage_by_a_reset_and_reads_the_rest(
    data_dir: Path, values: dict[int, bytes]
) -> None:
    [(first, following)] = zero_a_page(data_dir)
    with Broker(data_dir) as broker:
        seen: dict[int, bytes] = {}

        def read_until(stop: int) -> None:
            with broker.client.consumer("G", ["ORDERS"], auto_offset_reset="earliest") as consumer:
                while max(seen, default=0) < stop - 1:
                    seen.update(
                        (message.offset, message.value or b"") for message in consumer.poll(TIMEOUT_S)
                    )
                    consumer.commit()

        with pytest.raises(CorruptData) as caught:
            read_until(RECORDS)
        assert (caught.value.offset, caught.value.next_offset) == (first, following)
        connect = ("--connect", broker.endpoint)
        reset = ("--topic", "ORDERS", "--partition", "0", "--to", str(following))
        done = planaria("group", "reset", "G", *reset, *connect)
        assert done.returncode == 0, done.stderr
        read_until(RECORDS)
        assert seen == intact(values, [(first, following)])


@pytest.mark.parametrize("name", ["two places", pytest.param("middle segment", marks=pytest.mark.chaos)])
def test_a_share_consumer_gets_all_that_is_intact(
    data_dir: Path, values: dict[int, bytes], name: str
) -> None:
    losses = DAMAGES[name](data_dir)
    with Broker(data_dir) as broker:
        seen: dict[int, bytes] = {}
        with broker.share_consumer("S", "ORDERS", acknowledge="implicit") as consumer:

            def is_all_read() -> bool:
                seen.update((message.offset, message.value or b"") for message in consumer.poll(0.2))
                return len(seen) >= len(intact(values, losses))

            until(is_all_read, "all that is intact")
        assert seen == intact(values, losses)


def offsets_in(log: Path) -> list[int]:
    return sorted(set(map(int, log.read_text().split()))) if log.exists() else []


def note_offsets(log: Path) -> Callable[[Message], None]:
    def handle(message: Message) -> None:
        with log.open("a") as file:
            file.write(f"{message.offset}\n")

    return handle


def committed(broker: Broker) -> int | None:
    return broker.client.group_offsets("H").get(("ORDERS", 0))  # type: ignore[call-overload, no-any-return]


def hosted_alarms(broker: Broker) -> list[str]:
    return [alarm for alarm in actor(broker.client, "subscriber/H/1").alarms if "damaged" in alarm]


@pytest.mark.parametrize("way", ["reset", "delete_records"])
@pytest.mark.usefixtures("values")
def test_a_hosted_subscriber_stands_before_the_damage_under_an_alarm_and_passes_it(
    data_dir: Path, tmp_path: Path, way: str
) -> None:
    [(first, following)] = DAMAGES["middle segment"](data_dir)
    log = tmp_path / "seen"
    handle = note_offsets(log)
    with Broker(data_dir) as broker:
        subscription = broker.subscribe("H", "ORDERS", handler=handle)
        [alarm] = until(lambda: hosted_alarms(broker), "the alarm")
        told = f"damaged: ORDERS/0 offsets {first} to {following - 1} cannot be read"
        assert alarm.startswith(told)
        until(lambda: committed(broker) == first, "all before the damage is committed")
        assert offsets_in(log) == list(range(first))
        connect = ("--connect", broker.endpoint)
        assert told in planaria("group", "describe", "H", *connect).stdout
        [described] = json.loads(planaria("group", "describe", "H", "--json", *connect).stdout)["alarms"]
        assert described == f"subscriber/H/1: {alarm}"
        assert told in planaria("status", "--check", *connect).stderr
        if way == "reset":
            subscription.stop()
            reset = ("--topic", "ORDERS", "--partition", "0", "--to", str(following))
            done = planaria("group", "reset", "H", *reset, *connect)
            assert done.returncode == 0, done.stderr
            broker.subscribe("H", "ORDERS", handler=handle)
        else:
            broker.client.delete_records("ORDERS", 0, following)
        until(lambda: committed(broker) == RECORDS, "it has passed the damage")
        assert offsets_in(log) == [*range(first), *range(following, RECORDS)]
        until(lambda: not hosted_alarms(broker), "no alarm any more")


def test_a_hosted_subscriber_that_may_skip_damage_goes_on_and_says_what_it_skipped(
    data_dir: Path, values: dict[int, bytes], tmp_path: Path
) -> None:
    losses = DAMAGES["two places"](data_dir)
    log = tmp_path / "seen"
    with Broker(data_dir) as broker:
        broker.subscribe("H", "ORDERS", handler=note_offsets(log), on_damage="skip")
        until(lambda: committed(broker) == RECORDS, "it has passed the damage")
        assert offsets_in(log) == sorted(intact(values, losses))
        alarms = until(lambda: found if len(found := hosted_alarms(broker)) == 2 else None, "both alarms")
        for (first, following), alarm in zip(losses, alarms, strict=True):
            assert alarm.startswith(f"damaged: ORDERS/0 offsets {first} to {following - 1} were skipped")
    assert (data_dir / LOG_FILE).read_text().count("damaged records skipped") == 2


@pytest.mark.parametrize("format", ["ranges", "records"])
@pytest.mark.usefixtures("values")
def test_an_unreadable_range_of_a_work_queue_is_dead_at_once(data_dir: Path, format: str) -> None:
    [(first, following)] = DAMAGES["middle segment"](data_dir)
    with Broker(data_dir) as broker, broker.share_consumer("S", "ORDERS") as consumer:
        if format == "ranges":
            polls = [consumer.poll(TIMEOUT_S, 1_000)]
            while len(polls[-1]) and polls[-1][-1].offset < RECORDS - 1:
                polls.append(consumer.poll(TIMEOUT_S, 1_000))
            assert len(polls) <= 3
            found = [message.offset for poll in polls for message in poll]
        else:
            with zmq.Context() as context, context.socket(zmq.DEALER) as peer:
                peer.linger = 0
                peer.connect(broker.endpoint)
                request = {"op": "acquire", "id": 1, "group": "S", "topics": ["ORDERS"], "member_id": "m"}
                peer.send(json.dumps({**request, "max_records": 1_000, "max_wait_ms": 5_000}).encode())
                assert peer.poll(20_000)
                found = [record["offset"] for record in json.loads(peer.recv())["records"]]
        assert found == [*range(first), *range(following, RECORDS)]
        consumer.flush()
        share = broker.client.describe_group("S").share
        assert share is not None
        assert share.partitions[0].dead == following - first
        [alarm] = until(lambda: actor(broker.client, "coordinator/S").alarms, "the alarm")
        assert f"dead records wait, {following - first} of them, from offset {first}" in alarm


@pytest.mark.parametrize("name", [pytest.param("a page of zeros", marks=pytest.mark.chaos), "middle segment"])
def test_a_fetch_in_json_is_told_where_to_go_on(data_dir: Path, values: dict[int, bytes], name: str) -> None:
    losses = DAMAGES[name](data_dir)
    with Broker(data_dir) as broker, zmq.Context() as context, context.socket(zmq.DEALER) as peer:
        peer.linger = 0
        peer.connect(broker.endpoint)
        seen: dict[int, bytes] = {}
        met: list[Loss] = []
        offset = 0
        while offset < RECORDS:
            request = {"op": "fetch", "id": 1, "topic": "ORDERS", "partition": 0, "offset": offset}
            peer.send(json.dumps(request).encode())
            assert peer.poll(20_000)
            reply = json.loads(peer.recv())
            if (error := reply.get("error")) is not None:
                assert (error["code"], error["retriable"]) == ("CORRUPT_LOG", False)
                met.append((offset, error["next_offset"]))
                offset = error["next_offset"]
                continue
            seen.update((record["offset"], base64.b64decode(record["value"])) for record in reply["records"])
            offset = reply["next_offset"]
        assert met == losses
        assert seen == intact(values, losses)
