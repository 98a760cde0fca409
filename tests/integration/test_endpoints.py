"""Brokers on IPv6: clients find them, also after their gateway was killed."""

from pathlib import Path

import pytest

from planaria import Broker, Client

pytestmark = pytest.mark.processes


@pytest.mark.parametrize(("address", "hosts"), [("[::1]", ["[::1]"]), ("[::]", ["[::1]", "127.0.0.1"])])
def test_a_broker_listens_on_ipv6(data_dir: Path, address: str, hosts: list[str]) -> None:
    with Broker(data_dir, endpoint=f"tcp://{address}:*", insecure_public=True) as broker:
        broker.create_topic("T")
        for number, host in enumerate(hosts):
            with Client(f"tcp://{host}:{broker.endpoint.rsplit(':', 1)[1]}") as client:
                assert client.publish("T", number).offset == number
        assert broker.kill("gateway/0").incarnation == 1
        assert broker.client.publish("T", "after").offset == len(hosts)
