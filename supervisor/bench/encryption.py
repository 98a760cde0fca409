"""Rows of the bench for encryption: publishing over TCP with CURVE, and through the TLS door, as a share of the same
without.

All go through the gateway: a broker with authentication has no other way, and the plain client has a quota that limits
nothing. The two brokers run side by side and take turns, so that both are measured on the same machine. The certificate
of the TLS door is made by the command `openssl`.
"""

import shutil
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any, Literal, TypeAlias

from ...transport.client.client import Client
from ...transport.client.security_admin import SecurityAdmin
from ...transport.protocol.errors import OperatorNeeded
from ...transport.security.rights import Rule
from ...transport.security.tls_options import Tls
from ..broker import EMBEDDED_ENDPOINT, Broker
from ..free_ports import free_ports
from ..security import initialise
from .ceilings import Ceilings
from .rows import TOPIC, VALUE, Row, Scale

Way: TypeAlias = Literal["CURVE", "TLS"]
BULK_BARS: dict[Way, float] = {"CURVE": 0.6, "TLS": 0.5}
LONE_BARS: dict[Way, float] = {"CURVE": 1.2, "TLS": 1.6}
CERTIFICATE = "door.crt"
ROUNDS = 3
CLIENT_ID = "bench"
NO_LIMIT = 10**15


def bulk_row(way: Way, scale: Scale, _: Ceilings) -> Row:
    """Measure many messages, to the last acknowledgement."""
    plain: list[float] = []
    encrypted: list[float] = []
    messages = max(1, scale.messages // 5)
    with pair(way) as (open_client, secured_client):
        for number in range(1 + ROUNDS):
            for client, rates in ((open_client, plain), (secured_client, encrypted)):
                rate = _bulk(client, messages)
                if number:  # the first round makes the connections
                    rates.append(rate)
    before, after = statistics.median(plain), statistics.median(encrypted)
    return Row(
        name=f"publish over TCP with {way}, as a share of plain",
        figure=after / before,
        unit="x",
        bar=BULK_BARS[way],
        is_higher_better=True,
        ceiling=1.0,
        detail=f"{after / 1e6:.2f} M/s against {before / 1e6:.2f}",
    )


def lone_row(way: Way, scale: Scale, _: Ceilings) -> Row:
    """Measure one message at a time."""
    plain: list[float] = []
    encrypted: list[float] = []
    with pair(way) as (open_client, secured_client):
        for number in range(scale.rounds + 10):
            for client, times_us in ((open_client, plain), (secured_client, encrypted)):
                began = time.perf_counter()
                client.publish(TOPIC, VALUE)
                if number >= 10:
                    times_us.append((time.perf_counter() - began) * 1e6)
    before, after = statistics.median(plain), statistics.median(encrypted)
    return Row(
        name=f"one publish over TCP with {way}, as a multiple of plain",
        figure=after / before,
        unit="x",
        bar=LONE_BARS[way],
        is_higher_better=False,
        ceiling=1.0,
        detail=f"{after:.0f} us against {before:.0f}, median",
    )


@contextmanager
def pair(way: Way) -> Iterator[tuple[Client, Client]]:
    """Run two brokers; yield a client of the plain one and one of the one with authentication."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="planaria-bench-")))
        key = folder / "admin.key"
        initialise(folder / "secured", key)
        door = f"tls://127.0.0.1:{free_ports(1)[0]}"
        certified = {} if way == "CURVE" else _door_settings(folder, door)
        settings: dict[str, dict[str, Any]] = {"plain": {}, "secured": certified}
        brokers = [
            stack.enter_context(Broker(folder / name, endpoint=EMBEDDED_ENDPOINT, log_level="error", **more))
            for name, more in settings.items()
        ]
        for broker in brokers:
            broker.create_topic(TOPIC, 1)
        brokers[0].client.set_quota(CLIENT_ID, produce_bytes=NO_LIMIT)
        plain = stack.enter_context(Client(brokers[0].endpoint, client_id=CLIENT_ID))
        secured = stack.enter_context(Client(brokers[1].endpoint, client_id=CLIENT_ID, key=key))
        if way == "TLS":
            security = SecurityAdmin.over(secured)
            token, _ = security.add_token(CLIENT_ID)
            security.grant(CLIENT_ID, Rule(rights=("produce",), resource=f"topic:{TOPIC}"))
            tls = Tls(ca=folder / CERTIFICATE)
            secured = stack.enter_context(Client(door, client_id=CLIENT_ID, tls=tls, token=token))
        yield plain, secured


def _door_settings(folder: Path, door: str) -> dict[str, str]:
    """Make a certificate; return the settings of a TLS door. Raises OperatorNeeded without `openssl`."""
    openssl = shutil.which("openssl")
    if openssl is None:
        raise OperatorNeeded("the row needs the command openssl, which makes the certificate of the TLS door")
    certificate, key = folder / CERTIFICATE, folder / "door.key"
    new_key = ("-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
    names = ("-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1")
    files = ("-keyout", str(key), "-out", str(certificate))
    subprocess.run([openssl, "req", *new_key, *names, *files], check=True, capture_output=True)
    key.chmod(0o600)
    return {"tls_endpoint": door, "tls_certificate": str(certificate), "tls_key": str(key)}


def _bulk(client: Client, messages: int) -> float:
    with client.producer() as producer:
        publish = producer.publish
        started = time.perf_counter()
        for _ in range(messages):
            publish(TOPIC, VALUE)
        producer.flush()
        return messages / (time.perf_counter() - started)


ENCRYPTION_ROWS: dict[str, Callable[[Scale, Ceilings], Row]] = {
    "curve": partial(bulk_row, "CURVE"),
    "curve-lone": partial(lone_row, "CURVE"),
    "tls": partial(bulk_row, "TLS"),
    "tls-lone": partial(lone_row, "TLS"),
}
