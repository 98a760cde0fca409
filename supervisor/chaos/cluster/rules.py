"""The orders that the relay takes: one JSON object per line of its standard input. Structs only."""

import msgspec

from ...local_cluster import Route


class Rule(msgspec.Struct, frozen=True):
    is_cut: bool = False
    delay_ms: int = 0
    bytes_per_second: int = 0
    """0: no limit."""


FREE = Rule()


class Order(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One line of standard input; what it does not name stays."""

    routes: list[Route] = []
    sessions: dict[int, str] = {}
    rules: list[tuple[str, str, Rule]] = []
    """Sender, receiver and rule."""
    resets: list[tuple[str, str]] = []
