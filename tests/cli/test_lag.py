"""`planaria lag` and `planaria health`: figures of real groups, and the exit codes of probes."""

import json
import os
import signal
import time
from typing import Any

import msgspec
import pytest

from command_line import ServedBroker, planaria
from patience import TIMEOUT_S
from planaria import Client
from planaria.supervisor.cli.lag import lag_of, trend_text
from planaria.transport.addresses import TopicPartition
from planaria.transport.client.descriptions import GroupDescription, ShareGroupDescription, SharePartition
from planaria.transport.protocol.shares import ConfigureShareGroupReply

HOUR_MS = 3_600_000


def share_group(**figures: int) -> GroupDescription:
    part = SharePartition(topic="T", partition=0, held=[], retrying=[], **figures)
    settings = msgspec.structs.asdict(ConfigureShareGroupReply(1, 1, None, "earliest"))
    del settings["id"]
    share = ShareGroupDescription(members=[], partitions=[part], **settings)
    return GroupDescription(
        group="s", type="share", state="empty", generation=0, assignor="", members=[], offsets=[], share=share,
        paused=None,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("figures", "end", "lag"),
    [
        ({"start_offset": 5, "next_offset": 5, "acquired": 0, "returned": 0, "dead": 0}, 9, 4),
        ({"start_offset": 5, "next_offset": 9, "acquired": 1, "returned": 1, "dead": 0}, 9, 2),
        ({"start_offset": 5, "next_offset": 9, "acquired": 1, "returned": 0, "dead": 1}, 12, 5),
        ({"start_offset": 9, "next_offset": 9, "acquired": 0, "returned": 0, "dead": 0}, 9, 0),
    ],
)
def test_the_lag_of_a_share_group_is_what_is_not_done(figures: dict[str, int], end: int, lag: int) -> None:
    assert lag_of(share_group(**figures), {TopicPartition("T", 0): (0, end)}).lag == lag


def test_the_lag_of_an_offline_partition_is_unknown() -> None:
    figures = {"start_offset": 5, "next_offset": 5, "acquired": 0, "returned": 0, "dead": 0}
    assert lag_of(share_group(**figures), {}).lag is None


def test_a_trend_has_a_bar_for_each_point() -> None:
    assert trend_text([0, 50, 100]) == "▁▄█"
    assert trend_text([0, 0]) == "▁▁"
    assert trend_text([]) == ""


def lag(broker: ServedBroker, *arguments: str) -> dict[str, Any]:
    done = planaria("lag", "--json", *arguments, "--connect", broker.endpoint)
    assert done.returncode == 0, done.stderr
    return {each["group"]: each for each in json.loads(done.stdout)["groups"]}


@pytest.mark.processes
def test_lag_is_counted_and_its_age_is_that_of_the_first_unread_record(broker: ServedBroker) -> None:
    with Client(broker.endpoint) as client:
        client.create_topic("LAG", 1)
        now_ms = int(time.time() * 1000)
        with client.producer() as producer:
            for hours in (3, 2, 1):
                producer.publish("LAG", b"x", timestamp_ms=now_ms - hours * HOUR_MS).result(TIMEOUT_S)
        with client.consumer("behind", ["LAG"], auto_offset_reset="earliest") as consumer:
            while not consumer.poll(1.0, 1):
                pass
            consumer.commit()
        with client.share_consumer("queue", ["LAG"]) as share:
            while not (messages := share.poll(1.0, 1)):
                pass
            messages[0].accept()
            share.flush()
        found = lag(broker)
        for group in ("behind", "queue"):
            assert found[group]["lag"] == 2
            assert 2 * HOUR_MS <= found[group]["oldest_ms"] < 3 * HOUR_MS
        (row,) = lag(broker, "--group", "behind")["behind"]["partitions"]
        assert (row["position"], row["log_end_offset"]) == (1, 3)
        client.reset_offsets("behind", {("LAG", 0): 3})
        (row,) = lag(broker, "--group", "behind")["behind"]["partitions"]
        assert (row["lag"], row["oldest_ms"]) == (0, None)
    assert planaria("lag", "--group", "none", "--connect", broker.endpoint).returncode == 1
    assert "behind" in planaria("lag", "--connect", broker.endpoint).stdout


@pytest.mark.processes
def test_health_fails_for_an_absent_broker_only_when_probes_should(
    broker: ServedBroker, endpoint: str
) -> None:
    for option in ("--live", "--ready"):
        assert planaria("health", option, "--connect", broker.endpoint).returncode == 0
        assert planaria("health", option, "--connect", endpoint).returncode == 2
    assert planaria("health", "--live", "--ready", "--connect", broker.endpoint).returncode == 2
    with Client(broker.endpoint) as client:
        pid = next(each.pid for each in client.status().actors if each.address == "gateway/0")
    assert pid is not None
    os.kill(pid, signal.SIGSTOP)
    try:
        assert planaria("health", "--ready", "--connect", broker.endpoint).returncode == 2
        assert planaria("health", "--live", "--connect", broker.endpoint).returncode == 0
    finally:
        try:
            os.kill(pid, signal.SIGCONT)
        except ProcessLookupError:
            pass
