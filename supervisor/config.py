"""Configuration of the broker: defaults, then planaria.toml, then PLANARIA_* variables, then flags; later sources win.

An unknown key is an error that suggests the nearest known one; a value of the wrong type is one line that names the key
and its source. Read by the command line and the embedded Broker; __main__.py receives the result as JSON.
"""

import difflib
import fcntl
import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from ..transport import patterns
from ..transport.endpoints import DEFAULT_ENDPOINT
from ..transport.protocol.topics import TopicConfig

DEFAULT_DATA = "planaria-data"
CONFIG_FILE = "planaria.toml"
ENVIRONMENT_PREFIX = "PLANARIA_"

PositiveMilliseconds = Annotated[int, Meta(ge=1)]


class ConfigError(Exception):
    """The configuration is wrong; the message is one line for the operator."""


class BrokerConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    data: Annotated[str, Meta(min_length=1)] = DEFAULT_DATA
    """The data directory."""
    endpoint: Annotated[str, Meta(pattern=patterns.ENDPOINT)] = DEFAULT_ENDPOINT
    """Public endpoint; `tcp://127.0.0.1:*` takes a free port and keeps it for the life of the supervisor."""
    authentication: Literal["auto", "none", "curve", "curve+token"] = "auto"
    """auto: `curve+token` if `planaria security init` has made keys, otherwise `none`. curve: clients need a key that the
    broker knows. curve+token: a token, or user and password, will do as well."""
    tls_endpoint: Annotated[str, Meta(pattern=patterns.TLS_ENDPOINT)] = ""
    """Endpoint for clients over TLS: `tls://0.0.0.0:5574`. Requires authentication, `tls_certificate` and `tls_key`."""
    tls_certificate: str = ""
    """Certificate of this broker and those of its authorities below the root, a file in PEM."""
    tls_key: str = ""
    """Key of that certificate, a file in PEM that only its owner may read."""
    tls_client_ca: str = ""
    """Certificates of the authorities that sign those of clients, a file in PEM. The common name of a client's
    certificate is its principal. Empty: clients have no certificates."""
    tls_max_connections: Annotated[int, Meta(ge=1, le=100_000)] = 2_000
    """Connections over TLS; one host may have half of them."""
    insecure_public: bool = False
    """Listen at a public endpoint without authentication: whoever can connect may do everything."""
    audit: Literal["auto", "on", "off"] = "auto"
    """Record administrative acts and refusals in the topic `__audit`. auto: with authentication."""
    audit_retention_ms: Annotated[int, Meta(ge=-1, le=2**53)] = 90 * 24 * 3600 * 1000
    """Age at which records of the audit are deleted; -1: never."""
    audit_retention_bytes: Annotated[int, Meta(ge=-1, le=2**53)] = 1024 * 1024 * 1024
    """Size of the audit beyond which the oldest records are deleted; -1: any."""
    http_endpoint: Annotated[str, Meta(pattern=patterns.HTTP_ENDPOINT)] = ""
    """HOST:PORT at which metrics and probes are served over HTTP; empty: nowhere. auto: 127.0.0.1:5572, unless another
    process has that port. `planaria serve` begins with auto."""
    http_bridge: bool = False
    """Serve topics and groups over HTTP there, too."""
    console: Annotated[str, Meta(pattern=patterns.LISTEN)] = ""
    """HOST:PORT at which the console is served; empty: nowhere. It needs the extra `console`."""
    kafka_names: bool = False
    """Also serve metrics under the names of kafka_exporter."""
    node: str = ""
    """Name of this node in its cluster; empty for a broker on one machine."""
    cluster: Annotated[str, Meta(pattern=patterns.CLUSTER)] = ""
    """Metadata store and name of the cluster: `etcd://a:2379,b:2379,c:2379/prod`. Requires `node`."""
    advertise: Annotated[str, Meta(pattern=patterns.ADVERTISED)] = ""
    """Public endpoint as clients and other nodes reach it; `endpoint` if empty."""
    peer_endpoint: Annotated[str, Meta(pattern=patterns.ADVERTISED)] = ""
    """Endpoint for the other nodes of the cluster. Must not be reachable by clients."""
    advertise_peer: Annotated[str, Meta(pattern=patterns.ADVERTISED)] = ""
    """Peer endpoint as other nodes reach it; `peer_endpoint` if empty."""
    peer_keys: str = ""
    """File of the cluster's keys (`planaria cluster keys`): nodes authenticate each other and encrypt."""
    direct_replication: bool = True
    """Followers on other nodes fetch from the processes of this one's leaders, at ports that the system chooses, where
    they reach these; False: through `peer_endpoint` alone."""
    etcd_ca: str = ""
    """Certificates of the authorities that sign etcd's, a file in PEM: nodes then use TLS to etcd."""
    etcd_certificate: str = ""
    """Certificate of this node for etcd, a file in PEM. Requires `etcd_ca` and `etcd_key`."""
    etcd_key: str = ""
    """Key of that certificate, a file in PEM."""
    rack: str = ""
    """Failure domain of this node: replicas of a partition are placed on different racks."""
    refuse_unsafe_stop: bool = True
    """True to refuse a first SIGTERM while partitions of the cluster would be below their minimum without this node."""
    slow_sync_ms: Annotated[int, Meta(ge=0)] = 1_000
    """A leader in a cluster whose syncs take longer hands over to a replica whose syncs do not; 0: never."""
    replication_bytes_per_second: Annotated[int, Meta(ge=0, le=2**53)] = 50 * 1024 * 1024
    """Rate at which this node sends to replicas that are not in sync, which catch up; 0: any."""
    cpu_latency_us: Annotated[int, Meta(ge=-1, le=2_000_000_000)] = -1
    """Wake-up latency to which the processors of the machine are limited while the broker runs; 0: they poll instead of
    halting; -1: as the system is set. Linux; requires the right to write to `/dev/cpu_dma_latency`."""
    heartbeat_interval_ms: PositiveMilliseconds = 500
    hang_timeout_ms: PositiveMilliseconds = 5_000
    """A ready actor without progress for this time is aborted and restarted."""
    abort_grace_ms: PositiveMilliseconds = 300
    """Time for an aborted actor to write its stack to the log before it is killed."""
    restart_intensity: Annotated[int, Meta(ge=0)] = 5
    """Restarts of one actor in restart_period_ms; one more and it is quarantined."""
    restart_period_ms: PositiveMilliseconds = 30_000
    backoff_reset_ms: PositiveMilliseconds = 1_000
    """Ready time after which an actor's restarts begin without delay again."""
    quarantine_retry_ms: Annotated[int, Meta(ge=0)] = 300_000
    """Time after which a quarantined actor is tried again; 0: only when an operator revives it."""
    max_actors: Annotated[int, Meta(ge=0)] = 0
    """Maximum number of actors; 0: as many as the limits of the system allow."""
    coordinator_idle_ms: Annotated[int, Meta(ge=0)] = 600_000
    """Time after which a group's coordinator without members and work sleeps, until the next request; 0: never."""
    offsets_retention_ms: Annotated[int, Meta(ge=-1, le=2**53)] = -1
    """Time without use after which the offsets of a group without members are deleted; -1: never."""
    disconnect_grace_ms: Annotated[int, Meta(ge=0)] = 500
    """Time after which a group's member whose connection is lost has left; 0: when its session or its locks end."""
    partition_idle_ms: Annotated[int, Meta(ge=0)] = 0
    """Time without traffic after which a partition sleeps, until the next request; 0: never."""
    offsets_partitions: Annotated[int, Meta(ge=1, le=1_000)] = 4
    """Partitions of the internal topic that holds the groups' offsets; read when it is created."""
    delayed_partitions: Annotated[int, Meta(ge=1, le=1_000)] = 2
    """Partitions of the internal topic that holds delayed messages, each with a scheduler; read when it is created."""
    disk_reserve_bytes: Annotated[int, Meta(ge=0, le=2**63 - 1)] = 128 * 1024 * 1024
    """Producers are refused while less than this is free on the disk; 0: only when the disk is full."""
    transaction_coordinators: Annotated[int, Meta(ge=1, le=250)] = 2
    """Transaction coordinators, each with a partition of the internal topic; read when it is created."""
    topic_defaults: TopicConfig = TopicConfig()
    """Defaults for new topics."""
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    log_format: Literal["text", "json"] = "text"
    log_file: str = ""
    """Log file of the whole tree, relative to the data directory; standard error if empty."""


def load(
    overrides: Mapping[str, Any] | None = None,
    *,
    environment: Mapping[str, str] | None = None,
    file: Path | None = None,
    defaults: Mapping[str, Any] | None = None,
) -> BrokerConfig:
    """Merge all sources. `overrides` are flags: None means not given, and a path may be an os.PathLike. `defaults` are
    those of the command that differ. Raises ConfigError."""
    values = msgspec.to_builtins(BrokerConfig()) | dict(defaults or {})
    if file is not None:
        values = _apply(values, _read(file), str(file))
    values = _apply(values, _from_environment(environment or {}), "the environment", is_text=True)
    given = {
        key: os.fsdecode(value) if isinstance(value, os.PathLike) else value
        for key, value in (overrides or {}).items()
        if value is not None
    }
    return _convert(_merged(values, given, "flags"), "flags")


def from_json(text: str | bytes) -> BrokerConfig:
    """Parse a configuration that another process has merged. Raises ConfigError."""
    try:
        values = msgspec.json.decode(text, type=dict[str, Any])
    except msgspec.MsgspecError as error:
        raise ConfigError(f"configuration is not a JSON object: {error}") from error
    return load(values)


def sent(config: BrokerConfig) -> int:
    """Return a pipe to read the configuration from, for another process: not its arguments, which every user sees."""
    reader, writer = os.pipe()
    with os.fdopen(writer, "wb") as stream:
        stream.write(msgspec.json.encode(config))
    # Not a standard descriptor, even if a daemon has closed those.
    inherited = fcntl.fcntl(reader, fcntl.F_DUPFD, 3)
    os.close(reader)
    return inherited


def received(descriptor: int) -> BrokerConfig:
    """Return the configuration that another process has sent. Raises ConfigError."""
    with os.fdopen(descriptor, "rb") as stream:
        return from_json(stream.read())


def _read(file: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ConfigError(f"{file} does not exist") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{file}: {error}") from error
    except OSError as error:
        raise ConfigError(f"{file}: {error.strerror}") from error


def _from_environment(environment: Mapping[str, str]) -> dict[str, Any]:
    """Return the settings in prefixed variables. Variables that resemble no key are ignored."""
    found: dict[str, Any] = {}
    keys = BrokerConfig.__struct_fields__
    for name, value in environment.items():
        if not name.startswith(ENVIRONMENT_PREFIX):
            continue
        key = name.removeprefix(ENVIRONMENT_PREFIX).lower()
        if key in keys:
            found[key] = _json(name, value) if key == "topic_defaults" else value
        elif nearest := difflib.get_close_matches(key, keys, n=1, cutoff=0.8):
            raise ConfigError(
                f"unknown variable {name}: did you mean {ENVIRONMENT_PREFIX}{nearest[0].upper()}?"
            )
    return found


def _json(name: str, value: str) -> Any:
    try:
        return msgspec.json.decode(value)
    except msgspec.DecodeError as error:
        raise ConfigError(f"{name} is not JSON: {error}") from error


def _apply(
    values: dict[str, Any], given: dict[str, Any], source: str, *, is_text: bool = False
) -> dict[str, Any]:
    merged = _merged(values, given, source)
    checked: dict[str, Any] = msgspec.to_builtins(_convert(merged, source, is_text=is_text))
    return checked


def _merged(values: dict[str, Any], given: dict[str, Any], source: str) -> dict[str, Any]:
    _refuse_unknown(given, BrokerConfig.__struct_fields__, source)
    merged = values | given
    defaults = given.get("topic_defaults")
    if isinstance(defaults, Mapping):
        _refuse_unknown(defaults, TopicConfig.__struct_fields__, f"{source}, topic_defaults")
        merged["topic_defaults"] = {**values["topic_defaults"], **defaults}
    return merged


def _refuse_unknown(given: Mapping[str, Any], known: tuple[str, ...], source: str) -> None:
    for key in given:
        if key not in known:
            nearest = difflib.get_close_matches(key, known, n=1, cutoff=0)[0]
            raise ConfigError(f"{source}: unknown key {key!r}; the nearest known one is {nearest!r}")


def _convert(values: dict[str, Any], source: str, *, is_text: bool = False) -> BrokerConfig:
    try:
        return msgspec.convert(values, BrokerConfig, strict=not is_text)
    except msgspec.ValidationError as error:
        what, _, where = patterns.in_words(str(error)).partition(" - at `$.")
        raise ConfigError(f"{source}: {where.rstrip('`') or 'configuration'}: {what}") from error
