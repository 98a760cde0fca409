"""Mirrors: topics of another broker that are copied to this one (docs/mirrors.md). Part of Client and Broker.

Creating and deleting are made once (`AdminRequests._ask_once`); other requests are retried until the request timeout.
"""

from collections.abc import Iterable

from ..protocol.errors import ErrorCode, ProtocolError
from ..protocol.message import Done
from ..protocol.mirrors import (
    ChangeMirror,
    CreateMirror,
    ListMirrors,
    ListMirrorsReply,
    MirrorSpec,
    PromoteMirror,
    PromoteMirrorReply,
)
from .admin_requests import AdminRequests
from .descriptions import described, described_mirror
from .mirror_descriptions import MirrorDescription, MirrorFork


class MirrorAdmin(AdminRequests):
    """Create, change, promote and delete mirrors."""

    def create_mirror(
        self,
        mirror: str,
        topics: str | Iterable[str],
        *,
        source: str | Iterable[str],
        groups: str | Iterable[str] = "*",
        bytes_per_second: int = -1,
        key_file: str = "",
        server_key: str = "",
        user: str = "",
        password_file: str = "",
        token_file: str = "",
        failback: bool = False,
    ) -> None:
        """Copy topics of another broker from now on: names, or patterns with `*` and `?`.

            client.create_mirror("paris", ["ORDERS*", "PAYMENTS"], source="tcp://paris:5570")
            client.create_mirror("rome", "ORDERS*", source="tcp://rome:5570", failback=True)

        `source` has one endpoint or several. With `failback` topics of this broker follow those that were promoted in
        their place; records that only this broker has are set aside. Files are on every node of this broker.
        `bytes_per_second` limits the traffic, -1: no limit. Not copied are delayed messages before they are due, share
        groups, transactional ids, quotas, principals and deployments. Raises ProtocolError with INVALID_CONFIG if there
        is a mirror of this name, and INVALID_REQUEST for a wrong value, TimedOut.
        """
        spec = MirrorSpec(
            source=_joined(source),
            topics=_texts(topics),
            groups=_texts(groups),
            bytes_per_second=bytes_per_second,
            key_file=key_file,
            server_key=server_key,
            user=user,
            password_file=password_file,
            token_file=token_file,
            is_failback=failback,
        )

        def exists(_: ProtocolError) -> bool:
            found = self._ask(ListMirrors(), ListMirrorsReply).mirrors
            return any(each.mirror == mirror and each.spec == spec for each in found)

        self._ask_once(CreateMirror(mirror=mirror, spec=spec), exists)

    def list_mirrors(self) -> list[MirrorDescription]:
        """Return the mirrors of this broker, with the state and the lag of each partition.

            behind = {each.mirror: [topic.partitions for topic in each.topics] for each in client.list_mirrors()}

        Raises TimedOut.
        """
        return [described_mirror(each) for each in self._ask(ListMirrors(), ListMirrorsReply).mirrors]

    def pause_mirror(self, mirror: str) -> None:
        """Stop copying until the mirror is resumed. Its topics take no producers.

            client.pause_mirror("paris")

        Raises ProtocolError with UNKNOWN_MIRROR, TimedOut.
        """
        self._ask(ChangeMirror(mirror=mirror, action="pause"), Done)

    def resume_mirror(self, mirror: str) -> None:
        """Copy again after a pause; topics that are faulted try again, too.

            client.resume_mirror("paris")

        Raises ProtocolError with UNKNOWN_MIRROR, TimedOut.
        """
        self._ask(ChangeMirror(mirror=mirror, action="resume"), Done)

    def throttle_mirror(self, mirror: str, bytes_per_second: int) -> None:
        """Limit the traffic of a mirror; -1: no limit.

            client.throttle_mirror("paris", 10_000_000)

        Raises ProtocolError with UNKNOWN_MIRROR, or INVALID_REQUEST for a wrong value, TimedOut.
        """
        self._ask(ChangeMirror(mirror=mirror, bytes_per_second=bytes_per_second), Done)

    def promote_mirror(self, mirror: str, topics: Iterable[str] | None = None) -> dict[str, list[MirrorFork]]:
        """Let the copies of a mirror take producers, all of them (None) or some. Return their forks by topic.

            forks = client.promote_mirror("paris")["ORDERS"]

        Records between a fork's `offset` and its `source_high_watermark` were not copied. Repeating it is harmless.
        Raises ProtocolError with UNKNOWN_MIRROR or NOT_MIRRORED, TimedOut: then the broker goes on with it.
        """
        request = PromoteMirror(mirror=mirror, topics=None if topics is None else list(topics))
        found = self._ask(request, PromoteMirrorReply).topics
        return {each.topic: [described(MirrorFork, fork) for fork in each.forks] for each in found}

    def delete_mirror(self, mirror: str) -> None:
        """Delete a mirror. Its topics stay; those that were not promoted take no producers, and can still be promoted.

            client.delete_mirror("paris")

        Raises ProtocolError with UNKNOWN_MIRROR, TimedOut.
        """
        request = ChangeMirror(mirror=mirror, action="delete")
        self._ask_once(request, lambda error: error.code == ErrorCode.UNKNOWN_MIRROR)


def _texts(given: str | Iterable[str]) -> tuple[str, ...]:
    return (given,) if isinstance(given, str) else tuple(given)


def _joined(endpoints: str | Iterable[str]) -> str:
    return ",".join(_texts(endpoints))
