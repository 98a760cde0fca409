"""Settings as people type them: KEY=VALUE, with units if the key has one."""

import pytest
import typer

from planaria.supervisor.cli.settings import parse_settings

KNOWN = (
    "retain_until_consumed",
    "retention_ms",
    "segment_bytes",
    "flush",
    "restart_intensity",
    "min_cleanable_ratio",
    "weights",
)


@pytest.mark.parametrize(
    ("pair", "value"),
    [
        ("retain_until_consumed=true", True),
        ("retain_until_consumed=False", False),
        ("retention_ms=7d", 7 * 24 * 3600 * 1000),
        ("retention_ms=1.5s", 1500),
        ("retention_ms=250", 250),
        ("retention_ms=250ms", 250),
        ("retention_ms=unlimited", -1),
        ("retention_ms=-1", -1),
        ("segment_bytes=64MiB", 64 << 20),
        ("segment_bytes=64M", 64 << 20),
        ("segment_bytes=1GB", 10**9),
        ("segment_bytes=4096", 4096),
        ("flush=interval:200ms", "interval:200ms"),
        ("flush = os", "os"),
        ("restart_intensity=3", 3),
        ("min_cleanable_ratio=0.25", 0.25),
        ('weights={"gold": 5}', {"gold": 5}),
    ],
)
def test_values(pair: str, value: object) -> None:
    assert list(parse_settings([pair], KNOWN).values()) == [value]


@pytest.mark.parametrize(
    ("pair", "message"),
    [
        ("retention=7d", "unknown key 'retention'; the nearest known one is 'retention_ms'"),
        ("retention_ms", "not like KEY=VALUE"),
        ("weights={gold: 5}", "is not JSON"),
        ("retention_ms=soon", "not like 500ms, 30s, 7d"),
        ("retention_ms=7 parsecs", "not like 500ms, 30s, 7d"),
        ("segment_bytes=7d", "not like 4096, 64KiB, 1GiB"),
        ("segment_bytes=", "not like 4096, 64KiB, 1GiB"),
    ],
)
def test_refused(pair: str, message: str) -> None:
    with pytest.raises(typer.BadParameter, match=message):
        parse_settings([pair], KNOWN)
