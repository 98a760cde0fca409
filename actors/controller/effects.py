"""What the controller's machine orders of its process, and what it hears back. Pure.

    SaveCatalog      the catalog of the highest revision of a turn is made durable -> CatalogSaved | CatalogNotSaved
    RemoveTopic      the files of a topic that no process has open are deleted     -> TopicRemoved | TopicNotRemoved

Loaded is the first event: the catalog is there, its processes are to be ordered.
"""

from msgspec import Struct

from ...transport.protocol.errors import ErrorBody
from .catalog import Catalog

RETRY_MS = 500
"""The controller asks again after so long whatever could not be had at once."""


class Loaded(Struct, frozen=True):
    pass


class SaveCatalog(Struct, frozen=True):
    """Make it durable by the end of the turn; only then is anything said of what it holds."""

    catalog: Catalog


class CatalogSaved(Struct, frozen=True):
    """All decisions up to `revision` are durable."""

    revision: int


class CatalogNotSaved(Struct, frozen=True):
    """There was no room; the file is as it was. Everything decided since the last save is void."""

    error: ErrorBody


class RemoveTopic(Struct, frozen=True):
    topic: str
    topic_id: str


class TopicRemoved(Struct, frozen=True):
    topic: str


class TopicNotRemoved(Struct, frozen=True):
    topic: str
    error: ErrorBody
