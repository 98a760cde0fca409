"""Faults of the network between the nodes, and between a node and etcd. Called by the nemesis."""

from collections.abc import Callable, Iterable

from .network import Pair
from .rules import Rule
from .scene import Scene

CUT = Rule(is_cut=True)
SLOW = (Rule(delay_ms=50), Rule(delay_ms=400), Rule(bytes_per_second=50_000))


class NetworkFaults:
    """Each fault returns its description, or nothing if it is in force already."""

    def __init__(self, scene: Scene) -> None:
        self._cluster, self._network, self._chance, self._healing = scene

    def kinds(self) -> dict[str, Callable[[], str]]:
        return {
            "one-way": self._cut_one_way,
            "cut": self._cut,
            "alone": self._isolate,
            "storeless": self._part_from_store,
            "slow": self._slow_down,
            "reset": self._reset,
        }

    def _two(self) -> Pair:
        one, other = self._chance.sample([node.name for node in self._cluster.nodes], 2)
        return one, other

    def _cut_one_way(self) -> str:
        one, other = self._two()
        return self._rule(f"nothing arrives from {one} at {other}", [(one, other)], CUT)

    def _cut(self) -> str:
        one, other = self._two()
        return self._rule(f"nothing arrives between {one} and {other}", _both_ways(one, [other]), CUT)

    def _isolate(self) -> str:
        one, _ = self._two()
        others = [node.name for node in self._cluster.nodes if node.name != one]
        return self._rule(f"{one} is cut off from the other nodes", _both_ways(one, others), CUT)

    def _part_from_store(self) -> str:
        one, _ = self._two()
        members = [member.name for member in self._cluster.members]
        return self._rule(f"{one} is cut off from etcd", _both_ways(one, members), CUT)

    def _slow_down(self) -> str:
        one, other = self._two()
        rule = self._chance.choice(SLOW)
        what = f"{rule.delay_ms} ms late" if rule.delay_ms else f"at {rule.bytes_per_second:,} bytes a second"
        return self._rule(f"between {one} and {other} all arrives {what}", _both_ways(one, [other]), rule)

    def _reset(self) -> str:
        one, other = self._two()
        self._network.reset([(one, other)])
        return f"connections between {one} and {other} are reset"

    def _rule(self, description: str, pairs: list[Pair], rule: Rule) -> str:
        if self._healing.down.intersection(pairs):
            return ""
        self._network.apply(pairs, rule)
        return self._healing.later(description, lambda: self._network.free(pairs), *pairs)


def _both_ways(one: str, others: Iterable[str]) -> list[Pair]:
    return [pair for other in others for pair in ((one, other), (other, one))]
