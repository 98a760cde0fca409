"""The tree of supervisors: positions of the children, the next ones to stop, the next ones to start.

Order is decided only here. machine.py queries after each change and performs. Pure.

    start   a child gets its turn when all earlier fixed children are settled (ready, or given up); a dynamic group
            starts concurrently and delays no other child, as OTP's simple_one_for_one, which starts without children
    stop    from the last to the first, each waiting until the next one is gone; within a dynamic group all at once
    death   of a worker that is to be restarted: its supervisor's strategy sends siblings on a cycle (down, then up)
"""

from collections.abc import Iterable, Iterator
from itertools import count, islice

from ..transport.addresses import Address
from ..transport.protocol.control import EVERYBODY, ChildSpec, is_among
from .census import Census
from .changes import Changes
from .child_spec import DynamicSpec, NodeSpec, Strategy, SupervisorSpec
from .children import Child, Goal
from .locations import Locations
from .restart import RestartHistory, RestartPolicy
from .states import State


class Group:
    """An inner node: a supervisor in OTP's sense, though all of them live in one process."""

    def __init__(self, spec: SupervisorSpec | DynamicSpec, changes: Changes) -> None:
        self.name = spec.name
        self.strategy: Strategy = spec.strategy if isinstance(spec, SupervisorSpec) else "one_for_one"
        self.dynamic = spec if isinstance(spec, DynamicSpec) else None
        self.nodes: list[Child | Group] = []
        self.census = Census(changes)
        """Counts the children that are nodes of this group."""
        self.has_turn = False

    def children(self) -> Iterator[Child]:
        for node in self.nodes:
            if isinstance(node, Child):
                yield node
            else:
                yield from node.children()

    def is_cycling(self) -> bool:
        return any(child.goal is Goal.CYCLE for child in self.children())


class Listeners:
    """The children that messages reach, by the kinds of the actors that they are notified of, and by the addresses that
    they watch."""

    def __init__(self) -> None:
        self._by_kinds: dict[tuple[str, ...], dict[Child, None]] = {}
        self._kinds: dict[Child, tuple[str, ...]] = {}
        self._by_address: dict[Address, dict[Child, None]] = {}
        self._watched: dict[Child, dict[Address, None]] = {}

    def add(self, child: Child) -> None:
        self._kinds[child] = child.spec.directory
        self._by_kinds.setdefault(child.spec.directory, {})[child] = None

    def watch(self, child: Child, address: Address) -> None:
        """Notify a child of this address too, which need not have an actor."""
        self._watched.setdefault(child, {})[address] = None
        self._by_address.setdefault(address, {})[child] = None

    def remove(self, child: Child) -> None:
        kinds = self._kinds.pop(child, None)
        if kinds is not None:
            del self._by_kinds[kinds][child]
        for address in self._watched.pop(child, ()):
            watchers = self._by_address[address]
            del watchers[child]
            if not watchers:
                del self._by_address[address]

    def of(self, address: Address) -> list[Child]:
        """Return the children that are notified of this one."""
        found = dict(self._by_address.get(address, {}))
        for kinds, children in self._by_kinds.items():
            if is_among(kinds, address):
                found |= children
        return list(found)


class Tree:
    def __init__(self, spec: SupervisorSpec, policy: RestartPolicy) -> None:
        self._policy = policy
        self._children: dict[Address, Child] = {}
        self._group_of: dict[Address, Group] = {}
        self._positions = count()
        # Outlives the children: an incarnation is never reused for an address, and neither is its endpoint.
        self._incarnations: dict[Address, int] = {}
        # Children whose goal is not up. Nearly always empty, which saves walks through a tree of hundreds.
        self._leaving: set[Child] = set()
        self.listeners = Listeners()
        self.locations = Locations(self.next_incarnation, self._children.__contains__)
        self.changes = Changes()
        self.root = Group(spec, self.changes)
        self._groups = [self.root]
        """All groups, in start order; only children are ever added."""
        self._fill(self.root, spec.children)

    def _fill(self, group: Group, specs: tuple[NodeSpec, ...]) -> None:
        for spec in specs:
            if isinstance(spec, ChildSpec):
                self._add(group, spec)
                continue
            inner = Group(spec, self.changes)
            group.nodes.append(inner)
            self._groups.append(inner)
            if isinstance(spec, SupervisorSpec):
                self._fill(inner, spec.children)

    def _add(self, group: Group, spec: ChildSpec) -> Child:
        assert spec.address not in self._children
        child = Child(
            spec,
            spec,
            RestartHistory(self._policy),
            is_dynamic=group.dynamic is not None,
            census=group.census,
            position=next(self._positions),
        )
        group.census.enter(child)
        group.nodes.append(child)
        self._children[spec.address] = child
        self._group_of[spec.address] = group
        return child

    def __iter__(self) -> Iterator[Child]:
        """Iterate in start order."""
        return self.root.children()

    def among(self, kinds: tuple[str, ...]) -> Iterator[Child]:
        """Iterate over the children of these kinds, in start order."""
        for group in self._groups:
            if group.dynamic is not None and kinds != EVERYBODY and group.dynamic.kind not in kinds:
                continue
            for node in group.nodes:
                if isinstance(node, Child) and is_among(kinds, node.address):
                    yield node

    def get(self, address: Address) -> Child | None:
        return self._children.get(address)

    def add(self, spec: ChildSpec) -> Child | None:
        """Add a dynamic child; return None if no group accepts the address."""
        for group in self._groups:
            if group.dynamic is not None and spec.address.kind == group.dynamic.kind:
                return self._add(group, spec)
        return None

    def remove(self, child: Child) -> None:
        assert not child.has_process
        self._leaving.discard(child)
        del self._children[child.address]
        group = self._group_of.pop(child.address)
        group.nodes.remove(child)
        group.census.leave(child)

    def count(self, states: Iterable[State]) -> int:
        """Return the number of children in these states."""
        return sum(group.census.count(state) for group in self._groups for state in states)

    def set_goal(self, child: Child, goal: Goal) -> None:
        child.goal = goal
        if goal is Goal.UP:
            self._leaving.discard(child)
        else:
            self._leaving.add(child)

    def next_incarnation(self, address: Address) -> int:
        incarnation = self._incarnations.get(address, 0) + 1
        self._incarnations[address] = incarnation
        return incarnation

    def send_siblings_on_a_cycle(self, dead: Child) -> None:
        """`dead` is to be restarted: apply its supervisor's strategy."""
        group = self._group_of[dead.address]
        if group.strategy == "one_for_one":
            return
        # The first child of a one_for_all waits for no other, so the dead one has to wait for its turn as well.
        if group.strategy == "one_for_all":
            dead.has_turn = False
        position = group.nodes.index(dead)
        affected = group.nodes[position + 1 :] if group.strategy == "rest_for_one" else group.nodes
        for node in affected:
            if node is not dead:
                self.cycle(node)

    def cycle(self, node: Child | Group) -> None:
        """Stop the processes of a node, and start them again in their turn."""
        node.has_turn = False
        if isinstance(node, Group):
            for inner in node.nodes:
                self.cycle(inner)
        elif node.has_process and node.goal is Goal.UP:
            self.set_goal(node, Goal.CYCLE)

    def next_stops(self) -> list[Child]:
        """Return the children to stop now."""
        found: list[Child] = []
        if self._leaving:
            self._find_stops(self.root, found)
        return found

    def _find_stops(self, node: Child | Group, found: list[Child]) -> bool:
        """Return True if all departing children of `node` are gone."""
        if isinstance(node, Child):
            if node.goal is Goal.UP or not node.is_awaited:
                return True
            if node.state is not State.STOPPING:
                found.append(node)
            return False
        is_gone = True
        for inner in reversed(node.nodes):
            if not self._find_stops(inner, found):
                is_gone = False
                if node.dynamic is None:
                    break
        return is_gone

    def next_starts(self) -> tuple[list[Child], bool]:
        """Return the children to launch now, and True if all fixed children are settled."""
        found: list[Child] = []
        is_settled = self._find_starts(self.root, True, found)
        return found, is_settled

    def _find_starts(self, group: Group, has_turn: bool, found: list[Child]) -> bool:
        group.has_turn = group.has_turn or has_turn
        if self._leaving and group.is_cycling():
            return False
        if group.dynamic is not None:
            room = group.dynamic.max_starting - group.census.count(State.STARTING)
            if group.has_turn and room > 0:
                waiting = group.census.first_waiting(room + len(self._leaving))
                found += list(islice((child for child in waiting if child.goal is Goal.UP), room))
            return True
        may_start = group.has_turn
        are_settled = True
        for node in group.nodes:
            if isinstance(node, Group):
                is_settled = self._find_starts(node, may_start, found)
            else:
                is_settled = node.is_settled(group.strategy)
                node.has_turn = node.has_turn or may_start
                if node.state is State.WAITING and node.goal is Goal.UP and node.has_turn:
                    found.append(node)
            are_settled = are_settled and is_settled
            may_start = may_start and is_settled
        return are_settled
