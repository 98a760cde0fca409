"""Rule: the permissions of every public request are stated in `actors/gateway/needs.py`.

One that is not there is refused to all but administrators.
"""

from planaria.actors.gateway.machine import REQUESTS
from planaria.actors.gateway.needs import NEEDS


def test_every_public_request_has_its_permissions() -> None:
    assert sorted(kind.__name__ for kind in REQUESTS) == sorted(kind.__name__ for kind in NEEDS)
