"""Effects and events of a mirror, beside those of every actor. Structs only.

AskSource    a request to the source, by the mirror's client      -> SourceAnswered | SourceFailed, exactly one
"""

from typing import TypeAlias

from msgspec import Struct

from ...transport.machine import LoopEffect, LoopEvent, Payload
from ...transport.protocol.errors import ErrorBody
from ...transport.protocol.message import Reply, Request
from .keys import SourceKey


class AskSource(Struct, frozen=True):
    key: SourceKey
    request: Request
    reply_type: type[Reply]
    timeout_ms: int


class SourceAnswered(Struct, frozen=True):
    key: SourceKey
    reply: Reply
    payload: Payload = ()


class SourceFailed(Struct, frozen=True):
    key: SourceKey
    error: ErrorBody


class Started(Struct, frozen=True):
    """The client of the source exists."""


OwnEvent: TypeAlias = Started | SourceAnswered | SourceFailed
OwnEffect: TypeAlias = AskSource
Event: TypeAlias = LoopEvent | OwnEvent
Effect: TypeAlias = LoopEffect | OwnEffect
