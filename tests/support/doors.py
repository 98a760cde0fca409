"""A broker with authentication and every door that it has, for raw clients and clients in Python."""

from pathlib import Path
from typing import Any

from planaria import Broker, Client, Tls
from planaria.supervisor.free_ports import free_ports
from planaria.supervisor.security import initialise
from planaria.transport.client.security_admin import SecurityAdmin
from planaria.transport.security.curve import ClientKeys
from planaria.transport.security.key_files import new_key_pair
from planaria.transport.security.keys import KeyPair
from raw_dealer import RawDealer
from rights_matrix import Holder
from tls_certificates import make_certificates
from tls_client import PlainTls

Raw = RawDealer | PlainTls


class DoorBroker:
    """A broker with authentication and a TLS door, its certificates, and the client of its administrator."""

    def __init__(self, folder: Path, **options: Any) -> None:
        self.files = make_certificates(folder)
        self.log = folder / "data" / "logs" / "broker.log"
        self.admin_key = folder / "admin.key"
        server = initialise(folder / "data", self.admin_key)
        self.server_key, self.server_secret = server.public_key, server.secret_key
        self.url = f"tls://127.0.0.1:{free_ports(1)[0]}"
        self.own_certificate = (self.files["client.crt"], self.files["client.key"])
        self.broker = Broker(
            folder / "data",
            endpoint="tcp://127.0.0.1:*",
            tls_endpoint=self.url,
            tls_certificate=self.files["server.crt"],
            tls_key=self.files["server.key"],
            tls_client_ca=self.files["ca.crt"],
            **options,
        )
        self.admin = Client(self.broker.endpoint, key=self.admin_key)
        self.security = SecurityAdmin.over(self.admin)

    def plain(self, *, is_certified: bool = False) -> PlainTls:
        """Return a raw client of the TLS door."""
        return PlainTls(self.url, self.files["ca.crt"], self.own_certificate if is_certified else None)

    def close(self) -> None:
        self.admin.close()
        self.broker.close()


class Doors(DoorBroker):
    """Every door, and principals with one right each."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, http_endpoint="127.0.0.1:*", http_bridge=True, hang_timeout_ms=60_000)
        self.pairs: dict[str, KeyPair] = {}
        self.tokens: dict[str, str] = {}
        self.admin.create_topic("T", 2)
        self.admin.create_topic("T.empty", 1)
        self.admin.publish("T", b"x", delay=3_600)
        with self.admin.consumer("G.idle", partitions=[("T", 0)]) as consumer:
            consumer.commit({("T", 0): 0})

    def stranger(self, door: str) -> Raw:
        if door in ("tls", "certificate"):
            return self.plain()
        return RawDealer(self.broker.endpoint, ClientKeys(new_key_pair(), self.server_key))

    def add(self, holder: Holder) -> None:
        """Make a principal that has its rights by a role, and a key and a token."""
        pair = self.pairs[holder.name] = new_key_pair(holder.name, self.server_key)
        self.security.add_key(holder.name, pair.public_key)
        self.tokens[holder.name], _ = self.security.add_token(holder.name)
        for rule in holder.rules():
            self.security.grant(f"role:{holder.name}", rule)
        self.security.set_roles(holder.name, [holder.name])

    def raw(self, door: str, name: str) -> Raw:
        if door == "curve":
            return RawDealer(self.broker.endpoint, ClientKeys(self.pairs[name], self.server_key))
        if door == "certificate":
            assert name == "client", "there is one certificate"
            return self.plain(is_certified=True)
        made = self.stranger(door)
        assert made.ask(op="hello", id=1, token=self.tokens[name])["principal"] == name
        return made

    def client(self, door: str, name: str) -> Client:
        if door == "curve":
            return Client(self.broker.endpoint, key=self.pairs[name])
        if door == "token":
            return Client(self.broker.endpoint, server_key=self.server_key, token=self.tokens[name])
        return Client(self.url, tls=Tls(ca=self.files["ca.crt"]), token=self.tokens[name])
