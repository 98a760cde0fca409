"""The endpoint of a link for other nodes, and the keys of the connections there. Structs only."""

from msgspec import Struct

from .security.keys import ClientKeys, KeyPair


class PeerDoor(Struct, frozen=True):
    """A further endpoint of an actor, for other nodes."""

    endpoint: str
    keys: KeyPair | None
    """Keys that both sides of a connection must have, to this endpoint and to those of other nodes; None: none."""

    @property
    def client_keys(self) -> ClientKeys | None:
        return None if self.keys is None else ClientKeys(self.keys, self.keys.public_key)
