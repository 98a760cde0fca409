"""The door of the console: refuses requests that another site or another name makes, and seals every answer.

    Host            one of the names under which the console is served: a name that a stranger's DNS points at this
                    machine (DNS rebinding) is refused
    changes         need the header that only a script of the console's own pages can set, and an Origin that is the
                    Host: a form or a script of another site has neither (CSRF)
    answers         nothing is loaded from another host, framed, guessed, or kept in a cache

No decision is kept, so a page goes on after a restart of the console.
"""

from collections.abc import Iterable
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

OWN_HEADER = "x-planaria-console"
MAX_BODY_BYTES = 4 << 20
SEALS = {
    "content-security-policy": "default-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none';"
    " object-src 'none'",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
}
_READING = ("GET", "HEAD")


class Guard:
    def __init__(self, app: ASGIApp, names: Iterable[str]) -> None:
        """`names`: the host names, without a port, under which the console is served."""
        self._app = app
        self._names = frozenset(name.lower() for name in names)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        is_static = scope["path"].startswith("/static/")

        async def sealed(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers.update(SEALS)
                headers["cache-control"] = "no-cache" if is_static else "no-store"
            await send(message)

        refusal = self._refusal(scope["method"], Headers(scope=scope))
        if refusal is None:
            await self._app(scope, receive, sealed)
        else:
            status, message = refusal
            answer = JSONResponse({"error": {"code": "REFUSED", "message": message}}, status_code=status)
            await answer(scope, receive, sealed)

    def _refusal(self, method: str, headers: Headers) -> tuple[int, str] | None:
        host = headers.get("host", "")
        if _name_of(host) not in self._names:
            return 421, f"the console does not serve the host {host[:100]!r}; --allow-host adds a name"
        if method in _READING:
            return None
        if method != "POST":
            return 405, "GET and POST only"
        origin = headers.get("origin")
        if (
            headers.get(OWN_HEADER) != "1"
            or headers.get("sec-fetch-site", "same-origin") != "same-origin"
            or (origin is not None and urlsplit(origin).netloc.lower() != host.lower())
        ):
            return 403, "the request does not come from a page of this console"
        length = headers.get("content-length", "0")
        if not length.isdecimal() or int(length) > MAX_BODY_BYTES or "transfer-encoding" in headers:
            return 413, f"a body has a length of at most {MAX_BODY_BYTES} bytes"
        return None


def _name_of(host: str) -> str:
    """Return the host name of a Host header, in lower case; of an IPv6 address, with brackets."""
    name, bracket, _ = host.lower().partition("]")
    return name + bracket if bracket else host.lower().partition(":")[0]
