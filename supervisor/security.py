"""The security of a data directory: the broker's key, the key of its administrator, and the mode of its public endpoint.

`planaria security init` makes the keys (`transport/security/broker_keys.py`). While they are there the broker has
authentication, so it cannot be forgotten at a start. Called by __main__.py before anything is started, and by the
command line.
"""

import os
from pathlib import Path
from typing import Any

import msgspec

from ..transport.endpoints import is_loopback
from ..transport.security.broker_keys import ADMIN_KEY, FOLDER, SERVER_KEY
from ..transport.security.key_files import (
    KeyFileError,
    check_public_key,
    new_key_pair,
    read_key_file,
    write_key_file,
)
from ..transport.security.keys import KeyPair
from ..transport.security.principals import ADMIN
from ..transport.security.tls_options import TlsFileError, TlsFiles
from .config import BrokerConfig, ConfigError
from .data_directory import replace_file
from .http import AUTO


def initialise(data: Path, admin_key_file: Path, copied_server_key: Path | None = None) -> KeyPair:
    """Make the keys of a data directory and the administrator's key file; return the broker's key pair.

    `copied_server_key` is the key file of another node of the cluster: all nodes have the same one. Existing keys are
    kept, so a lost administrator's key is replaced by calling this again. Raises KeyFileError.
    """
    folder = data / FOLDER
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise KeyFileError(f"{folder}: {error.strerror}") from error
    path = folder / SERVER_KEY
    if not path.exists():
        made = new_key_pair() if copied_server_key is None else read_key_file(copied_server_key)
        write_key_file(path, made, "Key of this broker. Keep it secret; the cluster's nodes share it.")
    server = read_key_file(path)
    admin = new_key_pair(ADMIN, server.public_key)
    write_key_file(admin_key_file, admin, "Key of an administrator. Keep it secret.")
    replace_file(folder / ADMIN_KEY, f"{admin.public_key}\n".encode())
    return server


def gateway_security(config: BrokerConfig, data: Path) -> dict[str, Any] | None:
    """Return the gateway's arguments for its keys; None without authentication.

    Raises ConfigError, one line that names the remedy.
    """
    folder = data / FOLDER
    mode = config.authentication
    if mode == "auto":
        mode = "curve+token" if (folder / SERVER_KEY).exists() else "none"
    if mode == "none":
        if not is_loopback(config.endpoint) and not config.insecure_public:
            raise ConfigError(
                f"endpoint: other machines can reach {config.endpoint}, and there is no authentication: run"
                f" planaria security init --data {config.data}, or allow everyone everything with --insecure-public"
            )
        return None
    if not (folder / SERVER_KEY).exists():
        raise ConfigError(
            f"authentication: there are no keys: run planaria security init --data {config.data}"
        )
    try:
        read_key_file(folder / SERVER_KEY)
        admin_key = admin_key_in(folder)
    except KeyFileError as error:
        raise ConfigError(f"authentication: {error}") from error
    return {
        "server_key_file": str(folder / SERVER_KEY),
        "admin_key": admin_key,
        "takes_sessions": mode == "curve+token",
        "takes_relays": bool(config.tls_endpoint),
    }


def tls_door(config: BrokerConfig, gateway: dict[str, Any] | None) -> dict[str, Any] | None:
    """Return the arguments of the TLS door; None without one. `gateway` are those of the gateway's keys.

    Raises ConfigError, one line that names the remedy.
    """
    if not config.tls_endpoint:
        for name in ("tls_certificate", "tls_key", "tls_client_ca"):
            if getattr(config, name):
                raise ConfigError(f"{name}: give --tls-endpoint, too, such as tls://0.0.0.0:5574")
        return None
    if gateway is None:
        raise ConfigError(
            f"tls_endpoint: there is no authentication: run planaria security init --data {config.data}"
        )
    if not (config.tls_certificate and config.tls_key):
        raise ConfigError("tls_endpoint: give --tls-certificate and --tls-key, too")
    is_strict = not gateway["takes_sessions"]
    if is_strict and not config.tls_client_ca:
        raise ConfigError(
            "tls_endpoint: with authentication = curve clients need certificates: give --tls-client-ca, too"
        )
    named = (config.tls_certificate, config.tls_key, config.tls_client_ca)
    from ..transport.security.tls import server_context  # noqa: PLC0415 - the supervisor keeps no TLS in memory

    files = TlsFiles(*(os.path.abspath(file) if file else "" for file in named))
    try:
        server_context(files)
    except TlsFileError as error:
        raise ConfigError(str(error)) from error
    return {
        "endpoint": config.tls_endpoint,
        "files": msgspec.to_builtins(files),
        "requires_certificate": is_strict,
        "max_connections": config.tls_max_connections,
    }


def check_http_endpoint(config: BrokerConfig) -> None:
    """Raise ConfigError if anyone on other machines could read the metrics, which name topics and groups."""
    endpoint = config.http_endpoint
    if not endpoint or endpoint == AUTO or config.insecure_public:
        return
    if is_loopback(f"tcp://{endpoint.removeprefix('http://')}"):
        return
    raise ConfigError(
        f"http_endpoint: other machines can reach {endpoint}, and HTTP has no authentication: listen on 127.0.0.1 behind"
        " a proxy of your own, or let everyone read the metrics with --insecure-public"
    )


def console_arguments(config: BrokerConfig, security: dict[str, Any] | None) -> dict[str, Any] | None:
    """Return the arguments of the actor that keeps the console; None if there is to be none. Raises ConfigError."""
    if not config.console:
        return None
    if security is None and not config.insecure_public and not is_loopback(f"tcp://{config.console}"):
        raise ConfigError(
            f"console: other machines can reach {config.console}, and the broker has no authentication: run planaria"
            f" security init --data {config.data}, or allow everyone everything with --insecure-public"
        )
    return {
        "listen": config.console,
        "server_key_file": None if security is None else security["server_key_file"],
        "insecure_public": config.insecure_public,
    }


def admin_key_in(folder: Path) -> str:
    """Return the administrator's public key; empty if there is none any longer. Raises KeyFileError."""
    try:
        text = (folder / ADMIN_KEY).read_text(encoding="ascii").strip()
    except FileNotFoundError:
        return ""
    except (OSError, UnicodeDecodeError) as error:
        raise KeyFileError(f"{folder / ADMIN_KEY} cannot be read") from error
    return check_public_key(text, str(folder / ADMIN_KEY))
