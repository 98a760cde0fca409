"""`planaria serve`: run a broker in this terminal.

Checks the configuration, then becomes the supervisor (the same process id, terminal and signals): the process that must
not die loads nothing of the command line.
"""

import os
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from ...transport.protocol.topics import TopicConfig
from .. import config as configuration
from ..config import CONFIG_FILE, BrokerConfig
from ..http import AUTO
from .console import DEFAULT_LISTEN, check_packages
from .settings import parse_settings

_TOPIC_DEFAULT = "topic_defaults."

Data = Annotated[
    str | None,
    typer.Option("--data", metavar="DIRECTORY", help="Data directory; ./planaria-data by default."),
]
Endpoint = Annotated[
    str | None,
    typer.Option("--endpoint", metavar="URL", help="Endpoint for clients; tcp://127.0.0.1:5570 by default."),
]
ConfigFile = Annotated[
    Path | None,
    typer.Option("--config", metavar="FILE", help="Configuration file; ./planaria.toml if it exists."),
]
LogFormat = Annotated[
    str | None,
    typer.Option("--log-format", metavar="text|json", help="Format of log lines; text by default."),
]
LogLevel = Annotated[
    str | None,
    typer.Option("--log-level", metavar="LEVEL", help="debug, info (the default), warning or error."),
]
LogFile = Annotated[
    str | None,
    typer.Option(
        "--log-file",
        metavar="FILE",
        help="Log to this file in the data directory instead of standard error.",
    ),
]
HangTimeout = Annotated[
    int | None,
    typer.Option(
        "--hang-timeout-ms",
        metavar="MS",
        help="Time without progress after which a process is restarted; 5000 by default.",
    ),
]
Node = Annotated[str | None, typer.Option("--node", metavar="NAME", help="Name of this node in its cluster.")]
Cluster = Annotated[
    str | None,
    typer.Option(
        "--cluster",
        metavar="URL",
        help="Metadata store and name of the cluster, etcd://HOST:PORT,HOST:PORT/NAME.",
    ),
]
PeerEndpoint = Annotated[
    str | None,
    typer.Option("--peer-endpoint", metavar="URL", help="Endpoint for the other nodes of the cluster."),
]
Advertise = Annotated[
    str | None,
    typer.Option("--advertise", metavar="URL", help="Address by which other machines can reach --endpoint."),
]
AdvertisePeer = Annotated[
    str | None,
    typer.Option(
        "--advertise-peer", metavar="URL", help="Address by which other nodes reach --peer-endpoint."
    ),
]
PeerKeysFile = Annotated[
    str | None,
    typer.Option(
        "--peer-keys",
        metavar="FILE",
        help='File with the keys of the cluster, created by "planaria cluster keys".',
    ),
]

HttpEndpoint = Annotated[
    str | None,
    typer.Option(
        "--http",
        metavar="HOST:PORT",
        help="Serve metrics and probes over HTTP there; 127.0.0.1:5572 by default, if that port is free.",
    ),
]
NoHttp = Annotated[bool, typer.Option("--no-http", help="Serve no metrics and probes over HTTP.")]
HttpBridge = Annotated[bool, typer.Option("--http-bridge", help="Also serve topics and groups over HTTP.")]
KafkaNames = Annotated[
    bool, typer.Option("--kafka-names", help="Also serve metrics under the names of kafka_exporter.")
]
Console = Annotated[
    bool, typer.Option("--console", help=f"Serve the console, at {DEFAULT_LISTEN} unless `console` is set.")
]
TlsEndpoint = Annotated[
    str | None,
    typer.Option("--tls-endpoint", metavar="URL", help="Endpoint for clients over TLS, tls://HOST:PORT."),
]
TlsCertificate = Annotated[
    str | None,
    typer.Option("--tls-certificate", metavar="FILE", help="Certificate of this broker, in PEM."),
]
TlsKey = Annotated[
    str | None, typer.Option("--tls-key", metavar="FILE", help="Key of that certificate, in PEM.")
]
TlsClientCa = Annotated[
    str | None,
    typer.Option("--tls-client-ca", metavar="FILE", help="Authorities of clients' certificates, in PEM."),
]
InsecurePublic = Annotated[
    bool, typer.Option("--insecure-public", help="Listen at a public endpoint without authentication.")
]


def serve(
    data: Data = None,
    endpoint: Endpoint = None,
    config: ConfigFile = None,
    log_format: LogFormat = None,
    log_level: LogLevel = None,
    log_file: LogFile = None,
    hang_timeout_ms: HangTimeout = None,
    node: Node = None,
    cluster: Cluster = None,
    peer_endpoint: PeerEndpoint = None,
    advertise: Advertise = None,
    advertise_peer: AdvertisePeer = None,
    tls_endpoint: TlsEndpoint = None,
    tls_certificate: TlsCertificate = None,
    tls_key: TlsKey = None,
    tls_client_ca: TlsClientCa = None,
    insecure_public: InsecurePublic = False,
    http_endpoint: HttpEndpoint = None,
    no_http: NoHttp = False,
    http_bridge: HttpBridge = False,
    kafka_names: KafkaNames = False,
    console: Console = False,
    peer_keys: PeerKeysFile = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Set a key of the configuration. Repeatable."),
    ] = None,
) -> None:
    """Run a broker in this terminal. Ctrl-C stops it in order.

    Later sources override earlier ones: defaults, planaria.toml, PLANARIA_* variables (such as
    PLANARIA_DATA and PLANARIA_ENDPOINT), options.

    Examples:
      planaria serve
      planaria serve --data /var/lib/planaria --endpoint tcp://0.0.0.0:5570   (after planaria security init)
      planaria serve --set topic_defaults.flush=interval:200ms
      planaria serve --node n1 --cluster etcd://a:2379,b:2379/prod \
        --endpoint tcp://10.0.0.1:5570 --peer-endpoint tcp://10.0.0.1:5571
    """
    if no_http and http_endpoint:
        raise typer.BadParameter("one of --http and --no-http", param_hint="--no-http")
    overrides = {
        "data": data,
        "endpoint": endpoint,
        "log_format": log_format,
        "log_level": log_level,
        "log_file": log_file,
        "hang_timeout_ms": hang_timeout_ms,
        "node": node,
        "cluster": cluster,
        "peer_endpoint": peer_endpoint,
        "advertise": advertise,
        "advertise_peer": advertise_peer,
        "tls_endpoint": tls_endpoint,
        "tls_certificate": tls_certificate,
        "tls_key": tls_key,
        "tls_client_ca": tls_client_ca,
        "insecure_public": insecure_public or None,
        "http_endpoint": "" if no_http else http_endpoint,
        "http_bridge": http_bridge or None,
        "kafka_names": kafka_names or None,
        "peer_keys": peer_keys,
        **_from_settings(settings or []),
    }
    if config is None and Path(CONFIG_FILE).is_file():
        config = Path(CONFIG_FILE)
    defaults = {"http_endpoint": AUTO, "console": DEFAULT_LISTEN if console else ""}
    found = configuration.load(overrides, environment=os.environ, file=config, defaults=defaults)
    if found.console:
        check_packages()
    become_supervisor(found)


def _from_settings(pairs: list[str]) -> dict[str, Any]:
    topic_keys = [_TOPIC_DEFAULT + key for key in TopicConfig.__struct_fields__]
    own_keys = [key for key in BrokerConfig.__struct_fields__ if key != "topic_defaults"]
    found = parse_settings(pairs, [*own_keys, *topic_keys])
    defaults = {
        key.removeprefix(_TOPIC_DEFAULT): found.pop(key)
        for key in list(found)
        if key.startswith(_TOPIC_DEFAULT)
    }
    return {**found, "topic_defaults": defaults} if defaults else found


def become_supervisor(config: BrokerConfig) -> None:
    """Replace this process with the supervisor. Does not return."""
    package = __package__.rpartition(".")[0]
    # `-m` would search the working directory for modules first; only right if this process was loaded from there.
    isolation = [] if {"", os.getcwd()} & set(sys.path) else ["-P"]
    sys.stdout.flush()
    sys.stderr.flush()
    descriptor = str(configuration.sent(config))
    command = [sys.executable, *isolation, "-m", package, "--config-fd", descriptor]
    os.execv(sys.executable, command)
