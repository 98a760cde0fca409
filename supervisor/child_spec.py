"""Description of a supervision tree: strategies, order, and the groups that later children belong to.

A worker is a ChildSpec (it travels on the wire, see transport/protocol/control.py); the specs known only to the
supervisor are defined here. Built by broker_tree.py, read by tree.py. Pure.
"""

from typing import Literal, TypeAlias

from msgspec import Struct

from ..transport.protocol.control import ChildSpec

Strategy = Literal["one_for_one", "rest_for_one", "one_for_all"]


class SupervisorSpec(Struct, frozen=True, kw_only=True):
    """Inner node of the tree.

    Children are started in order, each when the earlier ones are ready, and stopped in reverse. `strategy` selects the
    siblings restarted with a worker that dies and is to be restarted: none, the later ones, or all.
    """

    name: str
    strategy: Strategy = "one_for_one"
    children: tuple["ChildSpec | SupervisorSpec | DynamicSpec", ...] = ()


class DynamicSpec(Struct, frozen=True, kw_only=True):
    """Inner node whose equal children are added by start_child and removed by stop_child.

    Always one_for_one; children start and stop concurrently, as in OTP's simple_one_for_one. Later nodes in the start
    order do not wait for them.
    """

    name: str
    kind: str
    """Kind of its children."""
    max_starting: int = 8
    """Maximum of children starting at once, so that the first ones are ready early."""


NodeSpec: TypeAlias = ChildSpec | SupervisorSpec | DynamicSpec


def with_endpoint(spec: ChildSpec, endpoint: str | None) -> ChildSpec:
    """Return the spec of the next incarnation: a child with endpoint `tcp://host:*` keeps the port it was first given."""
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
