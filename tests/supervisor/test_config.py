"""Configuration: precedence of the sources, and errors for wrong ones."""

import os
import re
from pathlib import Path
from typing import Any

import msgspec
import pytest

from planaria.supervisor.config import BrokerConfig, ConfigError, from_json, load, received, sent


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "planaria.toml"
    path.write_text(
        'data = "from-file"\nlog_level = "debug"\nhang_timeout_ms = 7000\n[topic_defaults]\nretention_ms = 60000\n'
    )
    return path


def test_a_command_has_defaults_of_its_own_which_every_source_overrides() -> None:
    of_serve = {"http_endpoint": "auto"}
    assert load().http_endpoint == ""
    assert load(defaults=of_serve).http_endpoint == "auto"
    assert load(environment={"PLANARIA_HTTP_ENDPOINT": ""}, defaults=of_serve).http_endpoint == ""
    assert load({"http_endpoint": "[::1]:80"}, defaults=of_serve).http_endpoint == "[::1]:80"
    with pytest.raises(ConfigError, match="http_endpoint: Expected HOST:PORT"):
        load({"http_endpoint": "5572"})


def test_defaults() -> None:
    assert load() == BrokerConfig()
    assert BrokerConfig().endpoint == "tcp://127.0.0.1:5570"


def test_later_sources_win(file: Path) -> None:
    environment = {"PLANARIA_DATA": "from-environment", "PLANARIA_HANG_TIMEOUT_MS": "8000", "HOME": "/"}
    config = load({"data": "from-flag", "endpoint": None}, environment=environment, file=file)
    assert (config.data, config.hang_timeout_ms, config.log_level) == ("from-flag", 8_000, "debug")
    assert config.endpoint == BrokerConfig().endpoint


def test_each_source_alone_wins_over_those_before_it(file: Path) -> None:
    """Defaults, file, environment, flags: added one by one, each decides."""
    default = BrokerConfig().log_level
    sources: dict[str, Any] = {"file": file}
    assert load().log_level == default != "debug"
    assert load(**sources).log_level == "debug"
    sources["environment"] = {"PLANARIA_LOG_LEVEL": "warning"}
    assert load(**sources).log_level == "warning"
    assert load({"log_level": "error"}, **sources).log_level == "error"
    assert load({"log_level": None}, **sources).log_level == "warning", (
        "a flag that is not given decides nothing"
    )


def test_topic_defaults_are_merged_key_by_key(file: Path) -> None:
    config = load({"topic_defaults": {"flush": "os"}}, file=file)
    assert (config.topic_defaults.retention_ms, config.topic_defaults.flush) == (60_000, "os")


def test_topic_defaults_from_the_environment() -> None:
    config = load(environment={"PLANARIA_TOPIC_DEFAULTS": '{"retention_ms": 5}'})
    assert config.topic_defaults.retention_ms == 5


class _Place(os.PathLike[bytes]):
    def __fspath__(self) -> bytes:
        return b"some/pl\xff"


@pytest.mark.parametrize("key", ["data", "log_file"])
@pytest.mark.parametrize(
    ("path", "text"),
    [("some/place", "some/place"), (Path("some/place"), "some/place"), (_Place(), "some/pl\udcff")],
)
def test_a_setting_that_names_a_file_may_be_any_path(key: str, path: Any, text: str) -> None:
    assert getattr(load({key: path}), key) == text


@pytest.mark.parametrize(
    ("flags", "complaint"),
    [
        ({"endpont": "x"}, "flags: unknown key 'endpont'; the nearest known one is 'endpoint'"),
        (
            {"topic_defaults": {"flus": "os"}},
            "flags, topic_defaults: unknown key 'flus'; the nearest known one is 'flush'",
        ),
        ({"hang_timeout_ms": "soon"}, "flags: hang_timeout_ms: Expected `int`, got `str`"),
        ({"hang_timeout_ms": 0}, "flags: hang_timeout_ms: Expected `int` >= 1"),
        ({"log_level": "loud"}, "flags: log_level: Invalid enum value 'loud'"),
        (
            {"topic_defaults": {"retention_ms": "x"}},
            "flags: topic_defaults.retention_ms: Expected `int`, got `str`",
        ),
        ({"topic_defaults": 3}, "flags: topic_defaults: Expected `object`, got `int`"),
        ({"endpoint": "udp://127.0.0.1:1"}, "flags: endpoint: Expected tcp://HOST:PORT, or *"),
    ],
)
def test_wrong_flags(flags: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(complaint)) as caught:
        load(flags)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("environment", "complaint"),
    [
        ({"PLANARIA_ENDPONT": "x"}, "unknown variable PLANARIA_ENDPONT: did you mean PLANARIA_ENDPOINT?"),
        ({"PLANARIA_HANG_TIMEOUT_MS": "soon"}, "the environment: hang_timeout_ms: Expected `int`, got `str`"),
        ({"PLANARIA_TOPIC_DEFAULTS": "{"}, "PLANARIA_TOPIC_DEFAULTS is not JSON: Input data was truncated"),
    ],
)
def test_wrong_environment(environment: dict[str, str], complaint: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(complaint)):
        load(environment=environment)


def test_a_variable_near_to_no_key_is_somebody_elses() -> None:
    assert load(environment={"PLANARIA_TEST_SESSION": "1", "PLANARIA_CONNECT": "x"}) == BrokerConfig()


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("data = ", "Invalid value"),
        ("dta = 'x'", "unknown key 'dta'; the nearest known one is 'data'"),
        ("restart_intensity = -1", "restart_intensity: Expected `int` >= 0"),
    ],
)
def test_a_wrong_file_is_named(tmp_path: Path, text: str, complaint: str) -> None:
    path = tmp_path / "planaria.toml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=re.escape(complaint)) as caught:
        load(file=path)
    assert str(path) in str(caught.value)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="does not exist"):
        load(file=tmp_path / "planaria.toml")


def test_json_there_and_back() -> None:
    config = load({"restart_intensity": 1_000, "topic_defaults": {"retention_ms": 5}})
    assert received(sent(config)) == config
    with pytest.raises(ConfigError, match="not a JSON object"):
        from_json("[]")


def test_every_key_can_be_written_in_a_file(tmp_path: Path) -> None:
    values = msgspec.to_builtins(BrokerConfig())
    path = tmp_path / "planaria.toml"
    path.write_text(_toml(values))
    assert load(file=path) == BrokerConfig()


def _toml(values: dict[str, Any]) -> str:
    plain = {key: value for key, value in values.items() if not isinstance(value, dict)}
    lines = [f"{key} = {msgspec.json.encode(value).decode()}" for key, value in plain.items()]
    lines.append("[topic_defaults]")
    lines += [
        f"{key} = {msgspec.json.encode(value).decode()}" for key, value in values["topic_defaults"].items()
    ]
    return "\n".join(lines)


@pytest.mark.parametrize(
    "endpoint",
    [
        "tcp://a b:1",
        "tcp://::1:5570",
        "tcp://[::1:5570",
        "tcp://[a b]:1",
        "ipc:///tmp/x",
        "tcp://a",
        "tcp://:1",
    ],
)
def test_a_broker_refuses_a_malformed_endpoint_before_it_starts(endpoint: str) -> None:
    with pytest.raises(ConfigError, match="endpoint: Expected tcp://HOST:PORT"):
        load({"endpoint": endpoint})


@pytest.mark.parametrize(
    "endpoint",
    [
        "tcp://*:5570",
        "tcp://0.0.0.0:*",
        "tcp://[::]:1",
        "tcp://[fe80::1%eth0]:1",
        "tcp://eth0:1",
        "tcp://a-b.c_d:1",
    ],
)
def test_a_broker_listens_at_an_address_an_interface_or_a_name(endpoint: str) -> None:
    assert load({"endpoint": endpoint}).endpoint == endpoint
