"""The configuration of a client: arguments of the program, then variables, then a file. Opens no connection.

    arguments      of `Client` and `planaria.aio.connect`, options of the command line
    variables      PLANARIA_CONNECT, PLANARIA_KEY, PLANARIA_SERVER_KEY, PLANARIA_TOKEN, PLANARIA_USER, PLANARIA_PASSWORD;
                   PLANARIA_TLS_CA, PLANARIA_TLS_CERTIFICATE, PLANARIA_TLS_KEY, PLANARIA_TLS_SERVER_NAME
    file           named by PLANARIA_CONFIG, or ~/.config/planaria/client.toml if it exists: url, key, server_key, token,
                   user, password; a table `tls` with ca, certificate, key, server_name

The first source that has an identity (a key, a token, a user, a certificate) gives all of it. Settings of TLS count for
tls:// endpoints alone. An endpoint that the program names itself gets credentials of the other sources only if their url
is that endpoint: they are sent to no other broker. A file with a token or a password must not be readable by others.
Errors name the file and the key, never a value.
"""

import difflib
import os
import stat
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct

from ..endpoints import DEFAULT_ENDPOINT, Endpoints, are_tls, listed_endpoints, settled
from ..security.client_credentials import CredentialsError, credentials_from
from ..security.keys import ClientCredentials
from ..security.tls_options import Tls
from ..security.variables import credentials_in, tls_in

CONFIG_VARIABLE = "PLANARIA_CONFIG"
CONNECT_VARIABLE = "PLANARIA_CONNECT"
IDENTITY = ("key", "token", "user", "password")
SECRETS = ("token", "password")
TLS_FILES = ("ca", "certificate", "key")


class Settings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One source of a client's configuration."""

    url: str | list[str] | None = None
    key: Any = None
    """Path of a key file, or a key pair."""
    server_key: str | None = None
    token: str | None = None
    user: str | None = None
    password: str | None = None
    tls: Tls | None = None

    def __repr__(self) -> str:
        return f"Settings(url={self.url!r})"

    @property
    def has_identity(self) -> bool:
        is_certified = self.tls is not None and self.tls.certificate is not None
        return is_certified or any(getattr(self, name) is not None for name in IDENTITY)


class _FileTls(Struct, frozen=True, forbid_unknown_fields=True):
    ca: str | None = None
    certificate: str | None = None
    key: str | None = None
    server_name: str | None = None


class _File(Struct, frozen=True, kw_only=True):
    """The file itself; its keys are known."""

    url: str | list[str] | None = None
    key: Any = None
    server_key: str | None = None
    token: str | None = None
    user: str | None = None
    password: str | None = None
    tls: _FileTls | None = None


def configured(
    endpoint: Endpoints | None, environment: Mapping[str, str], given: Settings
) -> tuple[Endpoints, ClientCredentials]:
    """Return the endpoint and the credentials of a client; `given` are the program's arguments.

    Raises CredentialsError or KeyFileError.
    """
    endpoint = None if endpoint is None else settled(endpoint)
    if endpoint is not None and (given.has_identity or given.server_key is not None):
        return endpoint, _credentials([given], endpoint)  # nothing is left open
    others = [from_variables(environment), *from_file(environment)]
    url = next((each.url for each in others if each.url is not None), None)
    if endpoint is not None and not _is_same(endpoint, url):
        return endpoint, _credentials([given], endpoint)
    chosen = endpoint or settled(url or DEFAULT_ENDPOINT)
    return chosen, _credentials([given, *others], chosen)


def options_for(endpoint: Endpoints, environment: Mapping[str, str]) -> dict[str, Any]:
    """Return the credentials of a command, as options of a client: the variables hold for any endpoint, the file for its
    own."""
    files = [each for each in from_file(environment) if each.url is None or _is_same(endpoint, each.url)]
    return _options([from_variables(environment), *files], endpoint)


def from_variables(environment: Mapping[str, str]) -> Settings:
    url = environment.get(CONNECT_VARIABLE) or None
    return Settings(url=url, tls=tls_in(environment), **credentials_in(environment))


def from_file(environment: Mapping[str, str]) -> list[Settings]:
    """Return the settings in the file, if there is one. Raises CredentialsError."""
    named = environment.get(CONFIG_VARIABLE)
    path = Path(named).expanduser() if named else _default_path(environment)
    if path is None or (not named and not path.exists()):
        return []
    try:
        with path.open("rb") as file:
            mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
            values = tomllib.load(file)
    except OSError as error:
        raise CredentialsError(f"{path}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError):
        raise CredentialsError(f"{path} is not a TOML file") from None  # the error itself quotes it
    _check_names(path, values, _File.__struct_fields__)
    if isinstance(values.get("tls"), dict):
        _check_names(path, values["tls"], _FileTls.__struct_fields__)
    if mode & 0o077 and any(name in values for name in SECRETS):
        raise CredentialsError(
            f"{path}: other users can read its secrets (mode {mode:04o}); change that with chmod 600 {path}"
        )
    try:
        found = msgspec.convert(values, _File)
    except msgspec.ValidationError as error:
        where = str(error).rpartition("`$.")[2].rstrip("`")
        kind = "a table" if where == "tls" else "a text"
        raise CredentialsError(f"{path}: {where or 'a value'} must be {kind}") from None
    if found.key is not None and not isinstance(found.key, str):
        raise CredentialsError(f"{path}: key must be the path of a key file")
    return [_settings(found, path.parent)]


def _check_names(path: Path, values: Mapping[str, Any], known: tuple[str, ...]) -> None:
    for name in values:
        if name not in known:
            nearest = difflib.get_close_matches(name, known, n=1, cutoff=0)[0]
            raise CredentialsError(f"{path}: unknown key {name!r}; the nearest known one is {nearest!r}")


def _settings(found: _File, folder: Path) -> Settings:
    """Return the settings of a file; its paths are relative to its folder."""
    values = msgspec.structs.asdict(found)
    if found.key is not None:
        values["key"] = folder / Path(found.key).expanduser()
    if found.tls is not None:
        named = msgspec.structs.asdict(found.tls)
        files = {
            name: folder / Path(named[name]).expanduser() for name in TLS_FILES if named[name] is not None
        }
        values["tls"] = Tls(**{**named, **files})
    return Settings(**values)


def _default_path(environment: Mapping[str, str]) -> Path | None:
    folder = environment.get("XDG_CONFIG_HOME")
    if folder:
        return Path(folder) / "planaria" / "client.toml"
    home = environment.get("HOME")
    return Path(home) / ".config" / "planaria" / "client.toml" if home else None


def _credentials(sources: Sequence[Settings], endpoint: Endpoints) -> ClientCredentials:
    found = _options(sources, endpoint)
    if sources[0].tls is not None:
        found.setdefault("tls", sources[0].tls)  # an argument is refused for another endpoint
    return credentials_from(**found, over_tls=are_tls(endpoint))


def _options(sources: Sequence[Settings], endpoint: Endpoints) -> dict[str, Any]:
    """Return the credentials in these sources, of which earlier ones win."""
    position = next((at for at, each in enumerate(sources) if each.has_identity), len(sources) - 1)
    own = sources[position]
    earlier = [each.server_key for each in sources[: position + 1] if each.server_key is not None]
    later = [each.server_key for each in sources[position + 1 :] if each.server_key is not None]
    pinned = next(iter(earlier), None)
    if pinned is None and own.key is None:
        # A key file usually has the broker's public key itself.
        pinned = next(iter(later), None)
    found = {"server_key": pinned, **{name: getattr(own, name) for name in IDENTITY}}
    if are_tls(endpoint):
        found["tls"] = _tls([each.tls for each in sources if each.tls is not None], own.tls)
    return {name: value for name, value in found.items() if value is not None}


def _tls(given: Sequence[Tls], own: Tls | None) -> Tls | None:
    """Return the settings of TLS: the certificate and its key are those of the source that gives the identity."""
    if not given:
        return None
    return Tls(
        ca=next((each.ca for each in given if each.ca is not None), None),
        server_name=next((each.server_name for each in given if each.server_name is not None), None),
        certificate=None if own is None else own.certificate,
        key=None if own is None else own.key,
    )


def _is_same(endpoint: Endpoints, url: Endpoints | None) -> bool:
    try:
        return url is not None and listed_endpoints(endpoint) == listed_endpoints(url)
    except ValueError:
        return False
