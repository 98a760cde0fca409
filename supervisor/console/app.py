"""Assembly of the console: routes, errors, static files and the guard around all of it."""

from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.routing import Mount
from starlette.staticfiles import StaticFiles

from . import (
    cluster_answers,
    group_answers,
    letter_answers,
    message_answers,
    pages,
    security_answers,
    topic_answers,
    tree_answers,
    work_answers,
)
from .failures import HANDLERS
from .guard import Guard
from .sessions import Sessions


def console_app(endpoint: str, server_key: str | None, names: Iterable[str]) -> Starlette:
    """Return the console of the broker at `endpoint`, served under these host names.

    `server_key` is the public key of a broker with authentication.
    """

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        yield
        await app.state.sessions.close()

    app = Starlette(
        routes=[
            *pages.ROUTES,
            *tree_answers.ROUTES,
            *topic_answers.ROUTES,
            *message_answers.ROUTES,
            *group_answers.ROUTES,
            *letter_answers.ROUTES,
            *work_answers.ROUTES,
            *cluster_answers.ROUTES,
            *security_answers.ROUTES,
            Mount("/static", StaticFiles(directory=pages.FOLDER / "static")),
        ],
        middleware=[Middleware(Guard, names)],
        exception_handlers=HANDLERS,
        lifespan=lifespan,
    )
    app.state.sessions = Sessions(endpoint, server_key)
    return app
