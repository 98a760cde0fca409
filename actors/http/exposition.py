"""The text format of Prometheus, version 0.0.4. Pure.

https://prometheus.io/docs/instrumenting/exposition_formats/
"""

from collections.abc import Mapping
from itertools import accumulate
from typing import TypeAlias

from msgspec import Struct

from .families import FAMILIES, Family, Histogram, Labels, Samples

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_MICROSECONDS = 1e6
_Key: TypeAlias = tuple[str, Labels]


class _Section(Struct):
    """A family with its samples, in the order of their labels."""

    heading: str
    is_histogram: bool
    keys: list[_Key]


class Exposition:
    """Writes the pages of one path. Names and labels change seldom, so their text is kept from page to page."""

    def __init__(self) -> None:
        self._samples: dict[_Key, str] = {}
        """The text before the number of a sample."""
        self._histograms: dict[_Key, tuple[str, ...]] = {}
        """The texts before the numbers of a histogram: of each bucket, the sum and the count."""
        self._sections: list[_Section] = []
        """In the order of FAMILIES."""

    def page(self, samples: Samples, histograms: Mapping[_Key, Histogram]) -> bytes:
        if samples.keys() != self._samples.keys() or histograms.keys() != self._histograms.keys():
            self._learn(samples, histograms)
        lines: list[str] = []
        for section in self._sections:
            lines.append(section.heading)
            if section.is_histogram:
                for key in section.keys:
                    lines += _histogram(self._histograms[key], histograms[key])
            else:
                texts = self._samples
                lines += [texts[key] + number(samples[key]) for key in section.keys]
        lines.append("")
        return "\n".join(lines).encode("utf-8", "replace")

    def _learn(self, samples: Samples, histograms: Mapping[_Key, Histogram]) -> None:
        """Write the texts that are new, forget those that are gone, and put all in order."""
        known, read = self._samples, self._histograms
        self._samples = {key: known.get(key) or _sample_text(key) for key in samples}
        self._histograms = {
            key: read.get(key) or _histogram_texts(key, histogram) for key, histogram in histograms.items()
        }
        by_family: dict[str, list[_Key]] = {}
        for key in (*samples, *histograms):
            by_family.setdefault(key[0], []).append(key)
        self._sections = [
            _Section(_heading(name, family), family.type == "histogram", sorted(by_family[name]))
            for name, family in FAMILIES.items()
            if name in by_family
        ]


def _heading(name: str, family: Family) -> str:
    return f"# HELP {name} {_escaped(family.help)}\n# TYPE {name} {family.type}"


def _sample_text(key: _Key) -> str:
    return f"{key[0]}{_braced(_pairs(key))} "


def _histogram_texts(key: _Key, histogram: Histogram) -> tuple[str, ...]:
    name, pairs = key[0], _pairs(key)
    bounds = [*(number(bound / _MICROSECONDS) for bound in histogram.bounds_us), "+Inf"]
    buckets = (_braced([*pairs, f'le="{bound}"']) for bound in bounds)
    labels = _braced(pairs)
    return (*(f"{name}_bucket{each} " for each in buckets), f"{name}_sum{labels} ", f"{name}_count{labels} ")


def _histogram(texts: tuple[str, ...], histogram: Histogram) -> list[str]:
    totals = list(accumulate(histogram.counts))
    numbers = [*map(str, totals), number(histogram.total_us / _MICROSECONDS), str(totals[-1])]
    return [text + each for text, each in zip(texts, numbers, strict=True)]


def _pairs(key: _Key) -> list[str]:
    name, labels = key
    return [f'{label}="{_quoted(text)}"' for label, text in zip(FAMILIES[name].labels, labels, strict=True)]


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
