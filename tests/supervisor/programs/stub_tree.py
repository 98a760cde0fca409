"""The supervisor's own program with stub actors in place of the broker's. Arguments as for planaria.supervisor.

STUB_TREE in the environment: JSON with "partitions" (how many), "controller" and "gateway" (arguments), "specs" (more
children, announced by the controller).
"""

import json
import os
import sys
from functools import partial
from typing import Any

from planaria.supervisor import __main__ as program
from planaria.supervisor.child_spec import DynamicSpec, SupervisorSpec
from planaria.supervisor.launcher import Launcher
from planaria.transport.addresses import Address
from planaria.transport.protocol.control import EVERYBODY, ChildSpec

MAIN = "stub_actors:main"


def tree(
    endpoint: str,
    _controller_arguments: dict[str, Any],
    *others: dict[str, Any] | None,
    is_audited: bool,
) -> SupervisorSpec:
    link, security, _http, console, tls = others
    assert link is security is console is tls is None, "no cluster, no keys, no TLS door"
    assert not is_audited, "no audit"
    wanted = json.loads(os.environ.get("STUB_TREE", "{}"))
    partitions = [
        {"address": f"partition/ORDERS/{number}", "start": MAIN}
        for number in range(wanted.get("partitions", 0))
    ]
    children = [*partitions, *wanted.get("specs", [])]
    return SupervisorSpec(
        name="stub",
        children=(
            ChildSpec(
                address=Address.parse("controller"),
                start=MAIN,
                arguments={"children": children, **wanted.get("controller", {})},
                directory=EVERYBODY,
            ),
            DynamicSpec(name="partitions", kind="partition"),
            ChildSpec(
                address=Address.parse("gateway/0"),
                start=MAIN,
                arguments={"endpoint": endpoint, **wanted.get("gateway", {})},
                directory=EVERYBODY,
            ),
            DynamicSpec(name="coordinators", kind="coordinator"),
        ),
    )


def main() -> None:
    if "STUB_LAUNCH_TIMEOUT_S" in os.environ:
        launcher = partial(Launcher, timeout_s=float(os.environ["STUB_LAUNCH_TIMEOUT_S"]))
        program.Launcher = launcher  # type: ignore[assignment, misc]
    program.broker_tree = tree  # type: ignore[assignment]
    sys.exit(program.main(sys.argv[1:]))


if __name__ == "__main__":
    # A fork server that follows a dead one is a new interpreter, whose children load the stub actors from here.
    os.environ["PYTHONPATH"] = os.path.dirname(__file__)
    main()
