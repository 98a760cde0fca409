"""Metrics and probes of a live broker: through kills, with hostile clients, and only where they may be read."""

import re
import socket
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from patience import TIMEOUT_S, wait_until
from planaria import Broker, StartFailed

pytestmark = pytest.mark.processes


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    options: dict[str, Any] = {"http_endpoint": "127.0.0.1:*", "kafka_names": True, "hang_timeout_ms": 60_000}
    with Broker(tmp_path_factory.mktemp("metrics"), **options) as broker:
        broker.create_topic("T", 2)
        yield broker


def get(url: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(url, timeout=TIMEOUT_S) as reply:
            return reply.status, reply.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def value(broker: Broker, sample: str, path: str = "/metrics") -> float | None:
    status, text = get(f"{broker.http_endpoint}{path}")
    assert status == 200, text
    found = re.search(rf"^{re.escape(sample)} (\S+)$", text, re.M)
    return None if found is None else float(found[1])


def test_counts_survive_the_deaths_of_those_who_count(broker: Broker) -> None:
    for number in range(10):
        broker.publish("T", str(number), {"number": number})
    consumer = broker.client.consumer("readers", "T", auto_offset_reset="earliest", auto_commit=False)
    found = consumer.poll(TIMEOUT_S, max_messages=4)
    consumer.commit()
    records = 'planaria_topic_records_in_total{topic="T"}'
    lag = 'planaria_group_lag{group="readers",topic="T"}'
    wait_until(lambda: value(broker, records) == 10)
    wait_until(lambda: value(broker, lag) == 10 - len(found))
    assert value(broker, lag.replace("lag{", "lag_seconds{")) > 0
    assert value(broker, 'kafka_consumergroup_lag_sum{consumergroup="readers",topic="T"}') == 10 - len(found)
    assert value(broker, 'planaria_partition_high_watermark{topic="T",partition="0"}', "/metrics/detailed")
    assert value(broker, 'planaria_request_seconds_count{actor_kind="partition",op="produce"}') >= 10
    assert value(broker, 'planaria_fsync_seconds_count{actor_kind="partition"}') >= 10
    endpoint = broker.http_endpoint
    broker.kill("partition/T/0")
    broker.kill("http")
    # The successor of the process that counts begins at zero, at its old address.
    wait_until(
        lambda: [each.incarnation for each in broker.status().actors if each.endpoint == endpoint] == [2]
    )
    # A page has no counts while the supervisor's answer is late.
    wait_until(lambda: value(broker, records) == 0)
    broker.kill("partition/T/0")
    for number in range(10):
        broker.publish("T", str(number), {"number": number})
    wait_until(lambda: value(broker, records) == 10)
    assert value(broker, 'planaria_actor_restarts_total{actor_kind="partition"}') >= 1
    wait_until(lambda: get(f"{endpoint}/readyz")[0] == 200)
    assert get(f"{endpoint}/healthz")[0] == 200
    assert get(f"{endpoint}/critical")[0] == 200
    consumer.close()


def test_slow_and_hostile_connections_keep_nobody_from_the_metrics(broker: Broker) -> None:
    assert broker.http_endpoint is not None
    host, _, port = broker.http_endpoint.removeprefix("http://").rpartition(":")
    status = broker.status()
    crowd = [socket.create_connection((host, int(port)), TIMEOUT_S) for _ in range(400)]
    for number, each in enumerate(crowd):
        # Those that were displaced are closed already.
        try:
            each.send(
                (b"GET /metr", b"\x16\x03\x01" * 400, b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")[number % 3]
            )
        except ConnectionError:
            continue
    assert value(broker, "planaria_partitions_led") is not None
    for each in crowd:
        each.close()
    starts = {actor.address: actor.incarnation for actor in status.actors}
    assert {actor.address: actor.incarnation for actor in broker.status().actors} == starts


@pytest.mark.parametrize("endpoint", ["0.0.0.0:*", "[::]:*", "http://example.invalid:5572"])
def test_metrics_are_not_given_to_other_machines_unasked(data_dir: Path, endpoint: str) -> None:
    with pytest.raises(StartFailed, match="http_endpoint: other machines can reach"):
        Broker(data_dir, http_endpoint=endpoint)


def test_a_port_that_is_taken_is_reported_at_the_start(data_dir: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        endpoint = f"127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(StartFailed, match=f"cannot listen on tcp://{endpoint}"):
            Broker(data_dir, http_endpoint=endpoint)
