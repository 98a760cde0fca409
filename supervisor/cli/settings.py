"""KEY=VALUE settings and quantities with units, as people type them: `retention_ms=7d`, `segment_bytes=64MiB`.

Called by the commands that take --set. Only parses values; the configuration decides which are allowed.
"""

import difflib
import json
import re
from collections.abc import Sequence
from typing import Any

import typer

_MILLISECONDS = {"ms": 1, "s": 1000, "m": 60_000, "h": 3_600_000, "d": 86_400_000, "w": 7 * 86_400_000}
_BYTES = {
    "b": 1, "k": 1 << 10, "kib": 1 << 10, "m": 1 << 20, "mib": 1 << 20, "g": 1 << 30, "gib": 1 << 30,
    "kb": 10**3, "mb": 10**6, "gb": 10**9, "tib": 1 << 40, "tb": 10**12,
}  # fmt: skip
_QUANTITY = re.compile(r"([0-9]+(?:\.[0-9]+)?)\s*([a-zA-Z]*)")
_NO_LIMIT = frozenset({"-1", "none", "unlimited"})


def parse_settings(pairs: Sequence[str], known: Sequence[str]) -> dict[str, Any]:
    """Parse `["a=1", ...]` into a dictionary; keys with a unit in their name take quantities. Raises BadParameter."""
    found: dict[str, Any] = {}
    for pair in pairs:
        key, equals, text = pair.partition("=")
        key = key.strip()
        if not equals:
            raise typer.BadParameter(f"{pair!r} is not like KEY=VALUE", param_hint="--set")
        if key not in known:
            nearest = difflib.get_close_matches(key, known, n=1, cutoff=0)[0]
            raise typer.BadParameter(
                f"unknown key {key!r}; the nearest known one is {nearest!r}", param_hint="--set"
            )
        found[key] = parse_value(key, text.strip())
    return found


def parse_value(key: str, text: str, option: str = "--set") -> Any:
    """Parse a number (if the key ends in a unit, or the text is one), true or false, a JSON object, or a text. Raises
    BadParameter."""
    if key.endswith("_ms"):
        return (
            -1 if text.lower() in _NO_LIMIT else _quantity(key, text, _MILLISECONDS, "500ms, 30s, 7d", option)
        )
    if key.endswith("_bytes"):
        return -1 if text.lower() in _NO_LIMIT else _quantity(key, text, _BYTES, "4096, 64KiB, 1GiB", option)
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    if text.startswith("{"):
        try:
            return json.loads(text)
        except ValueError as error:
            raise typer.BadParameter(f"{key}: {text!r} is not JSON: {error}", param_hint=option) from error
    if re.fullmatch(r"[0-9]*\.[0-9]+", text):
        return float(text)
    return int(text) if re.fullmatch(r"-?[0-9]+", text) else text


def _quantity(key: str, text: str, units: dict[str, int], examples: str, option: str) -> int:
    match = _QUANTITY.fullmatch(text)
    unit = match.group(2).lower() if match else ""
    if match is None or (unit and unit not in units):
        told = f"{text!r} is not like {examples}"
        raise typer.BadParameter(f"{key}: {told}" if option == "--set" else told, param_hint=option)
    return int(float(match.group(1)) * units[unit]) if unit else int(float(match.group(1)))
