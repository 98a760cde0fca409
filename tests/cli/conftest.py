"""One broker for the tests of a module, started and stopped as a person does, only faster."""

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from command_line import ServedBroker


@pytest.fixture(scope="module")
def broker() -> Iterator[ServedBroker]:
    data = Path(tempfile.mkdtemp(prefix="pl-cli-", dir="/tmp"))
    options = ("--log-level", "warning", "--hang-timeout-ms", "60000")
    served = ServedBroker(data, "tcp://127.0.0.1:*", *options, is_warm=True)
    served.endpoint = served.greeting.split()[3]
    yield served
    served.interrupt()
    code, _, errors = served.finish()
    served.close()
    shutil.rmtree(data)
    assert code == 0, errors
    assert "replies dropped" not in errors  # in whatever way the commands ended
