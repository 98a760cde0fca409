"""Random losses, moves and refusals: a client's call is never where nothing moves it on, and goes as soon as it can."""

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from msgspec import UNSET, structs

from call_places import check_places
from example_counts import examples
from exchange_driver import DOOR, OFFSETS, Wire
from planaria.transport.addresses import GATEWAY, Address, partition_address
from planaria.transport.calls.events import (
    Disconnected,
    Resolved,
    Send,
    SilenceMeasured,
    Submitted,
    Undeliverable,
    Wanted,
    Withdrawn,
)
from planaria.transport.client.gateway_link import HELLO_TIMEOUT_MS
from planaria.transport.machine import Call, CancelCall
from planaria.transport.protocol.data import Fetch, ListOffsetsReply
from planaria.transport.protocol.errors import ErrorCode
from planaria.transport.protocol.session import (
    GroupMetadata,
    Hello,
    HelloReply,
    Metadata,
    MetadataReply,
    Node,
    PartitionMetadata,
    TopicMetadata,
)

NODES = {"a": DOOR, "b": "tcp://10.0.0.2:5570", "c": "tcp://10.0.0.3:5570"}
NAMES = {"tcp://node-b:5570": NODES["b"], "tcp://b-moved:5570": NODES["b"]}
PARTITIONS = 2
TIMEOUT_MS = 30_000
SETTLED_MS = 2 * HELLO_TIMEOUT_MS + 2_000
"""A call that can be served is, within this time, once nothing fails any more: a greeting that was refused or got lost is
repeated after HELLO_TIMEOUT_MS, and one timer may follow another."""
POLL = Fetch(topic="T", partition=0, offset=0, max_wait_ms=500)
ADDRESSES = [
    partition_address("T", 0),
    partition_address("T", 1),
    partition_address("T", PARTITIONS),
    Address.parse("coordinator/g"),
    GATEWAY,
]
KINDS = ["retried", "retried", "endless", "once"]
REFUSALS = [
    ErrorCode.HELLO_REQUIRED,
    ErrorCode.NOT_LEADER,
    ErrorCode.PARTITION_OFFLINE,
    ErrorCode.ACTOR_UNAVAILABLE,
    ErrorCode.SHUTTING_DOWN,
    ErrorCode.BACKPRESSURE,
    ErrorCode.INVALID_REQUEST,
]


class ClientOfACluster(RuleBasedStateMachine):
    """The nodes answer in any order or not at all; each knows the present leaders."""

    @initialize(is_local=st.booleans(), name=st.sampled_from(["", *NAMES]))
    def begin(self, is_local: bool, name: str) -> None:
        self.shown = NODES | ({"b": name} if name else {})
        """The endpoint of each node, as the nodes name it."""
        self.leaders = ["a", "b"]
        self.coordinator: str | None = None
        self.version = 1
        self.starts = dict.fromkeys(NODES, 1)
        self.numbers = 0
        self.told: list[str] = []
        """Leaders by the metadata that the client got last."""
        self.wire = Wire(is_local)
        self.wire.feed(Wanted("T"))

    # What the nodes say.

    def node_at(self, route: bytes) -> str | None:
        """Return the node at the other end of a connection; None if it leads to an actor of a node."""
        (endpoint,) = [each for each, known in self.wire.routes.items() if known == route]
        return next((node for node, known in NODES.items() if known == endpoint), None)

    def unanswered(self, kind: type | None = None) -> list[Send]:
        """Return the requests on open connections that have no answer yet."""
        routes = set(self.wire.routes.values())
        self.wire.sent = [each for each in self.wire.sent if each.route in routes and each.attempt]
        return [each for each in self.wire.sent if kind is None or isinstance(each.request, kind)]

    def served(self, send: Send) -> bool:
        """Answer a request as its receiver would; return False for a poll without news."""
        request, node = send.request, self.node_at(send.route)
        nodes = [Node(name, endpoint) for name, endpoint in self.shown.items()]
        if isinstance(request, Metadata) and request.after_version == self.version:
            return False
        self.wire.sent.remove(send)
        if isinstance(request, Hello):
            assert node is not None
            start = f"{node}{self.starts[node]}"
            reply = HelloReply(version=1, server="s", instance_id=start, run_directory="/r", nodes=nodes)
            self.wire.answer(send, reply)
        elif isinstance(request, Metadata):
            assert node is not None
            self.told = list(self.leaders)
            self.wire.answer(send, self.metadata(node, request, nodes))
        else:
            self.wire.answer(send, ListOffsetsReply(offset=1, timestamp_ms=None))
        return True

    def metadata(self, node: str, request: Metadata, nodes: list[Node]) -> MetadataReply:
        partitions = [
            PartitionMetadata(
                partition=number,
                online=True,
                incarnation=self.version,
                endpoint=f"ipc://T-{number}.{self.version}" if leader == node else None,
                node=UNSET if leader == node else leader,
            )
            for number, leader in enumerate(self.leaders)
        ]
        topic = TopicMetadata(topic="T", topic_id="T", max_message_bytes=1, partitions=partitions)
        where = UNSET if self.coordinator in (None, node) else self.coordinator
        endpoint = f"ipc://g.{self.version}" if self.coordinator == node else None
        return MetadataReply(
            version=self.version,
            instance_id=f"{node}{self.starts[node]}",
            topics=[topic] if request.topics else [],
            groups=[GroupMetadata(group, endpoint, where) for group in request.groups] or UNSET,
            nodes=nodes,
        )

    # What happens.

    @rule(
        address=st.sampled_from(ADDRESSES),
        kinds=st.lists(st.sampled_from(KINDS), min_size=1, max_size=3),
        is_poll=st.booleans(),
        node=st.sampled_from([None, *NODES]),
    )
    def submit(self, address: Address, kinds: list[str], is_poll: bool, node: str | None) -> None:
        """Make several calls to one actor."""
        number = -1 if address.number is None or address.topic is None else address.number
        for kind in kinds:
            self.numbers += 1
            call = Call(
                self.numbers,
                address,
                structs.replace(POLL if is_poll else OFFSETS, partition=number),
                ListOffsetsReply,
                timeout_ms=TIMEOUT_MS,
                is_retried=kind == "retried",
                is_endless=kind == "endless",
                token=self.numbers,
                node=node,
            )
            self.wire.feed(Submitted(self.wire.owner, call))

    @rule()
    def serve(self) -> None:
        """All requests are answered, and those that follow."""
        while any(self.served(send) for send in self.unanswered()):
            pass

    @precondition(lambda self: self.unanswered())
    @rule(data=st.data())
    def answer(self, data: st.DataObject) -> None:
        self.served(data.draw(st.sampled_from(self.unanswered()), "request"))

    @rule(kind=st.sampled_from([Hello, Metadata]))
    def answer_all(self, kind: type) -> None:
        for send in self.unanswered(kind):
            if send in self.unanswered():
                self.served(send)

    @precondition(lambda self: self.unanswered())
    @rule(data=st.data(), code=st.sampled_from(REFUSALS))
    def refuse(self, data: st.DataObject, code: ErrorCode) -> None:
        send = data.draw(st.sampled_from(self.unanswered()), "request")
        if isinstance(send.request, Hello):
            code = ErrorCode.ACTOR_UNAVAILABLE  # any other ends all calls
        self.wire.sent.remove(send)
        self.wire.refuse(send, code)

    @precondition(lambda self: self.wire.routes)
    @rule(data=st.data(), is_refused=st.booleans())
    def lose(self, data: st.DataObject, is_refused: bool) -> None:
        endpoint = data.draw(st.sampled_from(sorted(self.wire.routes)), "endpoint")
        self.wire.feed(Disconnected(endpoint, is_refused))

    @precondition(lambda self: self.unanswered())
    @rule(data=st.data(), is_full=st.booleans())
    def drop(self, data: st.DataObject, is_full: bool) -> None:
        send = data.draw(st.sampled_from(self.unanswered()), "request")
        self.wire.sent.remove(send)
        self.wire.feed(Undeliverable(send.route, send.attempt, is_full))

    @rule(partition=st.integers(0, PARTITIONS - 1), node=st.sampled_from(sorted(NODES)))
    def lead(self, partition: int, node: str) -> None:
        self.leaders[partition] = node
        self.version += 1

    @rule(node=st.sampled_from([None, *NODES]))
    def coordinate(self, node: str | None) -> None:
        self.coordinator = node
        self.version += 1

    @rule(node=st.sampled_from(sorted(NODES)))
    def restart(self, node: str) -> None:
        self.starts[node] += 1
        self.version += 1
        self.wire.feed(Disconnected(NODES[node]))

    @rule(name=st.sampled_from([*NAMES, NODES["b"]]))
    def rename(self, name: str) -> None:
        self.shown["b"] = name

    @precondition(lambda self: self.wire.lookups)
    @rule(data=st.data(), is_found=st.booleans())
    def look_up(self, data: st.DataObject, is_found: bool) -> None:
        name = data.draw(st.sampled_from(self.wire.lookups), "name")
        self.wire.lookups.remove(name)
        self.wire.feed(
            Resolved((NAMES[name],), endpoint=name) if is_found else Resolved(fault="no", endpoint=name)
        )

    @precondition(lambda self: self.wire.timers)
    @rule()
    def wait(self) -> None:
        timers = self.wire.timers
        self.wire.fire(min(timers, key=timers.__getitem__))

    @rule(silence_ms=st.sampled_from([0, 10_000]))
    def measure(self, silence_ms: int) -> None:
        for endpoint in sorted(self.wire.routes):
            self.wire.feed(SilenceMeasured(endpoint, silence_ms))

    @precondition(lambda self: self.numbers)
    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        self.wire.feed(CancelCall(data.draw(st.integers(1, self.numbers), "call")))

    @rule()
    def withdraw(self) -> None:
        self.wire.feed(Withdrawn(self.wire.owner))

    # What holds.

    @invariant()
    def every_call_is_where_something_moves_it_on(self) -> None:
        check_places(self.wire.exchange, set(self.wire.routes.values()))

    @invariant()
    def no_request_waits_at_a_node_that_leads_no_more(self) -> None:
        for send in self.unanswered():
            number = getattr(send.request, "partition", -1)
            node = self.node_at(send.route)
            gateway = self.wire.exchange._directory._link.connection
            if node is None or gateway is None or send.route == gateway.route:
                continue
            if 0 <= number < len(self.told):
                assert self.told[number] == node

    @invariant()
    def a_call_has_one_outcome(self) -> None:
        heard = [each.key for each in self.wire.owner.heard]
        assert len(set(heard)) == len(heard)

    def teardown(self) -> None:
        """Nothing fails any more: every call that has the time is served."""
        ends_at = self.wire.now + SETTLED_MS
        due = {serial for serial, at in self.wire.timers.items() if isinstance(serial, int) and at > ends_at}
        while True:
            if self.wire.lookups:
                name = self.wire.lookups.pop()
                self.wire.feed(Resolved((NAMES[name],), endpoint=name))
            elif not any(self.served(send) for send in self.unanswered()):
                timers = self.wire.timers
                key = min(timers, key=timers.__getitem__)
                if timers[key] > ends_at:
                    break
                self.wire.fire(key)
            self.every_call_is_where_something_moves_it_on()
        assert self.wire.exchange._directory.has_session
        left = due & self.wire.exchange._pending.keys()
        assert {
            self.wire.exchange._pending[serial].call.key
            for serial in left
            if self.wire.exchange._pending[serial].owner is self.wire.owner
        } == set()


ClientOfACluster.TestCase.settings = examples(100, steps=50)
test_random_losses = ClientOfACluster.TestCase
