"""`until_signal`: the first signal stops the loops, the second has its former effect, and the handlers are put back."""

import os
import signal
import threading

import pytest

from fake_broker import FakeBroker
from planaria import PlanariaError, until_signal
from planaria.transport.client.client import Client


def send_later(number: signal.Signals) -> threading.Timer:
    sender = threading.Timer(0.2, os.kill, (os.getpid(), number))
    sender.start()
    return sender


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_waiting_loops(client: Client, broker: FakeBroker, number: signal.Signals) -> None:
    before = signal.getsignal(number)
    with (
        client.consumer(topics=["T"]) as consumer,
        client.consumer(topics=["T"]) as other,
        until_signal(consumer, other) as stopping,
    ):
        sender = send_later(number)
        assert list(consumer) == []
        sender.join()
        assert stopping.received == number
        assert list(other) == []
    assert signal.getsignal(number) == before


def test_a_program_without_a_loop_waits() -> None:
    with until_signal() as stopping:
        assert not stopping.wait(0)
        assert stopping.received is None
        sender = send_later(signal.SIGTERM)
        assert stopping.wait()
        assert stopping.wait(0)
        sender.join()


def test_the_second_signal_has_its_former_effect() -> None:
    with until_signal() as stopping:
        signal.raise_signal(signal.SIGINT)
        assert stopping.received == signal.SIGINT
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)


def test_an_ignored_signal_stays_ignored() -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with until_signal() as stopping:
            signal.raise_signal(signal.SIGINT)
            assert stopping.received is None
    finally:
        signal.signal(signal.SIGINT, before)


def test_another_thread_than_the_main_one_is_refused() -> None:
    raised: list[BaseException] = []

    def enter() -> None:
        try:
            with until_signal():
                pass
        except PlanariaError as error:
            raised.append(error)

    thread = threading.Thread(target=enter)
    thread.start()
    thread.join()
    assert "main thread" in str(raised[0])
