"""`planaria delayed` and `planaria produce --delay` as a person types them."""

import pytest

from command_line import ServedBroker, planaria
from planaria import Client


def test_what_is_held_back_is_shown_and_called_off(broker: ServedBroker) -> None:
    with Client(broker.endpoint) as client:
        client.create_topic("LATER")
        client.publish("LATER", b"x", key="order", delay=3_600, scheduled_id="reminder-17")
    found = broker.json("delayed", "list", "LATER")
    assert [each["scheduled_id"] for each in found["messages"]] == ["reminder-17"]
    text = broker.run("delayed", "list")
    assert "reminder-17" in text
    assert "order" in text
    assert "1 message will not be delivered" in broker.run("delayed", "cancel", "reminder-17")
    assert "no delayed messages" in broker.run("delayed", "list", "LATER")
    done = planaria("delayed", "cancel", "reminder-17", "reminder-18", "--connect", broker.endpoint)
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert "reminder-18" in done.stderr


@pytest.mark.parametrize("option", [("--delay", "1h"), ("--deliver-at", "2099-01-01T00:00")])
def test_lines_are_published_for_later(broker: ServedBroker, option: tuple[str, str]) -> None:
    with Client(broker.endpoint) as client:
        client.create_topic("LATER", if_not_exists=True)
        done = planaria("produce", "LATER", *option, "--connect", broker.endpoint, given="a\nb\n")
        if option[0] == "--deliver-at":
            # More than 366 days ahead: refused before anything is held back.
            assert done.returncode == 1
            assert "ahead" in done.stderr
            return
        assert done.returncode == 0, done.stderr
        assert "2 messages to LATER" in done.stdout
        held = client.list_scheduled("LATER")
        assert len(held) == 2
        for each in held:
            client.cancel_scheduled(each.scheduled_id)


@pytest.mark.parametrize(
    ("arguments", "wrong"),
    [
        (("--delay", "soon"), "'soon' is not like 90s or 15m"),
        (("--deliver-at", "soon"), "'soon' is not a time like 2026-01-31T12:00"),
        (("--delay", "1s", "--deliver-at", "2026-01-31T12:00"), "both given"),
        (("--delay", "1s", "--acks", "0"), "must be acknowledged"),
    ],
)
def test_a_wrong_time_is_a_usage_error(arguments: tuple[str, ...], wrong: str) -> None:
    done = planaria("produce", "LATER", *arguments)
    assert done.returncode == 2
    assert wrong in done.stderr
