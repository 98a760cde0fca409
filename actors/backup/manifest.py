"""The list of a backup's files, and the folder of backups. The list is written last: a backup without one is unfinished.

    BACKUP/<id>/backup.json    {"format":1,"crc32c":<of the bytes of backup>,"backup":{id, taken_ms, source, files}}
    BACKUP/<id>/...            the files of the data directory, under their names there
    BACKUP/<id>.partial~       a backup that is being written, or was cut off

Ids are the time at which the backup was taken, in ms with leading zeros, and so sort by it. Called by store.py,
restore.py and verify.py.
"""

from pathlib import Path

import msgspec
from msgspec import Struct

from ...transport.batch import checksum
from ...transport.protocol.errors import PlanariaError
from ..log.files import Files

MANIFEST_NAME = "backup.json"
MANIFEST_FORMAT = 1
PARTIAL_SUFFIX = ".partial~"
ID_DIGITS = 15


class BackupFailed(PlanariaError):
    """A backup cannot be made, found or restored; the message is one line for the operator."""


class StoredFile(Struct, frozen=True, array_like=True):
    path: str
    size_bytes: int
    modified_ns: int
    """Time of the last change of the file that it was copied from: with the size it tells whether that has changed."""


class Manifest(Struct, frozen=True, kw_only=True):
    id: str
    taken_ms: int
    source: str
    """The data directory."""
    files: list[StoredFile]


class _File(Struct, kw_only=True):
    format: int
    crc32c: int
    backup: msgspec.Raw


def encode_manifest(manifest: Manifest) -> bytes:
    body = msgspec.json.encode(manifest)
    file = _File(format=MANIFEST_FORMAT, crc32c=checksum(body), backup=msgspec.Raw(body))
    return msgspec.json.encode(file) + b"\n"


def decode_manifest(data: bytes | None) -> Manifest | None:
    """Return the manifest; None unless the data are a whole and undamaged one."""
    try:
        file = msgspec.json.decode(data or b"", type=_File)
        if file.format != MANIFEST_FORMAT or checksum(bytes(file.backup)) != file.crc32c:
            return None
        return msgspec.json.decode(file.backup, type=Manifest)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return None


def backup_ids(backup: Path, files: Files) -> list[str]:
    """Return the ids of the finished backups in a folder, oldest first; their names are durable then."""
    if not backup.is_dir():
        return []
    names = files.names(backup)
    # A killed command may have left names in the cache only, its folder's own among them.
    files.sync_directory(backup)
    files.sync_directory(backup.parent)
    return [name for name in names if name.isdigit() and (backup / name / MANIFEST_NAME).exists()]


def read_manifest(backup: Path, identity: str, files: Files) -> Manifest:
    """Return the manifest of a backup. Raises BackupFailed."""
    manifest = decode_manifest(files.read_whole(backup / identity / MANIFEST_NAME))
    if manifest is None:
        raise BackupFailed(f"{backup / identity / MANIFEST_NAME} is missing or damaged")
    return manifest
