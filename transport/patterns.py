"""Texts of a required form: the pattern that checks each, and its description in words. Pure.

A pattern lets msgspec refuse a value, but is hard to read. So code that reports a refusal translates it with
`in_words`. Used where requests are decoded and where the configuration is read.
"""

import re

ENDPOINT = r"^tcp://([^/:\[\]\s]+|\[[0-9A-Fa-f:.]+(%[\w.-]+)?\]):([0-9]{1,5}|\*)$"
"""Where a broker listens: `*` and the name of a network interface are hosts, too."""
ADVERTISED = r"^(tcp://([^/:\[\]\s]+|\[[0-9A-Fa-f:.]+(%[\w.-]+)?\]):[0-9]{1,5})?$"
"""Where other machines can reach a broker: with a port."""
LISTEN = r"^(([^/:\[\]\s]+|\[[0-9A-Fa-f:.]+(%[\w.-]+)?\]):[0-9]{1,5})?$"
HTTP_ENDPOINT = r"^(auto|(http://)?([^/:\[\]\s]+|\[[0-9A-Fa-f:.]+(%[\w.-]+)?\]):([0-9]{1,5}|\*))?$"
"""Where metrics and probes are served."""
TLS_ENDPOINT = r"^(tls://([^/:\[\]\s]+|\[[0-9A-Fa-f:.]+(%[\w.-]+)?\]):[0-9]{1,5})?$"
"""Where the TLS door listens; empty: there is none."""
CLUSTER = r"^(etcd://[^/\s]+/[A-Za-z0-9._-]+)?$"
FLUSH = r"^(batch|os|interval:[0-9]+(ms|s))$"
WILDCARD = r"^[A-Za-z0-9._*?-]{1,200}$"

_WORDS = {
    ENDPOINT: "tcp://HOST:PORT, or * as the port for one that is free",
    ADVERTISED: "tcp://HOST:PORT",
    LISTEN: "HOST:PORT; empty: none",
    HTTP_ENDPOINT: "HOST:PORT, or * as the port for one that is free, or auto; empty: none",
    TLS_ENDPOINT: "tls://HOST:PORT",
    CLUSTER: "etcd://HOST:PORT,HOST:PORT/NAME",
    WILDCARD: "a name, or a pattern with * and ?",
    FLUSH: "batch, os, or interval: and a time such as 100ms or 5s",
}

_NAME = re.compile(r"[A-Za-z0-9._-]{1,200}")
_NAME_IN_WORDS = "1 to 200 of the characters A-Z a-z 0-9 . _ - and neither '.' nor '..'"


def name_fault(name: object) -> str | None:
    """Return why a topic or group cannot have this name: names become those of directories and parts of addresses."""
    if isinstance(name, str) and _NAME.fullmatch(name) and name not in (".", ".."):
        return None
    return f"{repr(name)[:250]} is not a valid name: {_NAME_IN_WORDS}"


def in_words(refusal: str) -> str:
    """Return the refusal with its pattern, if it quotes one, replaced by words."""
    for pattern, words in _WORDS.items():
        refusal = refusal.replace(f"`str` matching regex {pattern!r}", words)
    return refusal
