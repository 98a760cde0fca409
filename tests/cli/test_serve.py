"""`planaria serve`: one greeting, the logs beside it, and an orderly end by Ctrl-C."""

import signal
import urllib.request
from pathlib import Path

import pytest

from command_line import Command, ServedBroker
from patience import TIMEOUT_S

pytestmark = pytest.mark.processes


def test_serves_until_ctrl_c(endpoint: str, data_dir: Path) -> None:
    served = ServedBroker(data_dir, endpoint, "--http", "127.0.0.1:*")
    try:
        assert served.greeting == (
            f"planaria: serving on {endpoint} (data {data_dir}, pid {served.process.pid});"
            f' "planaria status --connect {endpoint}" shows its processes, Ctrl-C stops it'
        )
        found = served.json("status")
        assert found["supervisor_pid"] == served.process.pid
        assert {actor["state"] for actor in found["actors"]} == {"ready"}
        [http] = [actor["endpoint"] for actor in found["actors"] if actor["address"] == "http"]
        with urllib.request.urlopen(f"{http}/readyz", timeout=TIMEOUT_S) as reply:
            assert reply.status == 200
        served.interrupt()
        code, output, errors = served.finish()
        assert (code, output) == (0, "")
        assert "Traceback" not in errors
        assert "event=stopped" in errors
    finally:
        served.close()


def test_a_second_broker_on_the_data_is_refused(endpoint: str, data_dir: Path) -> None:
    served = ServedBroker(data_dir, endpoint, "--log-level", "error")
    try:
        assert str(served.process.pid) in refusal(data_dir, "tcp://127.0.0.1:*")
        in_use = f"planaria: cannot listen on {endpoint}: Address already in use\n"
        assert refusal(data_dir.with_name("other"), endpoint) == in_use
    finally:
        served.process.send_signal(signal.SIGTERM)
        assert served.finish() == (0, "", "")
        served.close()


def refusal(data: Path, endpoint: str) -> str:
    second = Command("serve", "--data", str(data), "--endpoint", endpoint, "--log-level", "error")
    code, output, errors = second.finish()
    assert (code, output) == (1, "")
    assert errors.count("\n") == 1
    return errors


def test_the_working_directory_holds_no_modules(tmp_path: Path) -> None:
    """Modules in the directory where a person starts it are never loaded in a library's place."""
    (tmp_path / "msgspec.py").write_text("raise SystemExit('taken from the working directory')")
    (tmp_path / "json.py").write_text("raise SystemExit('taken from the working directory')")
    served = Command("serve", "--endpoint", "tcp://127.0.0.1:*", "--log-level", "error", cwd=tmp_path)
    try:
        assert str(tmp_path / "planaria-data") in served.line()
    finally:
        served.interrupt()
        assert served.finish() == (0, "", "")
        served.close()
