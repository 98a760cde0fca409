"""Environment variables with the credentials of a client: of the command line, and of workers. Pure."""

from collections.abc import Mapping
from typing import Any

from .tls_options import Tls

KEY_VARIABLE = "PLANARIA_KEY"
VARIABLES = {
    "key": KEY_VARIABLE,
    "server_key": "PLANARIA_SERVER_KEY",
    "token": "PLANARIA_TOKEN",
    "user": "PLANARIA_USER",
    "password": "PLANARIA_PASSWORD",
}
"""Options of a client and the variables that give them. Secrets are no options: process lists show those."""
TLS_VARIABLES = {
    "ca": "PLANARIA_TLS_CA",
    "certificate": "PLANARIA_TLS_CERTIFICATE",
    "key": "PLANARIA_TLS_KEY",
    "server_name": "PLANARIA_TLS_SERVER_NAME",
}
"""Fields of `Tls`, for tls:// endpoints."""


def credentials_in(environment: Mapping[str, str]) -> dict[str, Any]:
    """Return the credentials in an environment, as options of a client."""
    return _given(VARIABLES, environment)


def tls_in(environment: Mapping[str, str]) -> Tls | None:
    """Return the files of TLS in an environment; None if it has none."""
    found = _given(TLS_VARIABLES, environment)
    return Tls(**found) if found else None


def _given(variables: Mapping[str, str], environment: Mapping[str, str]) -> dict[str, Any]:
    return {name: environment[variable] for name, variable in variables.items() if environment.get(variable)}
