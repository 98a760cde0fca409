"""The options of a worker, checked. Pure."""

from msgspec import Struct


class WorkerOptions(Struct, frozen=True, kw_only=True):
    app: str
    """`module:app`, as Python imports it."""
    endpoint: str
    """Endpoint of the broker, or several of a cluster."""
    folders: list[str]
    """Folders in which modules are searched, beside those of the Python installation."""
    data: str
    """Directory with the state of this worker: its identity, and the flight recorders of its subscribers."""
    processes: int = 1
    """Processes of each subscription that does not say how many."""
    is_watching: bool = False
    log_level: str = "info"
    log_format: str = "text"
