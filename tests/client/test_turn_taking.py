"""Waiting threads that run the client's turns: signals, callbacks, forks, closes and deep stacks in the middle of one."""

import os
import signal
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

import pytest

from fake_broker import FakeBroker
from patience import TIMEOUT_S
from planaria.transport.client import turn_taking as shell
from planaria.transport.client.client import Client
from planaria.transport.client.errors import Forked, TimedOut
from planaria.transport.client.shield import Shield, shield
from planaria.transport.protocol.errors import PlanariaError

ROUNDS = 200


class Struck(Exception):
    """Raised by the program's signal handler."""


@pytest.fixture
def leads(client: Client) -> Any:
    """Return the number of turns that waiting threads have run so far."""
    return lambda: client._network._handover._leads


class Strikes:
    """Signals of another thread, whose handler raises in the main thread, once for each time that it is armed."""

    def __init__(self) -> None:
        self.count = 0
        self.is_armed = False
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._strike)
        self._before = signal.signal(signal.SIGUSR1, self._handle)

    def __enter__(self) -> "Strikes":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.is_armed = False
        self._is_over.set()
        self._thread.join()
        signal.signal(signal.SIGUSR1, self._before)

    def _handle(self, *_: object) -> None:
        if self.is_armed:
            self.is_armed = False
            self.count += 1
            raise Struck

    def _strike(self) -> None:
        while not self._is_over.wait(0.0005):
            os.kill(os.getpid(), signal.SIGUSR1)


def values(broker: FakeBroker) -> list[int]:
    return [int(value) for value in broker.partitions["T", 0].values() if value is not None]


def publish(client: Client) -> Any:
    producer = client.producer(linger_ms=0)
    return lambda number: producer.publish("T", b"%d" % number, partition=0)


def test_a_thread_that_waits_for_each_message_runs_the_turns(client: Client, leads: Any) -> None:
    send = publish(client)
    for number in range(ROUNDS):
        send(number).result(10)
    assert leads() > ROUNDS / 2


def test_an_exception_of_a_signal_handler_leaves_nothing_half_done(
    client: Client, broker: FakeBroker, leads: Any
) -> None:
    send = publish(client)
    send(0).result(10)
    sent = [0]
    with Strikes() as strikes:
        while strikes.count < ROUNDS:
            with suppress(Struck):
                strikes.is_armed = True
                delivery = send(sent[-1] + 1)
                sent.append(sent[-1] + 1)
                delivery.result(10)
    assert send(1_000_000).result(10).offset == len(values(broker)) - 1
    assert values(broker) == sorted(values(broker))
    assert set(sent) <= set(values(broker))
    assert leads() > 0
    assert client._network.failure is None


def test_a_signal_handler_runs_once_for_each_signal_after_the_turn(
    client: Client, leads: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And may itself publish and wait: it runs where the thread waits, not inside a turn."""
    send = publish(client)
    for number in range(10):
        send(number).result(10)
    seen: list[int] = []

    def handler(*_: Any) -> None:
        seen.append(send(1_000 + len(seen)).result(10).offset)

    before = signal.signal(signal.SIGUSR1, handler)
    turn = client._network._dispatch.short_turn

    def struck_turn(now: int, is_readable: bool) -> None:
        if (
            threading.current_thread() is threading.main_thread()
            and len(seen) < 3
            and not client._network.is_struck
        ):
            client._network.is_struck = True
            os.kill(os.getpid(), signal.SIGUSR1)
        turn(now, is_readable)

    client._network.is_struck = False  # type: ignore[attr-defined]
    monkeypatch.setattr(client._network._dispatch, "short_turn", struck_turn)
    try:
        for number in range(3):
            client._network.is_struck = False  # type: ignore[attr-defined]
            send(10 + number).result(10)
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert len(seen) == 3


def test_handlers_are_as_before_after_a_wait(client: Client, leads: Any) -> None:
    def mine(*_: Any) -> None: ...

    before = signal.signal(signal.SIGUSR2, mine)
    try:
        send = publish(client)
        for number in range(10):
            send(number).result(10)
        assert leads() > 0
        assert signal.getsignal(signal.SIGUSR2) is mine
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
        signal.signal(signal.SIGUSR2, signal.SIG_IGN)
        send(10).result(10)
        assert signal.getsignal(signal.SIGUSR2) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGUSR2, before)


def test_no_handler_is_replaced_where_code_in_c_has_its_own() -> None:
    import faulthandler

    def mine(*_: Any) -> None: ...

    before = signal.signal(signal.SIGUSR2, mine)
    fresh = Shield()
    try:
        assert fresh.put_up()
        fresh.take_down()
        faulthandler.register(signal.SIGUSR2, chain=False)
        assert not fresh.put_up()
        faulthandler.unregister(signal.SIGUSR2)
        assert fresh.put_up()
        fresh.take_down()
    finally:
        signal.signal(signal.SIGUSR2, before)


def test_callbacks_run_in_the_network_thread_whoever_received_the_acknowledgement(
    client: Client, leads: Any
) -> None:
    send = publish(client)
    is_adding = False
    threads: set[str] = set()
    called = threading.Semaphore(0)

    def callback(_: Any) -> None:
        if not is_adding:  # otherwise it may be done already
            threads.add(threading.current_thread().name)
        called.release()

    for number in range(ROUNDS):
        delivery = send(number)
        is_adding = True
        delivery.add_callback(callback)
        is_adding = False
        delivery.result(10)
        assert called.acquire(timeout=TIMEOUT_S)
    assert threads == {"planaria-network"}
    assert leads() > 0


def test_many_threads_take_turns(client: Client, broker: FakeBroker, leads: Any) -> None:
    send = publish(client)
    send(0).result(10)

    def work(first: int) -> None:
        for number in range(first, first + ROUNDS):
            if number % 7:
                send(number).result(10)
            else:
                send(number)

    for crowd in (1, 2, 5):
        with ThreadPoolExecutor(crowd) as pool:
            list(pool.map(work, [1_000 * (crowd * 10 + number) for number in range(crowd)]))
    client.producer().flush(10)
    send(1).result(10)
    assert len(values(broker)) == len(set(values(broker))) == 2 + 8 * ROUNDS
    assert leads() > 0


@pytest.mark.parametrize("thread_count", [1, 3])
def test_a_close_in_the_middle_of_a_wait(broker: FakeBroker, thread_count: int) -> None:
    for _ in range(10):
        client = Client(broker.endpoint)
        send = publish(client)
        send(0).result(10)
        outcomes: list[BaseException] = []

        def work(send: Any = send, outcomes: Any = outcomes) -> None:
            try:
                while True:
                    send(1).result(10)
            except PlanariaError as error:
                outcomes.append(error)

        threads = [threading.Thread(target=work) for _ in range(thread_count)]
        for thread in threads:
            thread.start()
        threading.Event().wait(0.005)
        client.close()
        for thread in threads:
            thread.join(TIMEOUT_S)
            assert not thread.is_alive()
        assert len(outcomes) == thread_count


def test_a_fork_while_another_thread_leads(client: Client, leads: Any) -> None:
    send = publish(client)
    for number in range(10):
        send(number).result(10)
    is_over = threading.Event()

    def work() -> None:
        number = 10
        while not is_over.is_set():
            send(number).result(10)
            number += 1

    thread = threading.Thread(target=work)
    thread.start()
    codes = []
    for _ in range(10):
        child = os.fork()
        if child == 0:
            try:
                send(0).result(1)
            except Forked:
                os._exit(7)
            except BaseException:  # noqa: BLE001 - the child must end here
                os._exit(8)
            os._exit(9)
        codes.append(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
    is_over.set()
    thread.join(TIMEOUT_S)
    assert not thread.is_alive()
    assert codes == [7] * 10
    send(1).result(10)


def test_a_child_that_is_forked_in_the_middle_of_a_turn_has_the_handlers_of_the_program() -> None:
    def mine(*_: Any) -> None:
        raise Struck

    def fork() -> int:
        child = os.fork()
        if child:
            return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        try:
            assert signal.getsignal(signal.SIGUSR2) is mine
            os.kill(os.getpid(), signal.SIGUSR2)
        except Struck:
            os._exit(7)
        finally:
            os._exit(8)

    before = signal.signal(signal.SIGUSR2, mine)
    try:
        assert shield.put_up()
        with ThreadPoolExecutor(1) as pool:
            code = pool.submit(fork).result(10)
        shield.take_down()
        assert code == 7
    finally:
        signal.signal(signal.SIGUSR2, before)


def test_a_deep_stack_and_a_debugger_leave_the_turns_to_the_network_thread(
    client: Client, leads: Any
) -> None:
    send = publish(client)
    for number in range(10):
        send(number).result(10)

    def deep(left: int) -> int:
        if left:
            return deep(left - 1)
        before = leads()
        for number in range(10):
            send(number).result(10)
        return int(leads() - before)

    used = 0
    frame: Any = sys._getframe()
    while frame is not None:
        used += 1
        frame = frame.f_back
    assert deep(sys.getrecursionlimit() - used - 100) == 0
    assert deep(10) > 0
    sys.settrace(lambda *_: None)
    try:
        assert deep(10) == 0
    finally:
        sys.settrace(None)


def test_a_fault_in_a_turn_that_a_waiting_thread_runs_ends_the_client(
    client: Client, leads: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    send = publish(client)
    for number in range(10):
        send(number).result(10)
    monkeypatch.setattr(client._network._dispatch, "short_turn", lambda *_, **__: 1 // 0)
    with pytest.raises(PlanariaError):
        send(10).result(10)
    with pytest.raises(PlanariaError, match="ZeroDivisionError"):
        client.list_topics()


def test_a_short_timeout_is_kept(client: Client, broker: FakeBroker, leads: Any) -> None:
    producer = client.producer(linger_ms=0, request_timeout_ms=200)
    for _ in range(10):
        producer.publish("T", b"1", partition=0).result(10)
    broker.fault("produce", "swallow")
    delivery = producer.publish("T", b"1", partition=0)
    began = client._network.now_ms()
    with pytest.raises(TimedOut):
        delivery.result(0.05)
    assert 45 <= client._network.now_ms() - began < 10_000
    assert shell.LEAD_MS < 45
