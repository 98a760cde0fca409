"""Tells whether this installation has compiled modules (`[tool.planaria.compiled]` in pyproject.toml)."""

from importlib.util import find_spec

_ONE_OF_THEM = "planaria.transport.client.accumulator"


def is_compiled() -> bool:
    found = find_spec(_ONE_OF_THEM)
    return found is not None and not str(found.origin).endswith(".py")
