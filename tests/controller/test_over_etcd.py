"""Controllers whose store is etcd, simulated: the controller does not know which store it has."""

import random

import pytest

from controller_driver import ControllerDriver
from planaria.actors.controller.children import all_specs
from planaria.transport.protocol.control import EnsureGroup
from planaria.transport.protocol.data import InitProducer
from planaria.transport.protocol.errors import ErrorBody
from planaria.transport.protocol.message import Request
from planaria.transport.protocol.quotas import QuotaChange, SetQuota
from planaria.transport.protocol.topics import AlterTopic, CreateTopic, DeleteTopic
from simulated_etcd import STORM, SimulatedEtcd, SimulatedStore, SimulatedTime

SETTLED_MS = 30_000


class Controllers:
    """Several controllers over one etcd, which decide at the same time."""

    def __init__(self, seed: int, count: int) -> None:
        self.draw = random.Random(seed)
        self.time = SimulatedTime()
        self.world = SimulatedEtcd(self.time.schedule, lambda: self.time.now, self.draw)
        self.drivers = [self._controller(f"n{number}") for number in range(count)]
        self.asked: list[tuple[ControllerDriver, int, Request]] = []

    def _controller(self, name: str) -> ControllerDriver:
        driver = ControllerDriver(store=SimulatedStore(self.world, self.time.step, name, f"life of {name}"))
        driver.load()
        return driver

    def ask(self, request: Request) -> None:
        driver = self.draw.choice(self.drivers)
        self.asked.append((driver, driver.ask(request), request))

    def advance(self, milliseconds: int) -> None:
        for _ in range(milliseconds // 10):
            self.time.advance(10)
            for driver in self.drivers:
                driver.advance(10)
                driver.run()


def requests(draw: random.Random) -> Request:
    topic = draw.choice("ABCD")
    return draw.choice(
        [
            CreateTopic(topic=topic, partitions=draw.randint(1, 3), if_not_exists=True),
            AlterTopic(topic=topic, partitions=draw.randint(1, 4)),
            DeleteTopic(topic=topic),
            EnsureGroup(group=draw.choice("gh")),
            InitProducer(),
            SetQuota(client_id="c", quota=QuotaChange(fetch_bytes=draw.randint(1, 9))),
        ]
    )


@pytest.mark.parametrize("number", range(8))
def test_controllers_that_decide_at_once_agree_under_faults(seed: int, number: int) -> None:
    run = Controllers(seed + number, 2)
    run.world.faults = STORM
    for _ in range(60):
        run.ask(requests(run.draw))
        run.advance(run.draw.choice((10, 50, 200)))
    run.world.heal()
    run.advance(SETTLED_MS)
    first, second = (driver.machine.catalog for driver in run.drivers)
    assert first.values() == second.values()
    for driver in run.drivers:
        assert set(driver.specs) == {spec.address for spec in all_specs(driver.machine.catalog)}
    producer_ids: list[int] = []
    for driver, asked, request in run.asked:
        reply = driver.replies[asked]
        if isinstance(request, InitProducer) and not isinstance(reply, ErrorBody):
            producer_ids.append(reply.producer_id)
    assert len(set(producer_ids)) == len(producer_ids), "a producer id was given out twice"
