"""A broker in a thread, in memory: enough of the protocol for the client's tests, and faults on demand.

Everything runs in one thread with its own sockets; tests call `broker.do(...)`, which runs a function there and
waits for it, so a test never sees a half-done step.
"""

import os
import threading
from collections import defaultdict
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import zmq

from model_partition import ModelPartition
from patience import TIMEOUT_S
from planaria.transport.clock import Clock
from planaria.transport.codec import RequestDecoder, encode_header, split_envelope
from planaria.transport.protocol import data, groups, operations, session, topics
from planaria.transport.protocol.errors import RETRIABLE, ErrorBody, ErrorCode
from planaria.transport.protocol.message import Done, ErrorReply, Reply, Request
from planaria.transport.sockets import end_context, server_socket

REQUESTS = (
    session.Hello, session.Metadata, session.Cancel, topics.CreateTopic, topics.DeleteTopic, topics.DescribeTopic,
    data.InitProducer,
    data.Produce, data.Fetch, data.ListOffsets, groups.GroupHeartbeat, groups.CommitOffsets, groups.FetchOffsets,
    groups.LeaveGroup, groups.ListGroups, operations.Status, operations.Kill,
)  # fmt: skip

BIND_ATTEMPTS = 500


class Refusal(Exception):
    def __init__(self, code: ErrorCode, message: str = "refused by the fake broker") -> None:
        self.body = ErrorBody(code, message, code in RETRIABLE)


class Later(Exception):
    """Park the request; it is retried after every other one, until `give_up_ms`."""

    def __init__(self, otherwise: Callable[[], Any], wait_ms: int) -> None:
        self.otherwise = otherwise
        self.wait_ms = wait_ms


class FakeBroker:
    def __init__(self, endpoint: str, run_directory: Path | None = None) -> None:
        self.endpoint = endpoint
        self.run_directory = run_directory
        self.instance_id = "instance-1"
        self.version = 1
        self.members_by_name: dict[str, str] = {}
        """Members get the ids `member-1` and so on, whatever name they send when they join."""
        self.partitions: dict[tuple[str, int], ModelPartition] = {}
        self.counts: dict[str, int] = {}
        self.configs: dict[str, topics.TopicConfig] = {}
        self.incarnations: dict[tuple[str, int], int] = defaultdict(lambda: 1)
        self.offline: set[tuple[str, int]] = set()
        self.offsets: dict[tuple[str, str, int], int] = {}
        self.members: dict[str, dict[str, Any]] = {}
        self.generation = 1
        self.targets: dict[str, dict[str, list[int]]] = {}
        self.seen: list[Request] = []
        self.doors: list[str] = []
        self.faults: list[tuple[str, Any]] = []
        """(op, ErrorCode | "swallow" | "answer lost"), each used once, by the first request of that op."""
        self._producer_ids = iter(range(1_000, 10**9))
        self._decode = RequestDecoder(REQUESTS).decode
        self._clock = Clock()
        self._context = zmq.Context()
        self._sockets: dict[str, zmq.Socket[bytes]] = {}
        self._parked: list[tuple[Any, ...]] = []
        self._jobs: SimpleQueue[tuple[Callable[[], Any], SimpleQueue[Any]]] = SimpleQueue()
        self._reader, self._writer = os.pipe()
        self._is_stopping = False
        self._thread = threading.Thread(target=self._run, name="fake-broker", daemon=True)
        if run_directory is not None:
            (run_directory / "instance").write_text(self.instance_id)

    def __enter__(self) -> "FakeBroker":
        self._thread.start()
        self.do(lambda: self._open("gateway", self.endpoint))
        return self

    def __exit__(self, *_: object) -> None:
        self._is_stopping = True
        os.write(self._writer, b"\0")
        self._thread.join()
        os.close(self._reader)
        os.close(self._writer)

    # For tests.

    def do(self, job: Callable[[], Any]) -> Any:
        result: SimpleQueue[Any] = SimpleQueue()
        self._jobs.put((job, result))
        os.write(self._writer, b"\0")
        outcome = result.get(timeout=TIMEOUT_S)
        if isinstance(outcome, BaseException):
            raise outcome
        return outcome

    def create_topic(self, topic: str, partitions: int = 1) -> None:
        self.do(lambda: self._create(topic, partitions, topics.TopicConfig()))

    def add_partition(self, topic: str) -> None:
        self.do(lambda: self._add_partition(topic))

    def kill_gateway(self) -> None:
        self.do(lambda: self._close("gateway"))

    def start_gateway(self) -> None:
        self.do(lambda: self._open("gateway", self.endpoint))

    def kill_partition(self, topic: str, partition: int) -> None:
        """Close its sockets at once; the directory is notified."""

        def job() -> None:
            self.offline.add((topic, partition))
            self._close(self._door(topic, partition))
            self.version += 1

        self.do(job)

    def start_partition(self, topic: str, partition: int) -> None:
        def job() -> None:
            self.incarnations[topic, partition] += 1
            self.offline.discard((topic, partition))
            self._open_partition(topic, partition)
            self.version += 1

        self.do(job)

    def fault(self, op: str, kind: Any, times: int = 1) -> None:
        self.do(lambda: self.faults.extend([(op, kind)] * times))

    def assign(self, member_id: str, assignment: dict[str, list[int]]) -> None:
        def job() -> None:
            self.generation += 1
            self.targets[member_id] = assignment

        self.do(job)

    def count(self, op: str) -> int:
        return sum(request.__struct_config__.tag == op for request in list(self.seen))

    # The thread.

    def _run(self) -> None:
        while not self._is_stopping:
            poller = zmq.Poller()
            poller.register(self._reader, zmq.POLLIN)
            names = {}
            for name, sock in self._sockets.items():
                poller.register(sock, zmq.POLLIN)
                names[sock] = name
            deadlines = [item[-1] for item in self._parked]
            timeout = max(0, min(deadlines) - self._clock.now_ms()) if deadlines else None
            for ready, _ in poller.poll(timeout):
                if ready == self._reader:
                    os.read(self._reader, 4096)
                elif names[ready] in self._sockets and self._sockets[names[ready]] is ready:
                    self._serve(names[ready])
            while not self._jobs.empty():
                job, result = self._jobs.get()
                try:
                    result.put(job())
                except Exception as error:  # noqa: BLE001 - raised in the test
                    result.put(error)
            self._serve_parked()
        for name in list(self._sockets):
            self._close(name)
        end_context(self._context)

    def _open(self, name: str, endpoint: str) -> None:
        for attempt in range(BIND_ATTEMPTS):
            try:
                self._sockets[name] = server_socket(self._context, endpoint)
                return
            except zmq.ZMQError as error:
                # ZeroMQ closes the last one asynchronously.
                if error.errno != zmq.EADDRINUSE or attempt == BIND_ATTEMPTS - 1:
                    raise
                threading.Event().wait(0.01)

    def _close(self, name: str) -> None:
        sock = self._sockets.pop(name, None)
        if sock is not None:
            endpoint = sock.getsockopt(zmq.LAST_ENDPOINT).rstrip(b"\0").decode()
            sock.unbind(endpoint)
            sock.close(0)
        self._parked = [item for item in self._parked if item[0] != name]

    def _door(self, topic: str, partition: int) -> str:
        return f"{topic}-{partition}"

    def _endpoint(self, topic: str, partition: int) -> str | None:
        if self.run_directory is None:
            return None
        return f"ipc://{self.run_directory}/{topic}-{partition}.{self.incarnations[topic, partition]}"

    def _open_partition(self, topic: str, partition: int) -> None:
        endpoint = self._endpoint(topic, partition)
        if endpoint is not None:
            self._open(self._door(topic, partition), endpoint)

    def _create(self, topic: str, partitions: int, config: topics.TopicConfig) -> None:
        self.counts[topic] = 0
        self.configs[topic] = config
        for _ in range(partitions):
            self._add_partition(topic)

    def _add_partition(self, topic: str) -> None:
        partition = self.counts[topic]
        self.counts[topic] += 1
        self.partitions.setdefault((topic, partition), ModelPartition())
        self._open_partition(topic, partition)
        self.version += 1

    def _serve(self, name: str) -> None:
        try:
            frames = self._sockets[name].recv_multipart(zmq.NOBLOCK)
        except zmq.Again:
            return  # the sender was lost between the poll and now
        _, header, payload = split_envelope(frames[1:])
        request = self._decode(header)
        if isinstance(request, session.Cancel):
            return
        self.seen.append(request)
        self.doors.append(name)
        op = request.__struct_config__.tag
        for index, (faulty, kind) in enumerate(self.faults):
            if faulty == op:
                del self.faults[index]
                self._serve_badly(name, frames[0], request, payload, kind)
                return
        self._answer(name, frames[0], request, payload, None)

    def _serve_badly(self, name: str, route: bytes, request: Request, payload: Any, kind: Any) -> None:
        if kind == "answer lost":
            self._handle(request, payload)
        elif kind != "swallow":
            self._send(name, route, request, ErrorReply(error=Refusal(kind).body))

    def _serve_parked(self) -> None:
        parked, self._parked = self._parked, []
        for name, route, request, payload, deadline in parked:
            self._answer(name, route, request, payload, deadline)

    def _answer(self, name: str, route: bytes, request: Request, payload: Any, deadline: int | None) -> None:
        try:
            reply, frames = self._handle(request, payload)
        except Refusal as refusal:
            reply, frames = ErrorReply(error=refusal.body), []
        except Later as later:
            deadline = deadline or self._clock.now_ms() + later.wait_ms
            if self._clock.now_ms() < deadline:
                self._parked.append((name, route, request, payload, deadline))
                return
            reply, frames = later.otherwise()
        if not (isinstance(request, data.Produce) and request.acks == 0):
            self._send(name, route, request, reply, frames)

    def _send(self, name: str, route: bytes, request: Request, reply: Reply, frames: Any = ()) -> None:
        reply.id = request.id
        with suppress(zmq.ZMQError):  # the requester has gone
            self._sockets[name].send_multipart([route, encode_header(reply), *frames], zmq.NOBLOCK)

    # Requests.

    def _handle(self, request: Request, payload: Any) -> tuple[Reply, list[bytes]]:
        outcome = getattr(self, f"on_{request.__struct_config__.tag}")(request, payload)
        return outcome if isinstance(outcome, tuple) else (outcome, [])

    def _partition(self, request: Any) -> ModelPartition:
        key = (request.topic, request.partition)
        if key not in self.partitions:
            raise Refusal(ErrorCode.UNKNOWN_TOPIC)
        if key in self.offline:
            raise Refusal(ErrorCode.PARTITION_OFFLINE)
        return self.partitions[key]

    def on_hello(self, request: session.Hello, _: Any) -> Reply:
        return session.HelloReply(
            version=1,
            server="fake",
            instance_id=self.instance_id,
            run_directory=str(self.run_directory or "/nowhere"),
        )

    def on_metadata(self, request: session.Metadata, _: Any) -> Reply:
        def reply() -> tuple[Reply, list[bytes]]:
            asked = request.topics if request.topics is not None else list(self.counts)
            found = [self._describe(topic) for topic in asked if topic in self.counts]
            unknown = [topic for topic in asked if topic not in self.counts]
            return session.MetadataReply(
                version=self.version, instance_id=self.instance_id, topics=found, unknown_topics=unknown
            ), []

        if request.after_version is not None and request.after_version >= self.version:
            raise Later(reply, request.max_wait_ms)
        return reply()[0]

    def _describe(self, topic: str) -> session.TopicMetadata:
        return session.TopicMetadata(
            topic=topic,
            topic_id=topic,
            max_message_bytes=1024 * 1024,
            partitions=[
                session.PartitionMetadata(
                    partition=partition,
                    online=(topic, partition) not in self.offline,
                    incarnation=self.incarnations[topic, partition],
                    endpoint=None if (topic, partition) in self.offline else self._endpoint(topic, partition),
                )
                for partition in range(self.counts[topic])
            ],
        )

    def on_create_topic(self, request: topics.CreateTopic, _: Any) -> Reply:
        if request.topic in self.counts:
            if not request.if_not_exists:
                raise Refusal(ErrorCode.TOPIC_EXISTS)
        else:
            self._create(request.topic, request.partitions, topics.TopicConfig())
        return self.on_describe_topic(topics.DescribeTopic(topic=request.topic), None)

    def on_delete_topic(self, request: topics.DeleteTopic, _: Any) -> Reply:
        if self.counts.pop(request.topic, None) is None:
            raise Refusal(ErrorCode.UNKNOWN_TOPIC)
        self.version += 1
        return Done()

    def on_describe_topic(self, request: topics.DescribeTopic, _: Any) -> Reply:
        if request.topic not in self.counts:
            raise Refusal(ErrorCode.UNKNOWN_TOPIC)
        return topics.DescribeTopicReply(
            topic=request.topic,
            topic_id=request.topic,
            config=self.configs[request.topic],
            partitions=[
                topics.PartitionDescription(partition=number, online=True)
                for number in range(self.counts[request.topic])
            ],
        )

    def on_init_producer(self, request: data.InitProducer, _: Any) -> Reply:
        return data.InitProducerReply(producer_id=next(self._producer_ids), producer_epoch=0)

    def on_produce(self, request: data.Produce, payload: Any) -> Reply:
        partition = self._partition(request)
        done = [partition.produce(bytes(frame)) for frame in payload]
        return data.ProduceReply(batches=done, high_watermark=partition.end_offset)

    def on_fetch(self, request: data.Fetch, _: Any) -> Any:
        partition = self._partition(request)
        if not partition.log_start_offset <= request.offset <= partition.end_offset:
            raise Refusal(ErrorCode.OFFSET_OUT_OF_RANGE)

        def reply() -> tuple[Reply, list[bytes]]:
            frames, next_offset = partition.read(request.offset, request.max_bytes)
            return data.FetchReply(
                topic=request.topic,
                partition=request.partition,
                log_start_offset=partition.log_start_offset,
                high_watermark=partition.end_offset,
                next_offset=next_offset,
            ), frames

        if request.offset >= partition.end_offset and request.max_wait_ms:
            raise Later(reply, request.max_wait_ms)
        return reply()

    def on_list_offsets(self, request: data.ListOffsets, _: Any) -> Reply:
        partition = self._partition(request)
        if request.at == "earliest":
            return data.ListOffsetsReply(offset=partition.log_start_offset)
        if request.at == "latest":
            return data.ListOffsetsReply(offset=partition.end_offset)
        for header, _frame in partition.batches:
            if header.max_timestamp_ms >= request.at:
                return data.ListOffsetsReply(offset=header.base_offset, timestamp_ms=header.max_timestamp_ms)
        return data.ListOffsetsReply(offset=-1)

    # Groups: the test decides the assignment, by `assign`.

    def on_group_heartbeat(self, request: groups.GroupHeartbeat, _: Any) -> Reply:
        member_id = self.members_by_name.get(request.member_id or "", request.member_id)
        is_joining = request.generation == 0 and request.topics is not None
        if is_joining and member_id not in self.members:
            member_id = f"member-{len(self.members) + 1}"
            everything = {
                topic: list(range(self.counts[topic]))
                for topic in request.topics or []
                if topic in self.counts
            }
            self.members[member_id] = {"owned": {}}
            self.targets.setdefault(member_id, everything)
            self.members_by_name[request.member_id or member_id] = member_id
        elif member_id not in self.members:
            raise Refusal(ErrorCode.UNKNOWN_MEMBER)
        assert member_id is not None
        if request.owned is not None:
            self.members[member_id]["owned"] = request.owned

        def reply() -> tuple[Reply, list[bytes]]:
            return groups.GroupHeartbeatReply(
                member_id=member_id,
                generation=self.generation,
                assignment=self.targets[member_id],
                heartbeat_interval_ms=100,
            ), []

        is_settled = request.generation == self.generation
        if is_settled:
            raise Later(reply, request.max_wait_ms)
        return reply()[0]

    def on_commit_offsets(self, request: groups.CommitOffsets, _: Any) -> Reply:
        if request.member_id is not None and request.member_id not in self.members:
            raise Refusal(ErrorCode.UNKNOWN_MEMBER)
        for item in request.offsets:
            self.offsets[request.group, item.topic, item.partition] = item.offset
        return groups.CommitOffsetsReply()

    def on_fetch_offsets(self, request: groups.FetchOffsets, _: Any) -> Reply:
        return groups.FetchOffsetsReply(
            offsets=[
                groups.PartitionOffset(topic, partition, offset)
                for (group, topic, partition), offset in self.offsets.items()
                if group == request.group
                and (request.partitions is None or partition in request.partitions.get(topic, ()))
            ]
        )

    def on_leave_group(self, request: groups.LeaveGroup, _: Any) -> Reply:
        self.members.pop(request.member_id, None)
        return Done()

    def on_list_groups(self, request: groups.ListGroups, _: Any) -> Reply:
        return groups.ListGroupsReply(groups=sorted({group for group, _t, _p in self.offsets}))

    def on_status(self, request: operations.Status, _: Any) -> Reply:
        gateway = operations.ActorStatus(
            address="gateway/0", pid=1, incarnation=3, restarts=2, state="ready", uptime_ms=1, memory_bytes=0
        )
        return operations.StatusReply(
            supervisor_pid=1,
            instance_id=self.instance_id,
            data_directory="",
            endpoint=self.endpoint,
            uptime_ms=1,
            actors=[gateway],
        )
