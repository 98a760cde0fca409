"""How a tree of supervisors is described: strategies, order, and where children that are added later belong.

A worker is a ChildSpec (it travels on the wire, see transport/protocol/control.py); what only the supervisor itself knows
stands here. Built by broker_tree.py, read by tree.py. Pure.
"""

from typing import Literal, TypeAlias

from msgspec import Struct

from ..transport.protocol.control import ChildSpec

Strategy = Literal["one_for_one", "rest_for_one", "one_for_all"]


class SupervisorSpec(Struct, frozen=True, kw_only=True):
    """An inner node of the tree.

    Children are started in order, each when those before it are ready, and stopped in reverse. `strategy` says who
    else is restarted when a child that is a worker dies and is to be restarted: nobody, those after it, everybody.
    """

    name: str
    strategy: Strategy = "one_for_one"
    children: tuple["ChildSpec | SupervisorSpec | DynamicSpec", ...] = ()


class DynamicSpec(Struct, frozen=True, kw_only=True):
    """An inner node whose children come and go by start_child and stop_child, equal among each other.

    Always one_for_one; children start and stop side by side, which OTP calls simple_one_for_one. What comes after in the
    order of start does not wait for them.
    """

    name: str
    prefix: str
    """Children whose address begins so belong here."""
    max_starting: int = 8
    """How many may be on their way up at once, so that the first ones are ready early."""


NodeSpec: TypeAlias = ChildSpec | SupervisorSpec | DynamicSpec


def with_endpoint(spec: ChildSpec, endpoint: str | None) -> ChildSpec:
    """The spec of the next incarnation: who was told to bind `tcp://host:*` keeps the port it was given first."""
    if endpoint is None or not str(spec.arguments.get("endpoint", "")).endswith(":*"):
        return spec
    return ChildSpec(
        address=spec.address,
        start=spec.start,
        arguments=spec.arguments | {"endpoint": endpoint},
        restart=spec.restart,
        shutdown_ms=spec.shutdown_ms,
        directory=spec.directory,
        start_timeout_ms=spec.start_timeout_ms,
    )
