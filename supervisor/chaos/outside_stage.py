"""The handlers of a pipeline in a `planaria worker`, outside the broker: the application, and its processes under faults.

The worker imports `app` by this module's name, and has its stages from the environment. Its processes are killed one by
one: the command, its supervisor, the subscribers. A command that has ended is restarted with its data directory.
"""

import os
import random
import signal
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import msgspec

from ...transport.application import App
from ..freezing import descendants, processes
from .hosted_stage import transforming
from .stage import Stage

STAGES = "PLANARIA_CHAOS_STAGES"


class OutsideStage(msgspec.Struct, frozen=True):
    stage: Stage
    folder: str
    """For the notes of the handler's calls."""
    concurrency: int


def application(stages: Sequence[OutsideStage]) -> App:
    made = App()
    for number, each in enumerate(stages):
        handler = transforming(each.stage.target, Path(each.folder))
        handler.__name__ = handler.__qualname__ = f"transform{number}"
        made.subscribe(
            each.stage.source,
            group=each.stage.group,
            delivery="exactly-once",
            concurrency=each.concurrency,
            backoff_ms=[10],
        )(handler)
    return made


class OutsideWorker:
    """A `planaria worker` that is restarted whenever it has ended."""

    def __init__(self, stages: Sequence[OutsideStage], scratch: Path, processes_each: int) -> None:
        self._stages = stages
        self._scratch = scratch
        self._processes_each = processes_each
        self._process = self._start()

    def strike(self, chance: random.Random) -> tuple[str, str]:
        """Kill one of its processes; return the kind of fault and its description."""
        found = processes()
        pid = chance.choice([self._process.pid, *sorted(descendants(found, self._process.pid))])
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        self.tend()
        return "kill worker", f"kill worker's process {pid}"

    def tend(self) -> None:
        if self._process.poll() is not None:
            self._process = self._start()

    def close(self) -> None:
        """Kill it; its processes notice that and end."""
        self._process.kill()
        self._process.wait()

    def _start(self) -> subprocess.Popen[bytes]:
        package = __name__.partition(".")[0]
        command = ["worker", f"{__name__}:app", "--connect", self._stages[0].stage.endpoint]
        options = ["--data", str(self._scratch / "worker"), "--processes", str(self._processes_each)]
        with (self._scratch / "worker.log").open("ab") as log:
            return subprocess.Popen(
                [sys.executable, "-m", package, *command, *options],
                env={**os.environ, STAGES: msgspec.json.encode(self._stages).decode()},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )


if STAGES in os.environ:
    app = application(msgspec.json.decode(os.environ[STAGES], type=list[OutsideStage]))
