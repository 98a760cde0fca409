"""The identity of a node of a cluster: its name, and the id of its data directory, made once and kept in it.

    node.json   {"node", "data_id", "cluster"}

A directory belongs to one node of one cluster. A node that comes back with an empty directory has another `data_id`, by
which the cluster knows that its copies are gone. Read by __main__.py before anything is started.
"""

import os
import uuid
from pathlib import Path
from typing import Any

import msgspec

from ..transport import patterns
from ..transport.security.key_files import KeyFileError, read_key_file
from .config import BrokerConfig, ConfigError
from .data_directory import DataDirectoryError, replace_file

NODE_FILE = "node.json"
ONE_MACHINE_FILE = "catalog.json"
"""The catalog of a broker on one machine; a cluster's is in its metadata store."""
CLUSTER_SETTINGS = (
    *("advertise", "peer_endpoint", "advertise_peer", "peer_keys"),
    *("etcd_ca", "etcd_certificate", "etcd_key", "rack"),
)
_WILDCARDS = ("*", "0.0.0.0", "[::]")


class NodeIdentity(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    node: str
    data_id: str
    cluster: str


class NodeEndpoints(msgspec.Struct, frozen=True):
    """The endpoints of a node as other machines can reach them."""

    clients: str
    peers: str


def endpoints_of(config: BrokerConfig) -> NodeEndpoints | None:
    """Return the endpoints of a cluster's node; None for a broker on one machine.

    Raises ConfigError, one line that names the option.
    """
    if not config.cluster and not config.node:
        for name in CLUSTER_SETTINGS:
            if getattr(config, name):
                raise ConfigError(f"{name}: only for a node of a cluster; give --node and --cluster, too")
        return None
    if not config.cluster:
        raise ConfigError("node: give --cluster, too, such as etcd://localhost:2379/prod")
    if not config.node:
        raise ConfigError("cluster: give --node, too, the name of this node")
    if (fault := patterns.name_fault(config.node)) is not None:
        raise ConfigError(f"node: {fault}")
    if not config.peer_endpoint:
        raise ConfigError("cluster: give --peer-endpoint, too, such as tcp://10.0.0.1:5571")
    if config.peer_keys:
        _check_keys(config.peer_keys)
    _check_tls(config)
    return NodeEndpoints(
        clients=_reachable("advertise", config.advertise or config.endpoint),
        peers=_reachable("advertise-peer", config.advertise_peer or config.peer_endpoint),
    )


def _check_keys(file: str) -> None:
    try:
        read_key_file(file)
    except KeyFileError as error:
        raise ConfigError(f"peer_keys: {error}") from error


def _check_tls(config: BrokerConfig) -> None:
    if bool(config.etcd_certificate) != bool(config.etcd_key):
        raise ConfigError("etcd_certificate, etcd_key: give both, or neither")
    if config.etcd_certificate and not config.etcd_ca:
        raise ConfigError(
            "etcd_certificate: give etcd_ca, too, the authorities that sign the certificates of etcd"
        )
    for name in ("etcd_ca", "etcd_certificate", "etcd_key"):
        file = getattr(config, name)
        if file and not os.access(file, os.R_OK):
            raise ConfigError(f"{name}: {file} cannot be read")


def _reachable(option: str, endpoint: str) -> str:
    host, _, port = endpoint.removeprefix("tcp://").rpartition(":")
    if host in _WILDCARDS or port == "*":
        raise ConfigError(f"{endpoint} cannot be connected to: give --{option} with a host and a port")
    return endpoint


def identity_in(directory: Path, config: BrokerConfig) -> NodeIdentity:
    """Return the identity in the data directory, which gets one at its first start in a cluster.

    Raises DataDirectoryError if it belongs to another node or cluster, or to a broker on one machine.
    """
    file = directory / NODE_FILE
    cluster = config.cluster.rpartition("/")[2]
    try:
        found = msgspec.json.decode(file.read_bytes(), type=NodeIdentity)
    except FileNotFoundError:
        if (directory / ONE_MACHINE_FILE).exists():
            raise DataDirectoryError(
                f"{directory} belongs to a broker on one machine: give a node of a cluster an empty directory, or"
                ' run "planaria cluster import"'
            ) from None
        found = NodeIdentity(config.node, uuid.uuid4().hex, cluster)
        replace_file(file, msgspec.json.encode(found))
    except msgspec.MsgspecError as error:
        raise DataDirectoryError(f"{file} is damaged: {error}") from error
    if (directory / ONE_MACHINE_FILE).exists():
        raise DataDirectoryError(
            f'the import of {directory} has not ended: run "planaria cluster import" again'
        )
    if found.node != config.node:
        raise DataDirectoryError(
            f"{directory} belongs to node {found.node!r}, not {config.node!r}: give --node {found.node}, or another"
            " directory"
        )
    if found.cluster != cluster:
        raise DataDirectoryError(
            f"{directory} belongs to cluster {found.cluster!r}, not {cluster!r}: give the URL of that one to --cluster,"
            " or another directory"
        )
    return found


def save_identity(directory: Path, identity: NodeIdentity) -> None:
    """Make a directory that of this node. Raises DataDirectoryError if it is another one's."""
    file = directory / NODE_FILE
    if file.exists():
        found = msgspec.json.decode(file.read_bytes(), type=NodeIdentity)
        if found != identity:
            raise DataDirectoryError(
                f"{directory} belongs to node {found.node!r} of cluster {found.cluster!r}"
            )
    replace_file(file, msgspec.json.encode(identity))


def require_one_machine(directory: Path) -> None:
    """Raise DataDirectoryError if the directory belongs to a node of a cluster."""
    if (directory / NODE_FILE).exists():
        raise DataDirectoryError(
            f"{directory} belongs to a node of a cluster, by its {NODE_FILE}: give --node and --cluster, too"
        )


def controller_arguments(
    config: BrokerConfig, identity: NodeIdentity, endpoints: NodeEndpoints
) -> dict[str, Any]:
    """Return the controller's arguments that concern the cluster."""
    return {
        "node": identity.node,
        "data_id": identity.data_id,
        "store": config.cluster,
        "tls": _tls(config),
        "endpoint": endpoints.clients,
        "peer_endpoint": endpoints.peers,
        "rack": config.rack,
        "replica_door": _replica_door(config, endpoints) if config.direct_replication else None,
    }


def _replica_door(config: BrokerConfig, endpoints: NodeEndpoints) -> dict[str, str]:
    """Return the endpoint of each replica for followers on other nodes: that of the node, at another port."""
    return {
        "endpoint": f"{config.peer_endpoint.rpartition(':')[0]}:*",
        "host": endpoints.peers.removeprefix("tcp://").rpartition(":")[0],
        "keys": _absolute(config.peer_keys),
    }


def _absolute(file: str) -> str:
    return os.path.abspath(file) if file else ""


def link_arguments(config: BrokerConfig, start_id: str) -> dict[str, Any] | None:
    """Return the arguments of the link; None for a broker on one machine, which has none."""
    if not config.cluster:
        return None
    return {
        "node": config.node,
        "start_id": start_id,
        "peer_endpoint": config.peer_endpoint,
        "replication_bytes_per_second": config.replication_bytes_per_second,
        "peer_keys": _absolute(config.peer_keys),
    }


def _tls(config: BrokerConfig) -> dict[str, str | None] | None:
    if not config.etcd_ca:
        return None
    files = {"ca": config.etcd_ca, "certificate": config.etcd_certificate, "key": config.etcd_key}
    return {name: os.path.abspath(file) if file else None for name, file in files.items()}
