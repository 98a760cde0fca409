"""Random ends of peers and connections: an actor's call is never where nothing moves it on."""

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from call_places import check_places
from example_counts import examples
from planaria.transport.addresses import Address
from planaria.transport.calls.events import (
    Arrived,
    Connect,
    Deliver,
    Disconnect,
    Disconnected,
    Send,
    Undeliverable,
    Withdrawn,
)
from planaria.transport.calls.exchange import Exchange
from planaria.transport.calls.peers import SUPERVISOR_ROUTE, PeerDirectory
from planaria.transport.calls.retry import RetryPolicy
from planaria.transport.codec import encode_header
from planaria.transport.machine import Call, CancelCall, Cast, Effect, Event
from planaria.transport.protocol.control import PeerDown, PeersAsleep, PeerUp, Wake, Watch
from planaria.transport.protocol.data import InitProducer, InitProducerReply
from planaria.transport.protocol.errors import ErrorCode, ProtocolError
from planaria.transport.protocol.message import ErrorReply

LINK = Address.parse("link/a")
REPLICA = Address.parse("replica/T/0")
OTHER_NODE = "tcp://10.0.0.2:5571"
LOCATED = [Address.parse("partition/T/0"), Address.parse("coordinator/g")]
"""Addresses for which another process answers: one of this node, or one of another node through the link."""
OWN = [Address.parse("gateway/0"), LINK, REPLICA]
SLEEPER = Address.parse("partition/S/0")
REPORTED = ("controller", "gateway", "link", "replica", "partition")
SETTLED_MS = 5_000


class Owner:
    def __init__(self) -> None:
        self.heard: list[object] = []

    def handle(self, event: Event, now: int) -> list[Effect]:
        raise AssertionError("outcomes are delivered by an effect")


class ActorsOfANode(RuleBasedStateMachine):
    """The supervisor's reports come in its order: the end of a process, then of what is located there."""

    def __init__(self) -> None:
        super().__init__()
        directory = PeerDirectory(Address.parse("controller"), 1, REPORTED)
        self.exchange = Exchange(directory, retry=RetryPolicy(), jitter=lambda: 0.0)
        self.owner = Owner()
        self.now = 0
        self.numbers = 0
        self.incarnations = dict.fromkeys([*OWN, *LOCATED, SLEEPER], 0)
        self.up: dict[Address, PeerUp] = {}
        self.is_asleep = False
        self.routes: dict[str, bytes] = {SUPERVISOR_ROUTE.decode(): SUPERVISOR_ROUTE}
        self.sent: list[Send] = []
        self.perform(self.exchange.start(0))

    def perform(self, effects: list[Effect]) -> None:
        for effect in effects:
            match effect:
                case Send(request=Wake() | Watch()):
                    assert effect.route == SUPERVISOR_ROUTE
                case Send():
                    assert effect.route in self.routes.values(), "sent on a connection that is gone"
                    if effect.attempt:
                        self.sent.append(effect)
                case Connect(route=route, endpoint=endpoint):
                    assert endpoint not in self.routes
                    self.routes[endpoint] = route
                case Disconnect(endpoint=endpoint):
                    del self.routes[endpoint]
                case Deliver(event=event):
                    self.owner.heard.append(event)

    def feed(self, event: object) -> None:
        self.perform(self.exchange.handle(event, self.now))

    def unanswered(self) -> list[Send]:
        routes = set(self.routes.values())
        self.sent = [each for each in self.sent if each.route in routes]
        return self.sent

    @rule(
        address=st.sampled_from([*OWN, *LOCATED, SLEEPER]),
        is_retried=st.booleans(),
        is_endless=st.booleans(),
        timeout_ms=st.sampled_from([100, 30_000]),
    )
    def submit(self, address: Address, is_retried: bool, is_endless: bool, timeout_ms: int) -> None:
        self.numbers += 1
        call = Call(
            self.numbers,
            address,
            InitProducer(),
            InitProducerReply,
            timeout_ms=timeout_ms,
            is_retried=is_retried,
            is_endless=is_endless,
            token=self.numbers,
        )
        self.perform(self.exchange.submit(self.owner, call, self.now))

    @rule(address=st.sampled_from([*OWN, *LOCATED, SLEEPER]))
    def cast(self, address: Address) -> None:
        self.perform(self.exchange.cast(Cast(address, InitProducer()), self.now))

    # The supervisor.

    @rule(address=st.sampled_from([*OWN, SLEEPER]), is_reported=st.booleans())
    def begin(self, address: Address, is_reported: bool) -> None:
        """A process is ready; `is_reported` if the end of the one before was, as that of a process with locations is."""
        if is_reported or address in (LINK, REPLICA):
            self.end(address)
        number = self.incarnations[address] = self.incarnations[address] + 1
        self.report(PeerUp(address=address, incarnation=number, endpoint=f"ipc://{address}.{number}"))

    @rule(address=st.sampled_from(LOCATED), node=st.sampled_from(["", "b"]))
    def locate(self, address: Address, node: str) -> None:
        """A process of this node answers for the address, or one of another node."""
        needed = self.up.get(LINK if node else REPLICA)
        if address in self.up:
            self.down(address)
        if needed is not None:
            number = self.incarnations[address] = self.incarnations[address] + 1
            self.report(
                PeerUp(
                    address=address,
                    incarnation=number,
                    endpoint=needed.endpoint,
                    node=node,
                    target=REPLICA,
                )
            )

    def report(self, up: PeerUp) -> None:
        self.up[up.address] = up
        self.is_asleep = self.is_asleep and up.address != SLEEPER
        self.feed(up)

    @rule(address=st.sampled_from([*OWN, SLEEPER]))
    def end(self, address: Address) -> None:
        ended = self.up.get(address)
        if ended is None:
            return
        self.down(address)
        for other, up in list(self.up.items()):
            if up.endpoint == ended.endpoint:
                self.down(other)

    def down(self, address: Address, *, asleep: bool = False) -> None:
        up = self.up.pop(address)
        self.feed(PeerDown(address=address, incarnation=up.incarnation, reason="ended", asleep=asleep))

    @rule(is_late=st.booleans())
    def sleep(self, is_late: bool) -> None:
        """The sleeper ends to sleep; or the supervisor says to a new actor that it sleeps."""
        if SLEEPER in self.up:
            self.down(SLEEPER, asleep=True)
        elif is_late:
            self.feed(PeersAsleep(addresses=[SLEEPER]))
        self.is_asleep = SLEEPER not in self.up

    # The peers and the socket.

    @precondition(lambda self: self.unanswered())
    @rule(data=st.data(), code=st.sampled_from([None, ErrorCode.NOT_LEADER, ErrorCode.INVALID_REQUEST]))
    def answer(self, data: st.DataObject, code: ErrorCode | None) -> None:
        self.answered(data.draw(st.sampled_from(self.unanswered()), "request"), code)

    def answered(self, send: Send, code: ErrorCode | None = None) -> None:
        self.sent.remove(send)
        reply = InitProducerReply(producer_id=1, producer_epoch=0) if code is None else None
        header = encode_header(reply or ErrorReply(error=ProtocolError(code or "", "no").body))
        self.feed(Arrived(send.route, (send.attempt.to_bytes(8, "big"), b""), header))

    @precondition(lambda self: self.unanswered())
    @rule(data=st.data(), is_full=st.booleans())
    def drop(self, data: st.DataObject, is_full: bool) -> None:
        send = data.draw(st.sampled_from(self.unanswered()), "request")
        self.sent.remove(send)
        self.feed(Undeliverable(send.route, send.attempt, is_full))

    @precondition(lambda self: len(self.routes) > 1)
    @rule(data=st.data())
    def lose(self, data: st.DataObject) -> None:
        """The connection to another node's link ends."""
        self.feed(Disconnected(data.draw(st.sampled_from(sorted(self.routes)[1:]), "endpoint")))

    @precondition(lambda self: self.exchange.timers.next_at() is not None)
    @rule()
    def wait(self) -> None:
        next_at = self.exchange.timers.next_at()
        assert next_at is not None
        self.now = max(self.now, next_at)
        self.perform(self.exchange.expire(self.now))

    @precondition(lambda self: self.numbers)
    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        self.feed(CancelCall(data.draw(st.integers(1, self.numbers), "call")))

    @rule()
    def withdraw(self) -> None:
        self.feed(Withdrawn(self.owner))

    @invariant()
    def every_call_is_where_something_moves_it_on(self) -> None:
        check_places(self.exchange, set(self.routes.values()))

    @invariant()
    def a_call_has_one_outcome(self) -> None:
        heard = [each.key for each in self.owner.heard]
        assert len(set(heard)) == len(heard)

    def teardown(self) -> None:
        """All peers are up and answer: no call is left."""
        for address in [*OWN, SLEEPER]:
            if address not in self.up:
                self.begin(address, is_reported=False)
        for address in LOCATED:
            self.locate(address, "b")
        ends_at = self.now + SETTLED_MS
        while True:
            while self.unanswered():
                assert self.sent[0].route in {self.routes.get(up.endpoint or "") for up in self.up.values()}
                self.answered(self.sent[0])
            next_at = self.exchange.timers.next_at()
            if next_at is None or next_at > ends_at:
                break
            self.wait()
        assert len(self.exchange) == 0


ActorsOfANode.TestCase.settings = examples(100, steps=50)
test_random_ends = ActorsOfANode.TestCase
