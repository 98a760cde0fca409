"""The arguments of the actor that serves metrics and probes over HTTP. Pure.

Called by __main__.py before anything is started; actors/http/ has the actor.
"""

from typing import Any

from .. import __version__

AUTO = "auto"
"""The value of `http_endpoint` for AUTO_ENDPOINT, unless another process has that port."""
AUTO_ENDPOINT = "127.0.0.1:5572"


def http_arguments(
    http_endpoint: str, node: str, server_key_file: str, *, kafka_names: bool, has_bridge: bool
) -> dict[str, Any] | None:
    """Return the arguments of the actor for these settings; None if there is to be none. `server_key_file` is empty
    without authentication."""
    if not http_endpoint:
        return None
    is_optional = http_endpoint == AUTO
    endpoint = AUTO_ENDPOINT if is_optional else http_endpoint.removeprefix("http://")
    return {
        "endpoint": f"http://{endpoint}",
        "is_optional": is_optional,
        "node": node,
        "version": __version__,
        "kafka_names": kafka_names,
        "has_bridge": has_bridge,
        "server_key_file": server_key_file,
    }
