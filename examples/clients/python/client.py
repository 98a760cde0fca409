"""A thin client of Planaria on pyzmq alone: one DEALER socket, headers in JSON, CURVE.

    pip install pyzmq
    python client.py tcp://127.0.0.1:5570 shop.key ORDERS

Programs in Python rather use the package itself. This one shows the protocol with encryption, and is a model for other
languages whose ZeroMQ has CURVE. docs/protocol.md has the fields of all requests.

Each request has one of three outcomes: `Ok`, the broker has done it; `Fail`, it has not; `Unknown`, no answer before the
deadline, so it may have been done. A retriable `Fail` may be sent again; an `Unknown` only if a repetition does no harm.
"""

import json
import os
import stat
import sys
import time
import tomllib
from pathlib import Path
from typing import Any, NamedTuple

import zmq

FIRST_PAUSE_S = 0.05
LONGEST_PAUSE_S = 2.0


class Ok(NamedTuple):
    reply: dict[str, Any]


class Fail(NamedTuple):
    code: str
    message: str
    retriable: bool
    retry_after_ms: int = 0


class Unknown(NamedTuple):
    pass


Outcome = Ok | Fail | Unknown


def read_key_file(path: str) -> dict[str, str]:
    if stat.S_IMODE(os.stat(path).st_mode) & 0o077:
        raise SystemExit(f"{path}: others may read it; change that with chmod 600 {path}")
    return tomllib.loads(Path(path).read_text())


class Client:
    """For one thread. Connects in the background, and again after each interruption."""

    def __init__(self, url: str, key: str, client_id: str = "") -> None:
        """`key` is the path of a key file; empty for a broker without authentication."""
        self.url = url
        self._key = key
        self._leaders: dict[str, Client] = {}
        """Clients of other nodes of the cluster, by their endpoints."""
        self._context = zmq.Context()
        self._socket = self._context.socket(zmq.DEALER)
        self._socket.linger = 0
        if key:
            pair = read_key_file(key)
            self._socket.curve_serverkey = pair["server_key"].encode()
            self._socket.curve_publickey = pair["public_key"].encode()
            self._socket.curve_secretkey = pair["secret_key"].encode()
        self._socket.heartbeat_ivl = 10_000
        self._socket.connect(url)
        self._client_id = client_id
        self._last_id = 0

    def hello(self) -> Outcome:
        return self.repeated("hello", version=1, client_id=self._client_id)

    def ask(self, op: str, timeout_s: float = 10.0, **fields: Any) -> Outcome:
        """Send a request once."""
        self._last_id += 1
        self._send(op=op, id=self._last_id, **fields)
        ends = time.monotonic() + timeout_s
        while (left_s := ends - time.monotonic()) > 0 and self._socket.poll(int(left_s * 1000) + 1):
            reply = json.loads(self._socket.recv_multipart()[0])
            if reply.get("id") != self._last_id:
                continue  # the late answer to an earlier request
            if "error" not in reply:
                return Ok(reply)
            return failure(reply["error"])
        self._send(op="cancel", request_id=self._last_id)
        return Unknown()

    def repeated(self, op: str, total_s: float = 30.0, attempt_s: float = 10.0, **fields: Any) -> Outcome:
        """Send a request that does no harm when it is done twice, until its outcome is final, or time is over."""
        ends, pause_s = time.monotonic() + total_s, FIRST_PAUSE_S
        while True:
            outcome = self.ask(op, min(attempt_s, max(0.001, ends - time.monotonic())), **fields)
            is_final = isinstance(outcome, Ok) or (isinstance(outcome, Fail) and not outcome.retriable)
            if is_final or time.monotonic() >= ends:
                return outcome
            after_ms = outcome.retry_after_ms if isinstance(outcome, Fail) else 0
            time.sleep(after_ms / 1000 or pause_s)
            pause_s = min(2 * pause_s, LONGEST_PAUSE_S)

    def publish(self, topic: str, value: str, dedup_id: str, key: str | None = None) -> Outcome:
        """Publish one record. The dedup id makes a repetition harmless."""
        record = {"value_text": value, "key_text": key, "dedup_id": dedup_id}
        outcome = self.repeated("publish", topic=topic, records=[record])
        if not isinstance(outcome, Ok):
            return outcome
        [written] = outcome.reply["records"]
        return Ok(written) if written["error"] is None else failure(written["error"])

    def at_leader(self, topic: str, partition: int) -> "Client":
        """Return a client of the node that leads a partition, which saves the hop through another node.

        Any node takes any request, so this client serves as well: on one machine, or if that node cannot be reached.
        Ask again after a failure, because another node may lead.
        """
        found = self.ask("metadata", topics=[topic])
        if not isinstance(found, Ok) or not found.reply["topics"]:
            return self
        node = found.reply["topics"][0]["partitions"][partition].get("node")
        endpoints = {each["node"]: each["endpoint"] for each in found.reply.get("nodes", [])}
        if node not in endpoints:
            return self
        if endpoints[node] not in self._leaders:
            leader = Client(endpoints[node], self._key, self._client_id)
            if not isinstance(leader.ask("hello", 1.0, version=1, client_id=self._client_id), Ok):
                leader.close()
                return self
            self._leaders[leader.url] = leader
        return self._leaders[endpoints[node]]

    def close(self) -> None:
        for leader in self._leaders.values():
            leader.close()
        self._socket.close()
        self._context.term()

    def _send(self, **header: Any) -> None:
        self._socket.send(json.dumps(header).encode())


def failure(error: dict[str, Any]) -> Fail:
    return Fail(error["code"], error["message"], error["retriable"], error.get("retry_after_ms", 0))


def ok(outcome: Outcome) -> dict[str, Any]:
    if isinstance(outcome, Ok):
        return outcome.reply
    raise SystemExit(str(outcome))


def main(url: str, key: str, topic: str) -> None:
    client = Client(url, key, "python-example")
    print("hello", ok(client.hello()).get("principal", "-"))

    offset = ok(client.repeated("list_offsets", topic=topic, partition=0, at="latest"))["offset"]
    for dedup_id in ("python-1", "python-2", "python-2"):
        written = ok(client.publish(topic, f"order {dedup_id}", dedup_id, key="k"))
        print(f"published duplicate={str(written['duplicate']).lower()}")

    count = 0
    while count < 2:
        leader = client.at_leader(topic, 0)
        outcome = leader.ask("fetch", topic=topic, partition=0, offset=offset, max_wait_ms=5_000)
        if not isinstance(outcome, Ok):  # that node may have died: any other one knows the next leader
            outcome = client.repeated("fetch", topic=topic, partition=0, offset=offset, max_wait_ms=5_000)
        found = ok(outcome)
        for record in found["records"]:
            print("consumed", record["key_text"], record["value_text"])
            count += 1
        offset = found["next_offset"]

    refused = client.ask("delete_topic", topic="__offsets")
    if isinstance(refused, Fail):
        print(f"fail {refused.code} retriable={str(refused.retriable).lower()}")
    late = client.ask("fetch", 0.2, topic=topic, partition=0, offset=offset, max_wait_ms=30_000)
    print("unknown" if isinstance(late, Unknown) else "answered")
    client.close()


if __name__ == "__main__":
    main(*sys.argv[1:4])
