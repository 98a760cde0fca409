"""The pages: their addresses and titles, and the template of each. Data comes to a page by its script."""

from pathlib import Path

from msgspec import Struct
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route
from starlette.templating import Jinja2Templates

from ... import __version__
from .answers import answer, body_of, sessions_of
from .sessions import COOKIE

FOLDER = Path(__file__).parent
_templates = Jinja2Templates(FOLDER / "templates")


class Page(Struct, frozen=True):
    """`name` is the template and the script of the page."""

    path: str
    name: str
    title: str
    parent: str = ""
    """The page of the list that this one belongs to; empty: it is in the list itself."""

    @property
    def is_listed(self) -> bool:
        return not self.parent


PAGES = [
    Page("/", "tree", "Tree"),
    Page("/topics", "topics", "Topics"),
    Page("/topic", "topic", "Topic", "topics"),
    Page("/messages", "messages", "Messages"),
    Page("/groups", "groups", "Groups"),
    Page("/group", "group", "Group", "groups"),
    Page("/in-flight", "flight", "In flight"),
    Page("/dead-letters", "letters", "Dead letters"),
    Page("/delayed", "delayed", "Delayed"),
    Page("/transactions", "transactions", "Transactions"),
    Page("/quotas", "quotas", "Quotas"),
    Page("/cluster", "cluster", "Cluster"),
    Page("/security", "security", "Security"),
]


class SignIn(Struct, forbid_unknown_fields=True):
    user: str = ""
    password: str = ""
    token: str = ""


def _shown(page: Page) -> Route:
    async def show(request: Request) -> Response:
        sessions = sessions_of(request)
        session = sessions.of(request)
        if session is None:
            return RedirectResponse("/login", 303)
        return _templates.TemplateResponse(
            request,
            f"{page.name}.html",
            {
                "page": page,
                "pages": PAGES,
                "endpoint": sessions.endpoint,
                "user": session.user,
                "version": __version__,
            },
        )

    return Route(page.path, show, name=page.name)


async def login(request: Request) -> Response:
    if sessions_of(request).of(request) is not None:
        return RedirectResponse("/", 303)
    page = Page("/login", "login", "Sign in")
    return _templates.TemplateResponse(
        request,
        "login.html",
        {
            "page": page,
            "pages": [],
            "endpoint": sessions_of(request).endpoint,
            "user": "",
            "version": __version__,
        },
    )


async def sign_in(request: Request) -> Response:
    given = await body_of(request, SignIn)
    cookie = await sessions_of(request).sign_in(user=given.user, password=given.password, token=given.token)
    found = answer({})
    found.set_cookie(
        COOKIE, cookie, httponly=True, samesite="strict", secure=request.url.scheme == "https", path="/"
    )
    return found


async def sign_out(request: Request) -> Response:
    await sessions_of(request).sign_out(request)
    found = answer({})
    found.delete_cookie(COOKIE, path="/")
    return found


ROUTES = [
    *map(_shown, PAGES),
    Route("/login", login),
    Route("/api/login", sign_in, methods=["POST"]),
    Route("/api/logout", sign_out, methods=["POST"]),
]
