"""The output of the workers of deployments: files of this node, read in parts of a bounded size. Impure.

The launcher of a worker opens its file, `GROUP-N.log`. Called by the controller's process, which waits
meanwhile: so a call reads some 256 KiB of text, and searches few MiB for the beginning of the last lines.
"""

import os
import re
from pathlib import Path
from typing import BinaryIO

from ...transport.protocol.deployments import ReadDeploymentOutput, ReadDeploymentOutputReply, WorkerOutput
from .deployments import LOGS

READ_BYTES = 256 * 1024
SEARCH_BYTES = 4 * 1024 * 1024
"""The part at the end of a file that is searched for the last lines."""
REST_BYTES = 4 * 1024
"""A longer beginning of a line counts as a line."""
_BLOCK_BYTES = 64 * 1024


def read_output(data_directory: Path, request: ReadDeploymentOutput, node: str) -> ReadDeploymentOutputReply:
    """Read from the given positions on, or the last lines. Raises OSError."""
    outputs, is_complete = _read(data_directory / LOGS, request)
    return ReadDeploymentOutputReply(node=node, outputs=outputs, is_complete=is_complete)


def _read(folder: Path, request: ReadDeploymentOutput) -> tuple[list[WorkerOutput], bool]:
    positions = {each.worker: each.position for each in request.positions}
    outputs: list[WorkerOutput] = []
    text_room, search_room = READ_BYTES, SEARCH_BYTES
    for worker, file in _files(folder, request):
        if text_room <= 0 or search_room <= 0:
            return outputs, False
        with file.open("rb") as stream:
            size = os.fstat(stream.fileno()).st_size
            start = positions.get(worker)
            if start is None:
                start = 0 if request.lines is None else _start_of_last(stream, size, request.lines)
                search_room -= size - start
            elif start > size:
                start = 0
            stream.seek(start)
            data = stream.read(min(READ_BYTES, size - start))
        output, is_whole = _output(worker, start, data, is_end=start + len(data) == size)
        outputs.append(output)
        text_room -= len(output.text)
        if not is_whole:
            return outputs, False
    return outputs, True


def _files(folder: Path, request: ReadDeploymentOutput) -> list[tuple[int, Path]]:
    # Names are compared with those in the folder: a group called "../x" finds none.
    pattern = re.compile(rf"{re.escape(request.group)}-([0-9]+)\.log")
    found = [
        (int(name[1]), path)
        for path in (folder.iterdir() if folder.is_dir() else ())
        if (name := pattern.fullmatch(path.name)) is not None
    ]
    return sorted(each for each in found if request.worker in (None, each[0]))


def _start_of_last(stream: BinaryIO, size: int, lines: int) -> int:
    """Return the beginning of the last lines, of which the very last one may be unfinished."""
    if lines == 0:
        return size
    end = max(0, size - 1)  # the last byte ends the last line, or is its part
    first = max(0, size - SEARCH_BYTES)
    missing = lines
    while end > first:
        start = max(first, end - _BLOCK_BYTES)
        stream.seek(start)
        block = stream.read(end - start)
        if (found := block.count(b"\n")) >= missing:
            at = len(block)
            for _ in range(missing):
                at = block.rindex(b"\n", 0, at)
            return start + at + 1
        missing -= found
        end = start
    return first


def _output(worker: int, start: int, data: bytes, *, is_end: bool) -> tuple[WorkerOutput, bool]:
    """Return the whole lines of a part, and True if nothing follows them but an unfinished line."""
    whole = data.rfind(b"\n") + 1
    has_rest = is_end and len(data) - whole <= REST_BYTES
    if not whole and not has_rest:
        whole = len(data)
    output = WorkerOutput(
        worker=worker,
        text=data[:whole].decode(errors="replace"),
        position=start + whole,
        rest=data[whole:].decode(errors="replace") if has_rest else "",
    )
    return output, has_rest or (is_end and whole == len(data))
