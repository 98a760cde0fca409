"""The store of one machine: a file, with one writer that is always in session. Impure.

    proposals of a turn -> decided in order -> one replacement of the file -> Changed and Applied of each

The file is replaced whole: written aside, synced, renamed, its directory synced. The file read at the start is
rewritten before it is trusted: a predecessor may have died between its rename and the sync of the directory, so the
cache may show a file that the medium lacks. A failed sync raises StorageFailed and ends the process (it is never
retried on the same file); a full disk is reported and changes nothing.

Entries put in the session end with the process, so the file does not have them.
"""

from collections.abc import Callable
from pathlib import Path

import msgspec

from ...transport.protocol.errors import ErrorBody, ErrorCode
from ..log.errors import StorageFull
from ..log.files import Files
from .entries import Entries
from .file_format import decode_file, encode_file
from .store import MAX_CHANGES, Entry, NotApplied, Propose, Put, Session, State, StoreEvent

SESSION = 1
"""The id of the session, which lasts as long as the process."""


class FileStore:
    def __init__(self, path: Path, files: Files) -> None:
        self.path = path
        self._files = files
        self._entries = Entries()
        self._proposals: list[Propose] = []
        self._session: list[StoreEvent] = [Session(SESSION, None)]

    @property
    def descriptor(self) -> int | None:
        return None

    def load(self, progress: Callable[[], None]) -> State:
        """Return the entries of the file; without a file, none at revision 0. Raises CatalogCorrupt, which names
        it."""
        data = self._files.read_whole(self.path)
        if data is None:
            return self._entries.state()
        revision, values = decode_file(data, str(self.path))
        try:
            self._files.replace(self.path, data)
        except StorageFull:
            self._files.sync_directory(self.path.parent)
        entries = {key: Entry(value, revision, revision) for key, value in values.items()}
        self._entries = Entries(revision, entries)
        return self._entries.state()

    def propose(self, proposal: Propose) -> None:
        assert max(len(proposal.changes), len(proposal.guards)) <= MAX_CHANGES
        for change in proposal.changes:
            if isinstance(change, Put):
                msgspec.json.decode(change.value, type=msgspec.Raw)  # a bug here would damage the file
        self._proposals.append(proposal)

    def settle(self) -> list[StoreEvent]:
        """Decide the turn's proposals and make them durable. Raises StorageFailed."""
        proposals, self._proposals = self._proposals, []
        begun, self._session = self._session, []
        if not proposals:
            return begun
        decided = self._entries.copy()
        events = [*begun, *(event for proposal in proposals for event in decided.decide(proposal))]
        try:
            self._write(decided)
        except StorageFull as full:
            error = ErrorBody(ErrorCode.STORAGE_FULL, str(full), True)
            return [*begun, *(NotApplied(proposal.number, error) for proposal in proposals)]
        self._entries = decided
        return events

    def _write(self, decided: Entries) -> None:
        if decided.revision == self._entries.revision:
            return
        values = {key: entry.value for key, entry in decided.by_key.items() if not entry.in_session}
        self._files.replace(self.path, encode_file(decided.revision, values))

    def alarms(self) -> tuple[str, ...]:
        return ()

    def close(self) -> None:
        """Do nothing: every settled turn is durable."""
