"""A node's identity is made once, and its options are checked together, one line each."""

from pathlib import Path
from typing import Any

import pytest

from planaria.supervisor.config import BrokerConfig, ConfigError, load
from planaria.supervisor.data_directory import DataDirectoryError
from planaria.supervisor.node import (
    NodeEndpoints,
    controller_arguments,
    endpoints_of,
    identity_in,
    require_one_machine,
)

NODE: dict[str, Any] = {
    "node": "n1",
    "cluster": "etcd://a:2379,b:2379/prod",
    "endpoint": "tcp://10.0.0.1:5570",
    "peer_endpoint": "tcp://10.0.0.1:5571",
}


def test_a_broker_on_one_machine_has_no_node() -> None:
    assert endpoints_of(BrokerConfig()) is None


def test_a_node_is_reached_at_its_endpoints_or_at_the_advertised_ones() -> None:
    assert endpoints_of(load(NODE)) == NodeEndpoints("tcp://10.0.0.1:5570", "tcp://10.0.0.1:5571")
    behind = {
        **NODE,
        "endpoint": "tcp://*:5570",
        "advertise": "tcp://n1.example:5570",
        "peer_endpoint": "tcp://0.0.0.0:5571",
        "advertise_peer": "tcp://n1.internal:5571",
    }
    assert endpoints_of(load(behind)) == NodeEndpoints("tcp://n1.example:5570", "tcp://n1.internal:5571")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"cluster": ""}, "node: give --cluster, too"),
        ({"node": ""}, "cluster: give --node, too"),
        ({"node": "a b"}, "node: 'a b' is not a valid name"),
        ({"peer_endpoint": ""}, "cluster: give --peer-endpoint, too"),
        ({"endpoint": "tcp://*:5570"}, "give --advertise with a host and a port"),
        ({"endpoint": "tcp://127.0.0.1:*"}, "give --advertise with a host and a port"),
        ({"peer_endpoint": "tcp://[::]:5571"}, "give --advertise-peer with a host and a port"),
        ({"cluster": "etcd://a:2379"}, "cluster: Expected etcd://HOST:PORT,HOST:PORT/NAME"),
        (
            {"node": "", "cluster": "", "peer_endpoint": "", "rack": "r1"},
            "rack: only for a node of a cluster",
        ),
    ],
)
def test_wrong_options_of_a_node_are_refused_in_one_line(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as refused:
        endpoints_of(load({**NODE, **changes}))
    assert message in str(refused.value)
    assert "\n" not in str(refused.value)


def test_the_identity_is_made_once(tmp_path: Path) -> None:
    config = load(NODE)
    first = identity_in(tmp_path, config)
    assert (first.node, first.cluster) == ("n1", "prod")
    assert identity_in(tmp_path, config) == first
    (tmp_path / "node.json").unlink()
    assert identity_in(tmp_path, config).data_id != first.data_id


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"node": "n2"}, "belongs to node 'n1', not 'n2': give --node n1, or another directory$"),
        (
            {"cluster": "etcd://a:2379/test"},
            "belongs to cluster 'prod', not 'test': give the URL of that one",
        ),
    ],
)
def test_a_directory_of_another_node_or_cluster_is_refused(
    tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    identity_in(tmp_path, load(NODE))
    with pytest.raises(DataDirectoryError, match=message):
        identity_in(tmp_path, load({**NODE, **changes}))


def test_a_damaged_identity_is_named(tmp_path: Path) -> None:
    (tmp_path / "node.json").write_text("{")
    with pytest.raises(DataDirectoryError, match=r"node\.json is damaged"):
        identity_in(tmp_path, load(NODE))


def test_the_controller_gets_the_identity_and_the_endpoints(tmp_path: Path) -> None:
    config = load(NODE)
    identity, endpoints = identity_in(tmp_path, config), endpoints_of(config)
    assert endpoints is not None
    arguments = controller_arguments(config, identity, endpoints)
    assert arguments["data_id"] == identity.data_id
    assert arguments["store"] == NODE["cluster"]


def test_a_directory_of_one_machine_is_not_taken_by_a_node(tmp_path: Path) -> None:
    (tmp_path / "catalog.json").write_text("{}")
    with pytest.raises(
        DataDirectoryError, match=r"belongs to a broker on one machine: give .* an empty directory, or run"
    ):
        identity_in(tmp_path, load(NODE))
    assert [each.name for each in tmp_path.iterdir()] == ["catalog.json"]


def test_a_directory_of_a_node_is_not_taken_by_a_broker_on_one_machine(tmp_path: Path) -> None:
    require_one_machine(tmp_path)
    identity_in(tmp_path, load(NODE))
    with pytest.raises(
        DataDirectoryError, match=r"belongs to a node of a cluster, .*: give --node and --cluster"
    ):
        require_one_machine(tmp_path)
