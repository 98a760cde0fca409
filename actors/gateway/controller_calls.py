"""Calls to the controller, kept while it is unavailable: after the gateway's start and during a controller restart.
Pure.

    controller up     called at once
    quarantined       called as well: the loop refuses it at once
    otherwise         kept until it is up, CONTROLLER_TIMEOUT_MS at most, then ACTOR_UNAVAILABLE with the reason

The tickets bound the kept calls: each belongs to a request that is not answered yet. The exchange does not keep them. It
holds a call for a receiver that is down only if the call is endless, so may be sent again and again; a change of the
catalog may be sent once, and its client is to learn in time why there is no controller. The watches are endless, and
wait there.
"""

from collections.abc import Iterable

from ...transport.addresses import CONTROLLER
from ...transport.machine import Call, CancelTimer, Effect, Failed, SetTimer
from ...transport.protocol.errors import ErrorBody, ErrorCode
from .keys import KeptCallTimer, NodesWatch, TableWatch
from .peers import Peers

CONTROLLER_TIMEOUT_MS = 5_000
"""Ten times the length of a restart."""

_WATCHES = (TableWatch, NodesWatch)


class ControllerCalls:
    def __init__(self, peers: Peers) -> None:
        self._peers = peers
        self._kept: dict[int, Call] = {}
        self._last = 0

    def keep(self, effects: list[Effect], now: int) -> list[Effect]:
        """Return the effects without the calls that have to wait."""
        if self._peers.up(CONTROLLER) is not None or self._is_quarantined:
            return effects
        return [self._kept_back(effect, now) if _may_wait(effect) else effect for effect in effects]

    def on_up(self) -> list[Effect]:
        kept, self._kept = self._kept, {}
        return [
            effect for number, call in kept.items() for effect in (CancelTimer(KeptCallTimer(number)), call)
        ]

    def on_down(self) -> list[Failed]:
        """Fail the waiting calls if the controller will not be restarted."""
        if not self._is_quarantined:
            return []
        kept, self._kept = self._kept, {}
        return list(self._failed(kept.values()))

    def on_timeout(self, number: int) -> list[Failed]:
        call = self._kept.pop(number, None)
        return list(self._failed([call] if call is not None else []))

    @property
    def _is_quarantined(self) -> bool:
        down = self._peers.down(CONTROLLER)
        return down is not None and down.quarantined

    def _kept_back(self, call: Call, now: int) -> Effect:
        self._last += 1
        self._kept[self._last] = call
        return SetTimer(KeptCallTimer(self._last), now + CONTROLLER_TIMEOUT_MS)

    def _failed(self, calls: Iterable[Call]) -> Iterable[Failed]:
        error = ErrorBody(ErrorCode.ACTOR_UNAVAILABLE, self._peers.why_down(CONTROLLER), True)
        return (Failed(call.key, error) for call in calls)


def _may_wait(effect: Effect) -> bool:
    return isinstance(effect, Call) and effect.address == CONTROLLER and type(effect.key) not in _WATCHES
