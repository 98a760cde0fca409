"""The text format of Prometheus, and the families that it shows."""

import re
from pathlib import Path

from planaria.actors.http.exposition import Exposition
from planaria.actors.http.families import FAMILIES, Histogram

DOCUMENT = Path(__file__).parents[2] / "docs" / "metrics.md"
UNITS = ("_seconds", "_bytes", "_total", "_records")


def test_labels_are_escaped_and_samples_of_a_family_stand_together() -> None:
    text = (
        Exposition()
        .page(
            {
                ("planaria_group_members", ('a"b\\c\nd',)): 2,
                ("planaria_uptime_seconds", ()): 1.5,
                ("planaria_group_members", ("a",)): True,
            },
            {},
        )
        .decode()
    )
    samples = [line for line in text.splitlines() if not line.startswith("#")]
    assert samples == [
        "planaria_uptime_seconds 1.5",
        'planaria_group_members{group="a"} 1',
        'planaria_group_members{group="a\\"b\\\\c\\nd"} 2',
    ]
    assert text.count("# TYPE planaria_group_members gauge\n") == 1
    assert text.endswith("\n")


def test_buckets_are_cumulative_and_in_seconds() -> None:
    histogram = Histogram((500, 2_500_000), [3, 0, 1], 4_000_000)
    text = Exposition().page({}, {("planaria_fsync_seconds", ("partition",)): histogram}).decode()
    assert [line for line in text.splitlines() if not line.startswith("#")] == [
        'planaria_fsync_seconds_bucket{actor_kind="partition",le="0.0005"} 3',
        'planaria_fsync_seconds_bucket{actor_kind="partition",le="2.5"} 3',
        'planaria_fsync_seconds_bucket{actor_kind="partition",le="+Inf"} 4',
        'planaria_fsync_seconds_sum{actor_kind="partition"} 4',
        'planaria_fsync_seconds_count{actor_kind="partition"} 4',
    ]


def test_names_follow_the_conventions_of_prometheus() -> None:
    for name, family in FAMILIES.items():
        assert re.fullmatch(r"(planaria|kafka)_[a-z_]+", name)
        assert (family.type == "counter") == name.endswith("_total"), name
        if family.type == "histogram":
            assert name.endswith(UNITS), name
        assert family.help.strip(), name


def test_the_document_lists_every_metric_as_it_is() -> None:
    rows = re.findall(
        r"^\| `((?:planaria|kafka)_\w+)` \| (\w+) \| ([^|]*) \| (.*) \|$", DOCUMENT.read_text(), re.M
    )
    shown = {name: (kind, tuple(re.findall(r"`(\w+)`", labels))) for name, kind, labels, _ in rows}
    assert shown == {name: (family.type, family.labels) for name, family in FAMILIES.items()}
