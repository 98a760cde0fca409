"""The exchange of a client, with a manual network, resolver and clock."""

from typing import Any

from msgspec import UNSET, UnsetType

from planaria.transport.addresses import GATEWAY, Address
from planaria.transport.calls.events import (
    Arrived,
    CheckLocality,
    CheckSilence,
    Connect,
    Deliver,
    Disconnect,
    LocalityKnown,
    ReadGreeting,
    Resolve,
    Send,
    SilenceMeasured,
    Submitted,
    Wanted,
)
from planaria.transport.calls.exchange import Exchange
from planaria.transport.calls.retry import RetryPolicy
from planaria.transport.client.broker_directory import BrokerDirectory
from planaria.transport.codec import encode_header
from planaria.transport.machine import Call
from planaria.transport.protocol.data import ListOffsets, ListOffsetsReply
from planaria.transport.protocol.errors import RETRIABLE, ErrorBody, ErrorCode
from planaria.transport.protocol.groups import CommitOffsets, CommitOffsetsReply
from planaria.transport.protocol.message import ErrorReply, Reply, Request
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
from planaria.transport.protocol.topics import ListTopics, ListTopicsReply

DOOR = "tcp://127.0.0.1:1"
RETRIED: dict[str, Any] = {"is_retried": True, "timeout_ms": 30_000}
COMMIT = CommitOffsets(group="g", offsets=[])
OFFSETS = ListOffsets(topic="T", partition=0, at="latest")


class Owner:
    def __init__(self) -> None:
        self.heard: list[Any] = []

    def handle(self, event: Any, now: int) -> list[Any]:
        self.heard.append(event)
        return []


class Wire:
    """The network, under manual control."""

    def __init__(self, is_local: bool = True, *doors: str) -> None:
        retry = RetryPolicy()
        directory = BrokerDirectory(
            doors or (DOOR,), client_id="", metadata_timeout_ms=100, retry=retry, jitter=lambda: 0.0
        )
        self.topics = directory.topics
        self.exchange = Exchange(directory, retry=retry, jitter=lambda: 0.0)
        self.is_local = is_local
        self.silence_ms: int | None = None
        self.now = 0
        self.sent: list[Send] = []
        self.routes: dict[str, bytes] = {}
        self.lookups: list[str] = []
        self.read_greetings: list[str] = []
        self.owner = Owner()
        self.perform(self.exchange.start(0))

    def feed(self, event: Any) -> None:
        self.perform(self.exchange.handle(event, self.now))

    def perform(self, effects: list[Any]) -> None:
        for effect in effects:
            match effect:
                case Send():
                    assert effect.route in self.routes.values(), (
                        "nothing is sent on a connection that is gone"
                    )
                    self.sent.append(effect)
                case Connect(route=route, endpoint=endpoint):
                    assert route not in self.routes.values(), "a route is never used twice"
                    self.routes[endpoint] = route
                case Disconnect(endpoint=endpoint):
                    assert self.routes.pop(endpoint)
                case Deliver(owner=owner, event=event):
                    owner.handle(event, self.now)
                case CheckLocality(instance_id=instance_id):
                    self.feed(LocalityKnown(instance_id, self.is_local))
                case Resolve(endpoint=endpoint):
                    self.lookups.append(endpoint)
                case ReadGreeting(endpoint=endpoint):
                    self.read_greetings.append(endpoint)
                case CheckSilence(endpoint=endpoint):
                    if self.silence_ms is not None:
                        self.feed(SilenceMeasured(endpoint, self.silence_ms))

    @property
    def timers(self) -> dict[Any, int]:
        """The times of the running timers by key. The key of a call's deadline is its serial number."""
        timers = self.exchange.timers
        return {key: at for at, turn, key in timers._heap if timers._current.get(key) == turn}

    def serial(self, **fields: Any) -> int:
        """Return the serial number of the one pending call whose key or attempt is given: the key of its deadline."""
        ((name, value),) = fields.items()
        found = [
            pending.serial
            for pending in self.exchange._pending.values()
            if getattr(pending.call if name == "key" else pending, name) == value
        ]
        assert len(found) == 1
        return found[0]

    def timer(self, kind: str) -> Any:
        """Return the key of the one running timer of this kind."""
        (key,) = [key for key in self.timers if isinstance(key, tuple) and key[0] == kind]
        return key

    def take(self, kind: type) -> list[Send]:
        """Take the requests of this kind that were sent, once."""
        found = [send for send in self.sent if isinstance(send.request, kind)]
        self.sent = [send for send in self.sent if not isinstance(send.request, kind)]
        return found

    def answer(self, send: Send, reply: Reply) -> None:
        reply.id = send.attempt
        self.feed(Arrived(send.route, (), encode_header(reply)))

    def refuse(self, send: Send, code: ErrorCode) -> None:
        self.answer(send, ErrorReply(error=ErrorBody(code, "no", code in RETRIABLE)))

    def greet(self, instance_id: str = "i", **more: Any) -> None:
        (hello,) = self.take(Hello)
        self.answer(
            hello, HelloReply(version=1, server="s", instance_id=instance_id, run_directory="/r", **more)
        )

    def directory(
        self, send: Send, version: int, incarnation: int = 1, online: bool = True, known: bool = True
    ) -> None:
        partition = PartitionMetadata(
            partition=0,
            online=online,
            incarnation=incarnation,
            endpoint=f"ipc://T.{incarnation}" if online else None,
        )
        topic = TopicMetadata(topic="T", topic_id="T", max_message_bytes=1, partitions=[partition])
        self.answer(
            send,
            MetadataReply(
                version=version,
                instance_id="i",
                topics=[topic] if known else [],
                unknown_topics=[] if known else ["T"],
            ),
        )

    def ask(self, key: str = "k", **options: Any) -> None:
        options = RETRIED | options
        self.feed(
            Submitted(
                self.owner, Call(key, Address.parse("partition/T/0"), OFFSETS, ListOffsetsReply, **options)
            )
        )

    def ask_gateway(self, key: str = "k", **options: Any) -> None:
        options = RETRIED | options
        self.feed(Submitted(self.owner, Call(key, GATEWAY, ListTopics(), ListTopicsReply, **options)))

    def ask_group(
        self,
        request: Request = COMMIT,
        reply_type: type[Reply] = CommitOffsetsReply,
    ) -> None:
        self.feed(
            Submitted(self.owner, Call("k", Address.parse("coordinator/g"), request, reply_type, **RETRIED))
        )

    def name_coordinator(
        self,
        metadata: Send,
        endpoint: str | None,
        node: str | UnsetType = UNSET,
        nodes: list[Node] | UnsetType = UNSET,
    ) -> None:
        group = GroupMetadata(group="g", endpoint=endpoint, node=node)
        self.answer(
            metadata, MetadataReply(version=1, instance_id="i", topics=[], groups=[group], nodes=nodes)
        )

    def fire(self, key: Any) -> None:
        self.now = max(self.now, self.timers[key])
        self.exchange.timers.cancel(key)
        self.perform(self.exchange.on_timer(key, self.now))

    def settled(self) -> "Wire":
        """Connect and greet, with the partition online in its first incarnation."""
        self.greet()
        self.feed(Wanted("T"))
        (metadata,) = self.take(Metadata)
        self.directory(metadata, 1)
        return self
