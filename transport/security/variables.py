"""Environment variables with the credentials of a client: of the command line, and of workers. Pure."""

from collections.abc import Mapping
from typing import Any

KEY_VARIABLE = "PLANARIA_KEY"
VARIABLES = {
    "key": KEY_VARIABLE,
    "server_key": "PLANARIA_SERVER_KEY",
    "token": "PLANARIA_TOKEN",
    "user": "PLANARIA_USER",
    "password": "PLANARIA_PASSWORD",
}
"""Options of a client and the variables that give them. Secrets are no options: process lists show those."""


def credentials_in(environment: Mapping[str, str]) -> dict[str, Any]:
    """Return the credentials in an environment, as options of a client."""
    return {name: environment[variable] for name, variable in VARIABLES.items() if environment.get(variable)}
