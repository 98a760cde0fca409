"""Ports for programs that start later."""

import socket
import subprocess
import sys

import pytest

from planaria.supervisor import free_ports as ports


def test_a_port_belongs_to_one_process_until_that_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    [port] = ports.free_ports(1)
    monkeypatch.setattr(ports, "PORTS", [port])
    ask = (
        "import sys\n"
        "from planaria.supervisor import free_ports as ports\n"
        "ports.PORTS = [int(sys.argv[1]), *range(40_000, 40_100)]\n"
        "print(*ports.free_ports(50))"
    )
    done = subprocess.run([sys.executable, "-c", ask, str(port)], capture_output=True, text=True, check=True)
    others = [int(each) for each in done.stdout.split()]
    assert len(set(others)) == 50
    assert port not in others
    monkeypatch.setattr(ports, "PORTS", others)
    assert ports.free_ports(1)[0] in others, "the other process has ended"


def test_a_port_with_a_listener_is_not_free(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server((ports.LOOPBACK, 0)) as server:
        monkeypatch.setattr(ports, "PORTS", [server.getsockname()[1], *range(40_200, 40_300)])
        assert server.getsockname()[1] not in ports.free_ports(50)
