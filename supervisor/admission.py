"""Admission of a tree's children: only as many processes as the capacity allows. Pure. Called by machine.py.

fixed child                      always
dynamic child, and there is room its process is launched; it keeps its slot until it is stopped or quarantined
otherwise                        quarantined with the limit as its reason, until a slot is free or it is revived
start_child(must_fit)            refused with LIMIT_REACHED above the share of the capacity that is for new children
"""

from collections.abc import Iterable

from ..transport.addresses import Address
from ..transport.protocol.errors import ErrorCode, ProtocolError
from .capacity import Capacity
from .children import Child
from .states import State
from .tree import Tree

_COUNTED = frozenset(State) - {State.WAITING, State.QUARANTINED, State.STOPPED, State.ASLEEP}


class Admission:
    def __init__(self, tree: Tree, capacity: Capacity) -> None:
        self._tree = tree
        self._capacity = capacity
        self._left_out: dict[Address, Child] = {}
        """Children quarantined for lack of capacity."""

    def admit(self, children: Iterable[Child]) -> tuple[list[Child], list[Child]]:
        """Split the children into those that may be launched now, and those that exceed the capacity."""
        admitted: list[Child] = []
        refused: list[Child] = []
        room = self._room()
        for child in children:
            if child.is_dynamic and room <= 0:
                refused.append(child)
                continue
            admitted.append(child)
            room -= 1
        for child in refused:
            self._left_out[child.address] = child
        return admitted, refused

    def readmit(self) -> list[Child]:
        """Return the quarantined children that fit by now; the caller launches them next."""
        if not self._left_out:
            return []
        room = self._room()
        found: list[Child] = []
        for address, child in list(self._left_out.items()):
            if self._tree.get(address) is not child or child.state is not State.QUARANTINED:
                del self._left_out[address]
            elif len(found) < room:
                found.append(self._left_out.pop(address))
        return found

    def check_new(self) -> None:
        """Raise ProtocolError if the share for new children is used up."""
        if self._taken() >= self._capacity.new_actors:
            raise ProtocolError(
                ErrorCode.LIMIT_REACHED,
                f"there are {self._taken()} actors, and the limits of this machine allow "
                f"{self._capacity.new_actors}: {self._capacity.limit}",
            )

    @property
    def reason(self) -> str:
        allowed = f"the limits of this machine allow no more than {self._capacity.actors} actors"
        return f"LIMIT_REACHED: {allowed}: {self._capacity.limit}"

    def _room(self) -> int:
        return self._capacity.actors - self._taken()

    def _taken(self) -> int:
        return self._tree.count(_COUNTED)
