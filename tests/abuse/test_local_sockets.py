"""A client that floods an actor's own socket does not starve another one of the same actor, nor clients of the gateway.

The sockets of coordinators and of the supervisor are open to the broker's user on the broker's machine alone.
"""

import sys
from collections.abc import Iterator

import pytest

import abusers
from abuse_victim import FLOOR_MS, Seen, Victim, crowd, restarts
from abusers import LOCAL_ABUSERS, TOPIC
from live_trees import until
from patience import TIMEOUT_S
from planaria import Broker
from planaria.supervisor.run_directory import supervisors_at
from planaria.transport.addresses import TopicPartition
from warm_start import WarmPopen

pytestmark = pytest.mark.processes

SECONDS = 0.4
OFFSETS = [{"topic": TOPIC, "partition": 0, "offset": 1}]
REQUESTS: dict[str, list[dict[str, object]]] = {
    "coordinator/g": [
        {"op": "commit_offsets", "group": "g", "offsets": OFFSETS},
        {"op": "fetch_offsets", "group": "g"},
    ],
    "coordinator/s": [
        {"op": "acquire", "group": "s", "topics": ["EMPTY"], "member_id": "victim", "max_wait_ms": 0}
    ],
    "transactions/0": [{"op": "init_producer", "transactional_id": "abuser"}],
    "scheduler/0": [{"op": "list_scheduled"}],
    "supervisor": [{"op": "status"}],
}


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    settings = {"transaction_coordinators": 1, "delayed_partitions": 1, "offsets_partitions": 1}
    with Broker(tmp_path_factory.mktemp("local"), hang_timeout_ms=30_000, **settings) as broker:  # type: ignore[arg-type]
        for topic in (TOPIC, "EMPTY"):
            broker.create_topic(topic, 1)
        with broker.client.consumer("g", partitions=[TopicPartition(TOPIC, 0)]) as consumer:
            consumer.commit({TopicPartition(TOPIC, 0): 0})
        broker.client.configure_share_group("s")
        with broker.client.producer(transactional_id="abuser") as producer:
            producer.claim()
        broker.publish(TOPIC, None, b"later", delay=3_600)
        yield broker


def endpoint_of(broker: Broker, address: str) -> str:
    if address == "supervisor":
        return supervisors_at(broker.endpoint)[0]

    def find() -> str:
        return {each.address: each.endpoint or "" for each in broker.status().actors}[address]

    until(find, f"{address} has a socket")
    return find()


@pytest.mark.parametrize("name", LOCAL_ABUSERS)
def test_no_local_abuser_starves_other_clients_of_its_actor(broker: Broker, name: str) -> None:
    address, _ = LOCAL_ABUSERS[name]
    endpoint, deaths = endpoint_of(broker, address), restarts(broker)
    victims = {
        "direct": Victim(endpoint, REQUESTS[address]),
        "gateway": Victim(broker.endpoint, REQUESTS[address]),
    }
    abuser = None
    try:
        before = {kind: victim.live(SECONDS / 4) for kind, victim in victims.items()}
        command = [sys.executable, abusers.__file__, name, endpoint, str(2 * SECONDS + 0.3)]
        abuser = WarmPopen(command)
        victims["direct"].live(0.3)  # while it starts
        during = {kind: victim.live(SECONDS) for kind, victim in victims.items()}
        assert abuser.wait(TIMEOUT_S) == 0, "the abuser has failed, not the broker"
        after = {kind: victim.live(SECONDS / 4) for kind, victim in victims.items()}
    finally:
        if abuser is not None:
            abuser.kill()
            abuser.wait()
        for victim in victims.values():
            victim.close()
    for kind in victims:
        show(f"{name} ({kind})", before[kind], during[kind], after[kind])
        assert not during[kind].refused + after[kind].refused
        assert during[kind].percentile(50) <= FLOOR_MS * max(1.0, crowd())
    assert restarts(broker) == deaths


def show(what: str, before: Seen, during: Seen, after: Seen) -> None:
    print(f"\n{what:32} before {before}\n{'':32} during {during}\n{'':32} after  {after}")
