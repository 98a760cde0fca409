"""The effects of the controller's machine and the events that answer them. Pure.

    SaveCatalog      the catalog of the highest revision of a turn is made durable -> CatalogSaved | CatalogNotSaved
    RemoveTopic      the files of a topic that no process has open are deleted     -> TopicRemoved | TopicNotRemoved

Loaded is the first event: the catalog is loaded, and its processes have to be started.
"""

from typing import TypeAlias

from msgspec import Struct

from ...transport.machine import LoopEffect, LoopEvent
from ...transport.protocol.errors import ErrorBody
from .catalog import Catalog

RETRY_MS = 500
"""The delay before the controller repeats a failed request."""


class Loaded(Struct, frozen=True):
    pass


class SaveCatalog(Struct, frozen=True):
    """Make the catalog durable by the end of the turn; none of its changes is visible outside before."""

    catalog: Catalog


class CatalogSaved(Struct, frozen=True):
    """All decisions up to `revision` are durable."""

    revision: int


class CatalogNotSaved(Struct, frozen=True):
    """The disk was full; the file is unchanged. All decisions since the last save are void."""

    error: ErrorBody


class RemoveTopic(Struct, frozen=True):
    topic: str
    topic_id: str


class TopicRemoved(Struct, frozen=True):
    topic: str


class TopicNotRemoved(Struct, frozen=True):
    topic: str
    error: ErrorBody


OwnEvent: TypeAlias = Loaded | CatalogSaved | CatalogNotSaved | TopicRemoved | TopicNotRemoved
OwnEffect: TypeAlias = SaveCatalog | RemoveTopic
Event: TypeAlias = LoopEvent | OwnEvent
Effect: TypeAlias = LoopEffect | OwnEffect
