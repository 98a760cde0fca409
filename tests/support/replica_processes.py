"""Three replicas of one partition as real processes, with the test as their supervisor and their controller.

Each is an actor of its own address in one run directory, which stands for the links: so followers reach their leader at
its local endpoint first, and at its endpoint for other nodes then.
"""

import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import msgspec
import zmq

from labelled_folders import label_partition
from partition_process import PROGRAM, SECRET
from patience import TIMEOUT_S
from planaria.transport.actor import ActorContext
from planaria.transport.addresses import Address, as_text, from_text, partition_address
from planaria.transport.codec import decode_reply, encode_header
from planaria.transport.endpoints import control_endpoint
from planaria.transport.protocol.control import Heartbeat, PeerDown, PeerUp, Ready, Watch
from planaria.transport.protocol.message import InternalRequest, Reply, Request
from planaria.transport.protocol.replication import Follow, Lead, Member, RoleReply
from planaria.transport.protocol.topics import TopicConfig
from planaria.transport.request_context import ContextFrames
from planaria.transport.security.key_files import new_key_pair, write_key_file
from warm_start import WarmPopen

NODES = ("a", "b", "c")


class ReplicaProcesses:
    def __init__(self, data_directory: Path, run_directory: Path, config: TopicConfig | None = None) -> None:
        self.config = config or TopicConfig()
        self.data_directory = data_directory
        self.run_directory = run_directory
        self.zmq = zmq.Context()
        self.control = self.zmq.socket(zmq.ROUTER)
        self.control.linger = 0
        self.control.bind(control_endpoint(str(run_directory)))
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        self.incarnations = dict.fromkeys(NODES, 0)
        self.up: dict[Address, PeerUp] = {}
        self.clients: dict[str, zmq.Socket[bytes]] = {}
        self._watchers: set[bytes] = set()
        self.peer_keys = new_key_pair()
        self._keys_file = data_directory / "peers.key"
        self._keys_file.parent.mkdir(parents=True, exist_ok=True)
        write_key_file(self._keys_file, self.peer_keys, "the nodes of a cluster")
        decoder = msgspec.msgpack.Decoder(Ready | Heartbeat | Watch, dec_hook=from_text)
        self._decode = decoder.decode
        for node in NODES:
            label_partition(self.directory(node))

    def directory(self, node: str) -> Path:
        return self.data_directory / node / "topics" / "ORDERS" / "0"

    # -- the supervisor

    def start(self, *nodes: str) -> None:
        for node in nodes:
            self.incarnations[node] += 1
            context = ActorContext(
                address=partition_address(node, 0),
                incarnation=self.incarnations[node],
                arguments={
                    "topic": "ORDERS",
                    "partition": 0,
                    "topic_id": "t1",
                    "config": msgspec.to_builtins(self.config),
                    "directory": str(self.directory(node)),
                    "leadership": "given",
                    "node": node,
                    "data_id": f"{node}1",
                    "peer_endpoint": "tcp://127.0.0.1:*",
                    "peer_host": "127.0.0.1",
                    "peer_keys": str(self._keys_file),
                },
                run_directory=str(self.run_directory),
                data_directory=str(self.data_directory / node),
                control_endpoint=control_endpoint(str(self.run_directory)),
                instance_id="i1",
                secret=SECRET,
                directory=(),
            )
            argument = msgspec.json.encode(context, enc_hook=as_text)
            self.processes[node] = WarmPopen([sys.executable, "-c", PROGRAM, argument])
        self.until(lambda: all(partition_address(node, 0) in self.up for node in nodes))

    def kill(self, node: str) -> None:
        process = self.processes.pop(node)
        process.kill()
        process.wait()
        address = partition_address(node, 0)
        del self.up[address]
        self.clients.pop(node).close(linger=0)
        down = PeerDown(address=address, incarnation=self.incarnations[node], reason="killed")
        for watcher in self._watchers:
            self.control.send_multipart([watcher, encode_header(down)])

    def until(self, is_done: Callable[[], bool]) -> None:
        """Serve the control socket until the condition holds."""
        ends_at = time.monotonic() + TIMEOUT_S
        while not is_done():
            assert time.monotonic() < ends_at, "it does not happen"
            self.serve(20)

    def serve(self, timeout_ms: int = 0) -> None:
        while self.control.poll(timeout_ms):
            timeout_ms = 0
            sender, header = self.control.recv_multipart()[:2]
            message = self._decode(header)
            if isinstance(message, Watch):
                self._watchers.add(sender)
                found = self.up.get(message.peer)
                self.control.send_multipart([sender, encode_header(found or _down(message.peer))])
            elif isinstance(message, Ready):
                self._on_ready(message)

    def _on_ready(self, message: Ready) -> None:
        up = PeerUp(address=message.address, incarnation=message.incarnation, endpoint=message.endpoint)
        self.up[message.address] = up
        client = self.clients[message.address.name] = self.zmq.socket(zmq.DEALER)
        client.linger = 0
        assert message.endpoint is not None
        client.connect(message.endpoint)
        for watcher in self._watchers:
            self.control.send_multipart([watcher, encode_header(up)])

    # -- requests

    def send(self, node: str, request: Request, payload: Sequence[Any] = ()) -> None:
        context = [ContextFrames(SECRET).own] if isinstance(request, InternalRequest) else []
        self.clients[node].send_multipart([*context, encode_header(request), *payload])

    def receive(self, node: str, reply_type: type[Reply]) -> tuple[Any, list[bytes]]:
        self.until(lambda: bool(self.clients[node].poll(1)))
        header, *payload = self.clients[node].recv_multipart()
        return decode_reply(header, reply_type), payload

    def ask(
        self, node: str, request: Request, reply_type: type[Reply], payload: Sequence[Any] = ()
    ) -> tuple[Any, list[bytes]]:
        self.send(node, request, payload)
        return self.receive(node, reply_type)

    # -- the controller

    def assign(self, leader: str, leader_epoch: int, in_sync: str, *nodes: str) -> None:
        """Give these nodes their roles."""
        for node in nodes:
            common: dict[str, Any] = {
                "topic": "ORDERS",
                "topic_id": "t1",
                "partition": 0,
                "revision": leader_epoch,
            }
            request: Request = Follow(
                **common, leader_epoch=leader_epoch, leader=leader, address=partition_address(leader, 0)
            )
            if node == leader:
                request = Lead(
                    **common,
                    leader_epoch=leader_epoch,
                    replicas={each: f"{each}1" for each in NODES},
                    in_sync=tuple(Member(each, f"{each}1") for each in in_sync),
                    min_in_sync_replicas=2,
                    trusted_until_ms=2**52,  # its node's session does not end
                )
            reply, _ = self.ask(node, request, RoleReply)
            assert reply.role == ("leader" if node == leader else "follower"), reply

    def close(self) -> None:
        for process in self.processes.values():
            process.kill()
            process.wait()
        for client in self.clients.values():
            client.close(linger=0)
        self.control.close()
        self.zmq.term()

    def __enter__(self) -> "ReplicaProcesses":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _down(address: Address) -> PeerDown:
    return PeerDown(address=address, incarnation=0, reason="not started")
