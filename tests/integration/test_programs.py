"""Programs that fork, change their directory, have no standard descriptors, end without closing."""

import gc
import os
import signal
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from live_trees import until
from patience import TIMEOUT_MS, TIMEOUT_S
from planaria import (
    Broker,
    Client,
    Closed,
    DeliveryFailed,
    InvalidSubscription,
    Message,
    ProtocolError,
    ShareConsumer,
    SubscriptionFailed,
    TopicPartition,
)
from planaria.transport.client.errors import Forked

pytestmark = pytest.mark.processes


def ends(action: Callable[[], object]) -> Callable[[], BaseException | None]:
    """Run the action in a thread; return a function that waits for its end and returns its exception."""
    raised: list[BaseException] = []

    def run() -> None:
        try:
            action()
        except BaseException as error:  # noqa: BLE001 - passed to the test
            raised.append(error)

    def ended() -> BaseException | None:
        thread.join(TIMEOUT_S)
        assert not thread.is_alive(), "it waits on"
        return raised[0] if raised else None

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    return ended


def in_fork(action: Callable[[], object]) -> str:
    """Return the exception of the action in a forked child, or "nothing"; fails after a timeout."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            action()
            os.write(writer, b"nothing")
        except BaseException as error:  # noqa: BLE001 - passed to the parent
            os.write(writer, type(error).__name__.encode())
        finally:
            os._exit(0)
    os.close(writer)
    killer = threading.Timer(TIMEOUT_S, os.kill, (pid, signal.SIGKILL))
    killer.start()
    said = os.read(reader, 100).decode()
    killer.cancel()
    os.waitpid(pid, 0)
    os.close(reader)
    return said


def test_fork_every_object_of_the_parent_refuses_at_once_and_harms_nothing(broker: Broker) -> None:
    broker.create_topic("T", 1)
    client = Client(broker.endpoint)
    producer, consumer = client.producer(), client.consumer("g", ["T"])
    transactional = client.producer(transactional_id="t")
    share = client.share_consumer("s", ["T"])
    open_delivery = producer.publish("T", b"before")
    consumer.poll(0.1)
    refused: list[Callable[[], Any]] = [
        client.list_topics,
        lambda: client.publish("T", b"x"),
        lambda: producer.publish("T", b"x"),
        lambda: producer.publish("T", b"x", partition=0),
        lambda: consumer.poll(5),
        consumer.commit,
        lambda: share.poll(5),
        transactional.transaction,
        transactional.claim,
        lambda: client.consumer("h", ["T"]),
        lambda: broker.publish("T", None, b"x"),
        lambda: broker.supervisor_pid,
        broker.status,
    ]
    for action in refused:
        assert in_fork(action) == Forked.__name__
    assert in_fork(lambda: open_delivery.result(5)) in ("nothing", "DeliveryUncertain")
    for action in (producer.flush, producer.close, consumer.close, share.close, client.close, broker.close):
        assert in_fork(action) == "nothing"
    assert open_delivery.result(TIMEOUT_S).offset == 0
    assert producer.publish("T", b"after").result(TIMEOUT_S).offset == 1
    client.close()


def test_fork_and_close_reach_no_file_that_has_the_number_of_a_descriptor_of_a_closed_client(
    broker: Broker,
) -> None:
    client = Client(broker.endpoint)
    client.list_topics()
    client.close()
    pipes = [os.pipe() for _ in range(20)]  # the lowest free numbers, those of the client among them
    client.close()
    client._network.close()
    for reader, writer in pipes:
        os.set_blocking(reader, False)
        with pytest.raises(BlockingIOError):
            os.read(reader, 1)
        assert in_fork(lambda each=writer: os.write(each, b"x")) == "nothing"  # type: ignore[misc]
        assert os.read(reader, 10) == b"x"
        os.close(reader)
        os.close(writer)


def test_fork_every_public_name_of_the_parents_objects_refuses_or_changes_nothing(own_broker: Broker) -> None:
    own_broker.create_topic("T", 1)
    own_broker.publish("T", None, b"x")
    client = Client(own_broker.endpoint)
    transactional = client.producer(transactional_id="t")
    share = client.share_consumer("s", ["T"])
    consumer = client.consumer("g", ["T"])
    own_broker.subscribe("named", "T", "one")
    own_broker.consume("named", "one")
    tp = TopicPartition("T", 0)
    shared: dict[str, tuple[Any, ...]] = {
        "alter_topic": ("T", 2), "cancel_scheduled": ("x",), "configure_share_group": ("s",), "consumer": ("g", "T"),
        "create_topic": ("U",), "delete_group": ("g",), "delete_records": ("T", 0, 1), "delete_topic": ("T",),
        "describe_group": ("g",), "describe_topic": ("T",), "group_lag": ("g",),
        "group_offsets": ("g",), "kill": ("gateway/0",), "list_offsets": ("T", 0), "pause_group": ("g",), "read": ("T",),
        "remove_quota": ("c",), "reset_offsets": ("g", {tp: 0}), "resume_group": ("g",), "revive": ("gateway/0",),
        "set_quota": ("c",), "share_consumer": ("s", "T"), "table": ("T",),
        "create_mirror": ("m", "T"), "pause_mirror": ("m",), "resume_mirror": ("m",),
        "throttle_mirror": ("m", 1), "promote_mirror": ("m",), "delete_mirror": ("m",),
    }  # fmt: skip
    keywords = {"create_mirror": {"source": "tcp://127.0.0.1:9"}}
    objects: dict[object, dict[str, tuple[Any, ...]]] = {
        client: shared | {"publish": ("T", b"x"), "wait_for_broker": (5,)},
        own_broker: shared
        | {
            "consume": ("named", "one"), "get_offset": ("named", "one"), "publish": ("T", None, b"x"),
            "subscribe": ("g", "T", "two"),
        },
        client.producer(): {"publish": ("T", b"x")},
        transactional: {},
        transactional.transaction(): {"commit_offsets": (consumer, {tp: 1}), "publish": ("T", b"x")},
        consumer: {
            "beginning_offsets": ([tp],), "commit": ({tp: 1},), "committed": ([tp],), "committed_metadata": ([tp],),
            "end_offsets": ([tp],), "offsets_for_times": ({tp: 1},), "pause": (tp,), "position": ("T", 0),
            "resume": (tp,), "seek": ("T", 0, 0), "seek_to_time": (0, [tp]),
        },
        share: {"acknowledge": ([],)},
    }  # fmt: skip
    harmless = {"abort", "close", "flush", "stop", "is_stopped", "client", "endpoint", "transactional_id"}
    said: dict[tuple[str, str], str] = {}
    for item, arguments in objects.items():
        for name in dir(item):
            if not name.startswith("_") and name not in harmless:
                given = arguments.get(name, ())

                def use(item: object = item, name: str = name, given: Any = given) -> None:
                    found = getattr(item, name)
                    if callable(found):
                        found(*given, **keywords.get(name, {}))

                said[type(item).__name__, name] = in_fork(use)
    always_refused = said.pop(("TransactionalProducer", "publish"))
    assert always_refused == "PlanariaError"
    assert {use: error for use, error in said.items() if error != Forked.__name__} == {}
    assert len(said) > 60
    client.close()


def test_fork_a_child_makes_a_client_of_its_own(broker: Broker) -> None:
    broker.create_topic("T", 1)
    broker.publish("T", None, b"parent")
    endpoint = broker.endpoint

    def publish() -> None:
        with Client(endpoint) as client:
            client.publish("T", b"child")

    assert in_fork(publish) == "nothing"
    assert broker.client.list_offsets("T", 0).offset == 2


def test_fork_a_child_does_not_keep_the_broker_alive(data_dir: Path) -> None:
    program = (
        "import os, sys, time\n"
        "from planaria import Broker\n"
        "broker = Broker(sys.argv[1])\n"
        "if os.fork() == 0:\n"
        "    os.close(1); sys.stdin.read(); os._exit(0)\n"
        "print(broker.supervisor_pid, flush=True)\n"
        "os.kill(os.getpid(), 9)\n"
    )
    command = [sys.executable, "-c", program, str(data_dir)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        pid = int(process.stdout.readline())
        until(lambda: not Path(f"/proc/{pid}").exists(), "the supervisor ends with its program")


def test_chdir_a_relative_data_directory_stays_where_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "first").mkdir()
    (tmp_path / "second").mkdir()
    monkeypatch.chdir(tmp_path / "first")
    with Broker("data") as broker:
        broker.create_topic("T", 1)
        broker.publish("T", None, b"0")
        monkeypatch.chdir(tmp_path / "second")
        old = broker.supervisor_pid
        os.kill(old, signal.SIGKILL)
        until(lambda: broker.supervisor_pid != old, "another supervisor")
        assert broker.publish("T", None, b"1").offset == 1
    assert os.listdir(tmp_path / "second") == []


@pytest.mark.parametrize("closed", ["<&-", ">&- 2>&-", "<&- >&- 2>&-"])
def test_descriptors_a_daemon_without_standard_ones_has_a_broker(data_dir: Path, closed: str) -> None:
    program = (
        "import sys\n"
        "from planaria import Broker\n"
        "with Broker(sys.argv[1]) as broker:\n"
        "    broker.create_topic('T', 1)\n"
        "    sys.exit(40 + broker.publish('T', None, b'x').offset)\n"
    )
    command = ["sh", "-c", f'exec "$@" {closed}', "sh", sys.executable, "-c", program, str(data_dir)]
    assert subprocess.run(command, timeout=TIMEOUT_S, check=False).returncode == 40


def test_signal_what_a_handler_starts_can_be_interrupted(broker: Broker, tmp_path: Path) -> None:
    seen = tmp_path / "seen"

    def start(_: Message) -> None:
        line = subprocess.run(["cat", "/proc/self/status"], capture_output=True, text=True, check=True)
        seen.write_text(next(row for row in line.stdout.splitlines() if row.startswith("SigIgn")))

    broker.create_topic("T", 1)
    broker.publish("T", None, b"x")
    broker.subscribe("g", "T", handler=start)
    until(lambda: seen.exists() and seen.read_text(), "the handler has run")
    ignored = int(seen.read_text().split()[1], 16)
    assert not ignored & 1 << (signal.SIGINT - 1)


@pytest.mark.parametrize("what", ["consumer", "client"])
@pytest.mark.parametrize(
    "wait", [lambda consumer: consumer.poll(None), lambda consumer: next(iter(consumer))]
)
def test_thread_close_ends_a_wait_for_jobs(
    broker: Broker, what: str, wait: Callable[[ShareConsumer], object]
) -> None:
    broker.create_topic("T", 1)
    client = Client(broker.endpoint)
    consumer = client.share_consumer("g", "T")
    ended = ends(lambda: wait(consumer))
    until(lambda: consumer._machine._requests.has_acquired, "it polls")
    (consumer if what == "consumer" else client).close()
    assert isinstance(ended(), Closed)
    client.close()


def test_thread_close_ends_a_wait_for_a_transactional_id() -> None:
    client = Client("tcp://127.0.0.1:1")
    producer = client.producer(transactional_id="x")
    ended = ends(producer.claim)
    until(producer._lock.locked, "it waits for the broker")
    client.close()
    assert isinstance(ended(), Closed)
    for call in (producer.claim, producer.transaction):
        with pytest.raises(Closed):
            call()


def test_close_of_a_share_consumer_does_not_wait_for_a_broker_that_is_away() -> None:
    with Client("tcp://127.0.0.1:1", request_timeout_ms=TIMEOUT_MS) as client:
        consumer = client.share_consumer("g", "T")
        assert consumer.poll(0.1) == []
        begun = time.monotonic()
        consumer.close()
        assert time.monotonic() - begun < TIMEOUT_S / 2


@pytest.mark.parametrize("is_client_closed", [False, True])
@pytest.mark.parametrize(
    ("make", "wait"),
    [
        (lambda client: client.producer(), lambda item: item.publish("T", b"x")),
        (lambda client: client.producer(), lambda item: item.publish("T", b"x", key=b"k")),
        (lambda client: client.producer(transactional_id="t"), lambda item: item.claim()),
        (lambda client: client.consumer("g", "T"), lambda item: item.committed()),
        (lambda client: client.consumer("g", "T"), lambda item: item.end_offsets([("T", 0)])),
        (
            lambda client: client.consumer("g", partitions=[("T", 0)]),
            lambda item: item.commit({("T", 0): 1}),
        ),
    ],
)
def test_thread_close_ends_a_call_that_waits_for_the_broker(
    endpoint: str, make: Callable[[Client], Any], wait: Callable[[Any], object], is_client_closed: bool
) -> None:
    client = Client(endpoint)
    item = make(client)
    ended = ends(lambda: wait(item))
    until(lambda: len(client._network._waiters) == 1, "it waits")
    closing = ends((client if is_client_closed else item).close)
    assert isinstance(ended(), Closed)
    assert closing() is None
    with pytest.raises(Closed):
        wait(item)
    client.close()


@pytest.mark.parametrize("what", ["consumer", "client"])
@pytest.mark.parametrize("group", ["g", None])
def test_thread_close_ends_a_poll_that_waits(broker: Broker, group: str | None, what: str) -> None:
    broker.create_topic("T", 1)
    client = Client(broker.endpoint)
    consumer = client.consumer(group, ["T"])
    ended = ends(lambda: consumer.poll(None))
    until(lambda: consumer._bridge.is_polling, "it polls")
    (consumer if what == "consumer" else client).close()
    assert isinstance(ended(), Closed)
    client.close()


def test_exit_an_unclosed_producer_is_flushed_and_told_of(broker: Broker) -> None:
    broker.create_topic("T", 1)
    program = (
        "import sys\n"
        "from planaria import Client\n"
        "producer = Client(sys.argv[1]).producer(linger_ms=60_000)\n"
        "for number in range(2000): producer.publish('T', {'n': number})\n"
    )
    command = [sys.executable, "-c", program, broker.endpoint]
    done = subprocess.run(command, timeout=TIMEOUT_S, check=True, capture_output=True, text=True)
    assert broker.client.list_offsets("T", 0).offset == 2000
    assert "not closed" in done.stderr


def test_exit_large_batches_of_an_unclosed_producer_are_flushed(broker: Broker) -> None:
    """Large frames are handed to ZeroMQ without a copy, by a thread of pyzmq that ends at the exit, too."""
    broker.create_topic("T", 1)
    program = (
        "import sys\n"
        "from planaria import Client\n"
        "producer = Client(sys.argv[1]).producer(batch_bytes=100_000)\n"
        "producer.publish('T', bytes(90_000)).result()\n"
        "for number in range(300): producer.publish('T', bytes(50_000))\n"
    )
    command = [sys.executable, "-c", program, broker.endpoint]
    done = subprocess.run(command, timeout=TIMEOUT_S, check=True, capture_output=True, text=True)
    assert broker.client.list_offsets("T", 0).offset == 301
    assert "Traceback" not in done.stderr


def test_exit_a_finalizer_that_needs_the_broker_is_refused_at_once(broker: Broker) -> None:
    """Finalizers of the end run after the network thread, which could not be waited for."""
    broker.create_topic("T", 1)
    program = (
        "import sys\n"
        "from planaria import Client\n"
        "class Last:\n"
        "    def __init__(self):\n"
        "        self.client = client = Client(sys.argv[1])\n"
        "        self.producer = client.producer()\n"
        "        self.delivery = self.producer.publish('T', 1)\n"
        "        self.consumer = client.consumer('g', ['T'], auto_offset_reset='earliest')\n"
        "        self.jobs = client.share_consumer('s', 'T')\n"
        "        assert self.consumer.poll(60) and self.jobs.poll(60)\n"
        "    def __del__(self):\n"
        "        client, producer = self.client, self.producer\n"
        "        for call in (lambda: client.publish('T', 2), lambda: client.publish('U', 2), client.list_topics,\n"
        "                     lambda: producer.publish('T', 3).result(), self.consumer.poll, self.jobs.poll):\n"
        "            try: call()\n"
        "            except Exception as error: print(type(error).__name__)\n"
        "        for item in (self.jobs, self.consumer, producer, client): item.close()\n"
        "        print('end')\n"
        "last = Last()\n"
    )
    command = [sys.executable, "-c", program, broker.endpoint]
    done = subprocess.run(command, timeout=TIMEOUT_S, check=True, capture_output=True, text=True)
    assert done.stdout.split() == ["Closed"] * 6 + ["end"], done
    assert done.stderr == ""


def test_leak_a_closed_consumer_is_not_kept(broker: Broker) -> None:
    broker.create_topic("T", 1)
    with Client(broker.endpoint) as client:
        kept = []
        for kind in ("consumer", "producer", "share", "transactional"):
            item: Any
            if kind == "consumer":
                item = client.consumer("g", ["T"])
                item.poll(0.1)
            elif kind == "share":
                item = client.share_consumer("s", ["T"])
                item.poll(0.1)
            elif kind == "producer":
                item = client.producer()
                item.publish("T", b"x").result(TIMEOUT_S)
            else:
                item = client.producer(transactional_id="t")
            item.close()
            kept.append((kind, weakref.ref(item)))
            del item

        def left() -> list[str]:
            gc.collect()
            return [kind for kind, each in kept if each() is not None]

        until(lambda: not left(), "nothing is kept")


def test_timeout_publishing_without_a_broker_takes_no_longer_than_told(endpoint: str) -> None:
    with Client(endpoint) as client:
        producer = client.producer(max_block_ms=300)
        begun = time.monotonic()
        with pytest.raises(DeliveryFailed, match="never sent"):
            producer.publish("T", b"x")
        with pytest.raises(DeliveryFailed, match="never sent"):
            client.publish("T", b"x", timeout=0.3)
        assert time.monotonic() - begun < 20, "the default is 60 for the two"


def test_signal_a_stop_while_it_starts_is_a_stop_in_order(data_dir: Path, endpoint: str) -> None:
    command = [sys.executable, "-m", "planaria", "serve", "--data", str(data_dir), "--endpoint", endpoint]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:

        def is_prepared() -> bool:
            status = Path(f"/proc/{process.pid}/status").read_text()
            row = next(line for line in status.splitlines() if line.startswith("SigBlk"))
            return bool(int(row.split()[1], 16) & 1 << (signal.SIGTERM - 1))

        until(is_prepared, "it is prepared for a stop")
        process.terminate()
        assert process.wait(TIMEOUT_S) == 0


def test_declared_a_topic_may_have_grown_and_what_differs_is_told(
    broker: Broker, caplog: pytest.LogCaptureFixture
) -> None:
    broker.create_topic("T", 3, retention_ms=1_000_000)
    broker.client.alter_topic("T", partitions=5)
    assert len(broker.create_topic("T", 3, retention_ms=2_000_000).partitions) == 5
    assert "retention_ms = 1000000, not 2000000" in caplog.text
    with pytest.raises(ProtocolError, match="TOPIC_EXISTS"):
        broker.create_topic("T", 6)


def test_handlers_that_no_process_could_run_are_refused_at_once(own_broker: Broker) -> None:
    own_broker.create_topic("T", 1)

    async def handle(_: Message) -> AsyncIterator[None]:
        yield

    with pytest.raises(InvalidSubscription, match="generator function"):
        own_broker.subscribe("g", "T", handler=handle)
    for path in ("nowhere_at_all:handle", "nowhere.at.all:handle"):
        with pytest.raises(InvalidSubscription, match="no module"):
            own_broker.subscribe("g", "T", handler=path)
    with pytest.raises(SubscriptionFailed, match=r"cannot start: HandlerUnusable.*nothing_of_this_name"):
        own_broker.subscribe("g", "T", handler="os:nothing_of_this_name")
    log = Path(own_broker.status().data_directory, "logs/broker.log").read_text()
    assert log.count("child quarantined") == log.count("actor failed") == 1, "it is not tried again and again"
    assert "in imported" in log
