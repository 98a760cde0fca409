"""A `planaria worker` under test: its application in a folder, its process, its log."""

import re
import subprocess
import sys
from pathlib import Path

from live_trees import until
from patience import TIMEOUT_S
from warm_start import WarmPopen


class WorkerProcess:
    def __init__(self, folder: Path, endpoint: str, *options: str, data: str = "worker") -> None:
        """Run `app` of the module shop.py in the folder."""
        self._log = folder / f"{data}.log"
        self._offset = self._log.stat().st_size if self._log.exists() else 0
        with self._log.open("ab") as log:
            self.process = WarmPopen(
                [
                    *(sys.executable, "-m", "planaria", "worker", "shop:app", "--connect", endpoint),
                    *("--app-dir", str(folder), "--data", str(folder / data), *options),
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    def __enter__(self) -> "WorkerProcess":
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()

    def log(self) -> str:
        """Return the log since this worker was started."""
        with self._log.open("rb") as file:
            file.seek(self._offset)
            return file.read().decode()

    def until_logged(self, text: str, count: int = 1) -> None:
        def look() -> bool:
            found = self.log().count(text)
            assert found >= count or self.process.poll() is None, self.log()
            return found >= count

        until(look, f"{text!r} in the worker's log")

    def pid_of(self, address: str) -> int:
        """Return the process id of the last incarnation of a subscriber."""
        self.until_logged(f'"child ready" child={address} ')
        return int(re.findall(rf'"child ready" child={re.escape(address)} .*pid=(\d+)', self.log())[-1])

    def supervisor_pid(self) -> int:
        """Return the process id of the worker's present supervisor."""
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        [pid] = children
        return int(pid)

    def stop(self) -> int:
        self.process.terminate()
        return self.process.wait(TIMEOUT_S)
