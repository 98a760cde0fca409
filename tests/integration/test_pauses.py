"""A paused group in real processes: plain consumers, hosted handlers and share consumers, through kills and restarts."""

import json
from pathlib import Path

import pytest

from command_line import planaria
from live_trees import actor, until, until_reborn
from patience import TIMEOUT_S
from planaria import Broker, Client, Context, GroupNotEmpty, Message

pytestmark = pytest.mark.processes


def write_line(message: Message, context: Context) -> None:
    path = Path(message.headers["path"])
    with path.open("a") as file:
        file.write(f"{message.partition}:{message.offset}\n")


def lines(path: Path) -> list[str]:
    return path.read_text().splitlines() if path.exists() else []


def state(client: Client, group: str) -> str:
    return client.describe_group(group).state


def test_a_pause_outlives_the_coordinator_and_the_broker_and_a_reset_takes_effect_after_it(
    data_dir: Path, tmp_path: Path
) -> None:
    written = tmp_path / "handled"

    def publish(broker: Broker, count: int) -> None:
        for _ in range(count):
            broker.client.publish("T", b"x", headers={"path": str(written)})

    with Broker(data_dir, heartbeat_interval_ms=200) as broker:
        client = broker.client
        client.create_topic("T", 1)
        publish(broker, 3)
        hosted = broker.subscribe("hosted", "T", handler=write_line)
        until(lambda: len(lines(written)) == 3, "three records handled")
        with client.consumer("plain", ["T"], auto_offset_reset="earliest") as consumer:
            while consumer.position("T", 0) < 3 if consumer.assignment() else True:
                consumer.poll(0.2)
            consumer.commit()
            for group in ("plain", "hosted"):
                answer = planaria(
                    "group", "pause", group, "--reason", "maintenance", "--connect", broker.endpoint
                )
                assert answer.returncode == 0, answer.stderr
                until(
                    lambda group=group: consumer.poll(0.05) == [] and state(client, group) == "paused", group
                )
            publish(broker, 2)
            before = actor(client, "coordinator/plain")
            client.kill("coordinator/plain")
            until_reborn(client, before)
            assert consumer.poll(0.3) == []
            client.reset_offsets("plain", {("T", 0): 1})
            client.resume_group("plain")
            found: list[int] = []
            while len(found) < 4:
                found += [message.offset for message in consumer.poll(1.0)]
            assert found == [1, 2, 3, 4]
            with pytest.raises(GroupNotEmpty):
                client.reset_offsets("plain", {("T", 0): 1})
        hosted.close() if hasattr(hosted, "close") else None

    with Broker(data_dir, heartbeat_interval_ms=200) as broker:
        client = broker.client
        broker.subscribe("hosted", "T", handler=write_line)
        until(lambda: len(client.describe_group("hosted").members) == 1, "the hosted member is back")
        listed = json.loads(planaria("group", "list", "--json", "--connect", broker.endpoint).stdout)
        (entry,) = [each for each in listed["groups"] if each["group"] == "hosted"]
        assert (entry["state"], entry["paused"]["reason"]) == ("paused", "maintenance")
        shown = until(lambda: actor(client, "coordinator/hosted").paused, "the pause in status")
        assert shown.reason == "maintenance"
        assert len(lines(written)) == 3
        assert planaria("group", "resume", "hosted", "--connect", broker.endpoint).returncode == 0
        until(lambda: lines(written) == [f"0:{offset}" for offset in range(5)], "the other two handled")


def test_a_paused_share_group_waits_and_ends_its_pause_by_itself(broker: Broker) -> None:
    client = broker.client
    client.create_topic("T", 1)
    for _ in range(4):
        client.publish("T", b"x")
    with client.share_consumer("s", ["T"]) as consumer:
        first = consumer.poll(TIMEOUT_S)
        for message in first:
            message.accept()
        consumer.flush()
        client.pause_group("s", for_ms=3_600_000)
        client.publish("T", b"y")
        assert client.describe_group("s").paused is not None
        assert consumer.poll(0.2) == []
        client.pause_group("s", for_ms=1_000)
        found = until(lambda: consumer.poll(0.2), "the record after the pause")
        assert found[-1].value == b"y"
        assert client.describe_group("s").paused is None
