"""Endpoints: no two incarnations share one, and none exceeds the kernel's limit."""

import itertools
import queue
import re
import socket
from pathlib import Path

import pytest

from patience import TIMEOUT_S
from planaria.transport.calls.events import Resolved
from planaria.transport.client.probes import resolve
from planaria.transport.endpoints import (
    MAX_PATH_BYTES,
    PathTooLong,
    control_endpoint,
    endpoint_for,
    listed_endpoints,
    numeric_endpoint,
    peer_id,
)

RUN = "/tmp/planaria-1000-5d41402abc/7"


def test_names_can_be_read() -> None:
    assert endpoint_for(RUN, "partition/ORDERS/0", 3) == f"ipc://{RUN}/partition-ORDERS-0.3"
    assert control_endpoint(RUN) == f"ipc://{RUN}/supervisor"
    assert peer_id("partition/ORDERS/0", 3) == b"partition/ORDERS/0.3"


@pytest.mark.parametrize("length", [1, 50, 60, 61, 62, 63, 64, 65, 66, 200])
def test_paths_fit_whatever_the_name(length: int) -> None:
    path = endpoint_for(RUN, f"partition/{'x' * length}/0", 1).removeprefix("ipc://")
    assert len(path.encode()) <= MAX_PATH_BYTES
    assert path.startswith(RUN + "/")


def test_no_two_incarnations_share_a_path() -> None:
    names = ["A", "A-0", "A.1", "a", "x" * 200, "x" * 199 + "y"]
    addresses = [f"partition/{name}/{n}" for name in names for n in (0, 1, 10)]
    addresses += [f"coordinator/{name}" for name in names] + ["controller", "gateway/0", "console"]
    endpoints = [endpoint_for(RUN, address, n) for address, n in itertools.product(addresses, (1, 2, 11))]
    assert len(set(endpoints)) == len(endpoints)
    assert control_endpoint(RUN) not in endpoints


def test_the_longest_path_can_be_bound_and_a_longer_one_is_not_tried(run_dir: Path) -> None:
    longest = run_dir / ("d" * (MAX_PATH_BYTES - len(str(run_dir)) - 26))
    longest.mkdir()
    path = endpoint_for(str(longest), f"partition/{'x' * 200}/0", 1).removeprefix("ipc://")
    assert len(path) == MAX_PATH_BYTES
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
    with pytest.raises(PathTooLong, match="too long for sockets"):
        endpoint_for(f"{longest}d", f"partition/{'x' * 200}/0", 1)


def test_bytes_count_and_not_characters() -> None:
    path = endpoint_for(RUN, f"coordinator/{'ä' * 60}", 1).removeprefix("ipc://")
    assert len(path.encode()) <= MAX_PATH_BYTES


@pytest.mark.parametrize(
    ("endpoint", "expected"),
    [
        ("tcp://127.0.0.1:5570", "tcp://127.0.0.1:5570"),
        ("tcp://[::1]:5570", "tcp://[::1]:5570"),
        ("tcp://[FD00:0:0::2]:1", "tcp://[fd00::2]:1"),
        ("tcp://[::ffff:127.0.0.1]:1", "tcp://[::ffff:127.0.0.1]:1"),
        ("tcp://[fe80::1%eth0]:1", "tcp://[fe80::1%eth0]:1"),
        ("ipc:///run/x", "ipc:///run/x"),
        ("tcp://localhost:5570", None),
        ("tcp://10.0.0.256:1", None),
    ],
)
def test_addresses_are_spelled_as_the_monitor_spells_them_and_names_are_told(
    endpoint: str, expected: str | None
) -> None:
    assert numeric_endpoint(endpoint) == expected


def test_an_address_of_one_link_keeps_its_interface(monkeypatch: pytest.MonkeyPatch) -> None:
    link_local = (socket.AF_INET6, socket.SOCK_STREAM, 6, "", ("fe80::1", 1, 0, 1))
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: [link_local])
    told = queue.Queue[Resolved]()
    resolve("tcp://broker.test:1", told.put)
    assert told.get(timeout=TIMEOUT_S).endpoints == (f"tcp://[fe80::1%{socket.if_indextoname(1)}]:1",)


@pytest.mark.parametrize(
    ("given", "listed"),
    [
        ("tcp://a:1", ("tcp://a:1",)),
        ("tcp://a:1,b:2,[::1]:3", ("tcp://a:1", "tcp://b:2", "tcp://[::1]:3")),
        ("tcp://a:1,tcp://b:2,tcp://a:1", ("tcp://a:1", "tcp://b:2")),
        (["tcp://a:1", "tcp://b:2"], ("tcp://a:1", "tcp://b:2")),
        (("tcp://a:1",), ("tcp://a:1",)),
    ],
)
def test_one_endpoint_or_several_in_a_string_or_a_list(given: object, listed: tuple[str, ...]) -> None:
    assert listed_endpoints(given) == listed


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ("", "''"),
        ("a:1", "'a:1'"),
        ("tcp://a:1,", "'tcp://'"),
        ("tcp://a:1,b", "'tcp://b'"),
        ("tcp://a:1,ipc://b", "'ipc://b'"),
        (["tcp://a:1", "b:2"], "'b:2'"),
        ([], "there is none"),
        (5570, "5570"),
        (None, "None"),
        ([None], "None"),
    ],
)
def test_a_malformed_endpoint_among_others_is_named(given: object, named: str) -> None:
    with pytest.raises(ValueError, match=re.escape(named)):
        listed_endpoints(given)
