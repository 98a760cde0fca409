"""The keys of a data directory, and the endpoints that need them."""

from pathlib import Path
from unittest import mock

import pytest
import zmq

from planaria.supervisor.config import BrokerConfig, ConfigError
from planaria.supervisor.security import gateway_security, initialise
from planaria.transport.endpoints import is_loopback
from planaria.transport.security.key_files import KeyFileError, new_key_pair, read_key_file


@pytest.mark.parametrize(
    ("endpoint", "is_local"),
    [
        ("tcp://127.0.0.1:1", True),
        ("tcp://127.3.2.1:*", True),
        ("tcp://localhost:1", True),
        ("tcp://[::1]:1", True),
        ("tcp://*:1", False),
        ("tcp://0.0.0.0:1", False),
        ("tcp://[::]:1", False),
        ("tcp://10.0.0.1:1", False),
        ("tcp://broker.example:1", False),
        ("tcp://eth0:1", False),
    ],
)
def test_an_endpoint_that_other_machines_reach_needs_authentication(
    endpoint: str, is_local: bool, tmp_path: Path
) -> None:
    assert is_loopback(endpoint) is is_local
    config = BrokerConfig(endpoint=endpoint, data=str(tmp_path))
    if is_local:
        assert gateway_security(config, tmp_path) is None
        return
    with pytest.raises(ConfigError, match="run planaria security init"):
        gateway_security(config, tmp_path)
    assert gateway_security(BrokerConfig(endpoint=endpoint, insecure_public=True), tmp_path) is None
    initialise(tmp_path, tmp_path / "admin.key")
    assert gateway_security(config, tmp_path) is not None


def test_a_broker_with_keys_has_authentication_unless_it_is_turned_off(tmp_path: Path) -> None:
    initialise(tmp_path, tmp_path / "admin.key")
    admin = read_key_file(tmp_path / "admin.key")
    found = gateway_security(BrokerConfig(), tmp_path)
    assert found is not None
    assert (found["admin_key"], found["takes_sessions"]) == (admin.public_key, True)
    strict = gateway_security(BrokerConfig(authentication="curve"), tmp_path)
    assert strict is not None
    assert strict["takes_sessions"] is False
    assert gateway_security(BrokerConfig(authentication="none"), tmp_path) is None


def test_authentication_without_keys_or_with_keys_that_others_read_is_refused(tmp_path: Path) -> None:
    config = BrokerConfig(authentication="curve")
    with pytest.raises(ConfigError, match="there are no keys: run planaria security init"):
        gateway_security(config, tmp_path)
    initialise(tmp_path, tmp_path / "admin.key")
    (tmp_path / "security" / "server.key").chmod(0o644)
    with pytest.raises(ConfigError, match="other users can read it"):
        gateway_security(config, tmp_path)


def test_a_second_initialisation_replaces_the_administrator_and_keeps_the_broker(tmp_path: Path) -> None:
    first = initialise(tmp_path, tmp_path / "first.key")
    second = initialise(tmp_path, tmp_path / "second.key")
    assert first == second
    found = gateway_security(BrokerConfig(), tmp_path)
    assert found is not None
    assert found["admin_key"] == read_key_file(tmp_path / "second.key").public_key
    with pytest.raises(KeyFileError, match="exists already"):
        initialise(tmp_path, tmp_path / "second.key")


def test_the_nodes_of_a_cluster_share_the_brokers_key(tmp_path: Path) -> None:
    first = initialise(tmp_path / "one", tmp_path / "one.key")
    copied = tmp_path / "one" / "security" / "server.key"
    assert initialise(tmp_path / "two", tmp_path / "two.key", copied) == first


def test_a_public_key_is_never_taken_for_an_option_of_a_command() -> None:
    drawn = [(b"-" + bytes(39), b"s" * 40), (b"a-" + b"k" * 38, b"t" * 40)]
    with mock.patch.object(zmq, "curve_keypair", side_effect=drawn):
        assert new_key_pair().public_key == "a-" + "k" * 38
