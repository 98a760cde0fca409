"""The text format of Prometheus, version 0.0.4. Pure.

https://prometheus.io/docs/instrumenting/exposition_formats/
"""

from collections.abc import Iterable, Mapping

from .families import FAMILIES, Family, Histogram, Labels, Samples

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_MICROSECONDS = 1e6


def page(samples: Samples, histograms: Mapping[tuple[str, Labels], Histogram]) -> bytes:
    """Return a page. Families come in the order of FAMILIES, the samples of a family in that of their labels."""
    by_family: dict[str, list[tuple[Labels, float | Histogram]]] = {}
    for (name, labels), value in samples.items():
        by_family.setdefault(name, []).append((labels, value))
    for (name, labels), histogram in histograms.items():
        by_family.setdefault(name, []).append((labels, histogram))
    lines: list[str] = []
    for name, family in FAMILIES.items():
        found = by_family.get(name)
        if found:
            lines += _family(name, family, sorted(found, key=lambda each: each[0]))
    lines.append("")
    return "\n".join(lines).encode("utf-8", "replace")


def _family(name: str, family: Family, found: Iterable[tuple[Labels, float | Histogram]]) -> Iterable[str]:
    yield f"# HELP {name} {_escaped(family.help)}"
    yield f"# TYPE {name} {family.type}"
    for labels, value in found:
        pairs = [f'{label}="{_quoted(text)}"' for label, text in zip(family.labels, labels, strict=True)]
        if isinstance(value, Histogram):
            yield from _histogram(name, pairs, value)
        else:
            yield f"{name}{_braced(pairs)} {number(value)}"


def _histogram(name: str, pairs: list[str], histogram: Histogram) -> Iterable[str]:
    total = 0
    bounds = [*(number(bound / _MICROSECONDS) for bound in histogram.bounds_us), "+Inf"]
    for bound, count in zip(bounds, histogram.counts, strict=True):
        total += count
        bucket = _braced([*pairs, f'le="{bound}"'])
        yield f"{name}_bucket{bucket} {total}"
    yield f"{name}_sum{_braced(pairs)} {number(histogram.total_us / _MICROSECONDS)}"
    yield f"{name}_count{_braced(pairs)} {total}"


def number(value: float) -> str:
    if isinstance(value, int):
        return str(int(value))  # a bool, too
    return str(int(value)) if value.is_integer() and abs(value) < 1e15 else repr(value)


def _braced(pairs: list[str]) -> str:
    return f"{{{','.join(pairs)}}}" if pairs else ""


def _quoted(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace("\n", "\\n")
