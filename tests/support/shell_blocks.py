"""The shell blocks of the documentation, and a terminal that runs them.

A block of the kind `console` has commands after `$ `, and below a command the output that it prints; a block of the kind
`bash` has commands only. Commands run in a scratch folder, against a broker at a free port: the addresses and the
absolute paths of the documentation are replaced.

    plain commands        in the test's process, as all tests of the command line do: they start faster
    pipelines, curl       by bash, with `planaria` and `python` in its PATH
    that run until Ctrl-C in the background until they are ready; Ctrl-C at the end of the page
"""

import os
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from command_line import PROGRAM, Done, environment, planaria
from documents import Block
from patience import TIMEOUT_S, wait_until
from planaria.supervisor.free_ports import free_ports

CLIENTS, HTTP, CONSOLE = "tcp://127.0.0.1:5570", "127.0.0.1:5572", "127.0.0.1:5573"
"""The addresses of the documentation."""
FOLDERS = ("/etc/planaria", "/etc/shop", "/mnt/backups", "/srv/shop", "/var/lib")
KINDS = ("console", "bash")
OPERATORS = set("|&;<>$`")
UNTIL_CTRL_C = {
    r"planaria serve\b": "planaria: serving",
    r"planaria worker\b": '"worker ready"',
    r"planaria console\b": "planaria: console of",
    r"planaria lag .*--watch\b": "\n",
    r"planaria deploy logs .*--follow\b": "\n",
}
"""Commands that end at Ctrl-C, with the output that shows that they work."""


class Step(NamedTuple):
    command: str
    shown: list[str]
    """Lines of output that the documentation shows."""
    line: int


def steps_of(block: Block) -> Iterator[Step]:
    lines = iter(enumerate(block.text.splitlines(), block.line))
    step: Step | None = None
    for number, line in lines:
        is_command = block.kind == "bash" or line.startswith("$ ")
        if not is_command:
            assert step is not None, f"line {number}: output before any command"
            step.shown.append(line)
            continue
        if step is not None:
            yield step
        command = line.removeprefix("$ ")
        while not _is_complete(command):
            following = next(lines)[1]
            command = (
                command[:-1] + following.lstrip() if command.endswith("\\") else f"{command}\n{following}"
            )
        step = Step(command, [], number)
    if step is not None:
        yield step


def _is_complete(command: str) -> bool:
    try:
        shlex.split(command, comments=True)
    except ValueError:
        return False
    return not command.endswith("\\")


class Terminal:
    """Runs commands, one after the other, in a folder; `close` ends those that still run."""

    def __init__(self, folder: Path, endpoint: str | None = None) -> None:
        """Without an endpoint one of the commands starts the broker."""
        self.folder = folder
        clients, http, console = free_ports(3)
        self.served = f"tcp://127.0.0.1:{clients}"
        """The endpoint of the broker that one of the commands starts."""
        self.endpoint = endpoint or self.served
        self._own = {CLIENTS: self.served, HTTP: f"127.0.0.1:{http}", CONSOLE: f"127.0.0.1:{console}"}
        self._running: list[tuple[str, subprocess.Popen[bytes], Path]] = []
        for each in FOLDERS:
            (folder / each.removeprefix("/")).mkdir(parents=True, exist_ok=True)
        self._programs = folder / "bin"
        self._programs.mkdir()
        for name, words in {"planaria": PROGRAM, "python": [sys.executable]}.items():
            program = self._programs / name
            program.write_text(f'#!/bin/sh\nexec {shlex.join(words)} "$@"\n')
            program.chmod(0o755)
        # A status of 400 and more is a failure.
        (folder / ".curlrc").write_text("fail-with-body\nsilent\nshow-error\n")

    def local(self, text: str) -> str:
        """Return a text of the documentation with the addresses and paths of this terminal."""
        replaced = {
            "/srv/shop/.venv/bin/python": sys.executable,
            ".venv/bin/planaria": "planaria",
            **{each: os.fspath(self.folder) + each for each in FOLDERS},
            **self._own,
            CLIENTS: self.endpoint,
            "tcp://broker:5570": self.endpoint,
        }
        names = sorted(replaced, key=len, reverse=True)
        return re.sub("|".join(map(re.escape, names)), lambda found: replaced[found[0]], text)

    def run(self, step: Step, *, changed: Mapping[str, str] | None = None) -> None:
        """Run a command; `changed` has replacements in its text. Raises AssertionError if it fails."""
        command = self.local(step.command)
        for before, after in (changed or {}).items():
            assert before in command, (before, command)
            command = command.replace(before, after)
        ready = next((text for begun, text in UNTIL_CTRL_C.items() if re.match(begun, command)), None)
        if ready is not None:
            output = self._start(command.removesuffix("&"), ready)
        else:
            done = self._in_process(command) or self._by_bash(command)
            assert done.returncode == 0, (command, done)
            output = done.stdout
        # Beside the default endpoint, a command that is proposed names the broker.
        printed = {_masked(line.replace(f" --connect {self.endpoint}", "")) for line in output.splitlines()}
        for line in step.shown:
            assert _masked(self.local(line)) in printed, (command, line, output)

    def _variables(self) -> dict[str, str]:
        return {
            "PLANARIA_ENDPOINT": self.endpoint,
            "PLANARIA_HTTP_ENDPOINT": self._own[HTTP],
            "HOME": os.fspath(self.folder),
            "PATH": f"{self._programs}:{os.environ['PATH']}",
        }

    def _in_process(self, command: str) -> Done | None:
        """Run a command of planaria; None if it needs a shell."""
        words = shlex.split(command, comments=True)
        is_plain = words[0] == "planaria" and not OPERATORS.intersection("".join(words))
        return planaria(*words[1:], **self._variables()) if is_plain else None

    def _by_bash(self, command: str) -> Done:
        done = subprocess.run(
            ["bash", "-o", "pipefail", "-c", command],
            **self._surroundings(),
            capture_output=True,
            text=True,
            timeout=TIMEOUT_S,
            check=False,
        )
        return Done(done.returncode, done.stdout, done.stderr)

    def _start(self, command: str, ready: str) -> str:
        if command.startswith("planaria serve"):
            self.endpoint = self.served
        if command.startswith("planaria console"):
            command = command.partition("#")[0] + f" --listen {self._own[CONSOLE]}"
        path = self.folder / f"output-{len(self._running)}"
        with path.open("wb") as output:
            process = subprocess.Popen(
                ["bash", "-c", f"exec {command}"],
                **self._surroundings(),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                process_group=0,  # Ctrl-C reaches all processes of a command
            )
        self._running.append((command, process, path))

        def is_ready() -> bool:
            assert process.poll() is None, (command, path.read_text())
            return ready in path.read_text()

        wait_until(is_ready)
        return path.read_text()

    def _surroundings(self) -> dict[str, object]:
        return {"cwd": self.folder, "env": environment(**self._variables())}

    def interrupt(self, begun: str = "") -> None:
        """Press Ctrl-C in the running commands that begin so, the last one first."""
        for each in reversed(self._running.copy()):
            command, process, path = each
            if not command.startswith(begun):
                continue
            self._running.remove(each)
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGINT)
            code = process.wait(TIMEOUT_S)
            assert code in (0, 130), (command, code, path.read_text())

    def close(self) -> None:
        """End all commands, also after a failure."""
        try:
            self.interrupt()
        finally:
            for _, process, _ in self._running:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()


def _masked(line: str) -> str:
    """Return a line without its numbers and its repeated blanks, which differ from run to run."""
    return re.sub(r"\d+(?:[.,]\d+)*", "#", " ".join(line.split()))
