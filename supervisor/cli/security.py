"""`planaria security`, `key`, `user` and `acl`: the keys of a broker, and who may do what.

`security init` works on a data directory; all others ask the broker, as an administrator (`planaria --key FILE ...`).
"""

import getpass
import re
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeAlias

import msgspec
import typer

from ...transport.durations import duration_ms
from ...transport.protocol.security import PrincipalDescription
from ...transport.security.key_files import check_public_key, new_key_pair, read_key_file, write_key_file
from ...transport.security.principals import NAME_PATTERN
from ...transport.security.rights import RIGHTS, Rule
from ...transport.times import time_ms
from ..config import BrokerConfig
from .connection import DEFAULT_ENDPOINT, ConnectOption, JsonOption, attached, pinned_server_key
from .help_text import Command, Group
from .output import note, print_json, print_table
from .tables import Listing

if TYPE_CHECKING:
    from ...transport.client.client import Client
    from ...transport.client.security_admin import SecurityAdmin

security = typer.Typer(cls=Group, no_args_is_help=True, help="Create the keys of a broker.")
key = typer.Typer(cls=Group, no_args_is_help=True, help="Manage the keys by which clients authenticate.")
user = typer.Typer(cls=Group, no_args_is_help=True, help="Manage users, their passwords, tokens and roles.")
acl = typer.Typer(cls=Group, no_args_is_help=True, help="Grant and revoke rights.")

Principal: TypeAlias = Annotated[
    str, typer.Argument(metavar="PRINCIPAL", show_default=False, help="Name of a user or program.")
]
SubjectArgument: TypeAlias = Annotated[
    str, typer.Argument(metavar="SUBJECT", show_default=False, help="A principal, or role:NAME.")
]
Rights: TypeAlias = Annotated[
    str,
    typer.Argument(metavar="RIGHT,...", show_default=False, help=f"One or more of {', '.join(RIGHTS)}."),
]
ResourceArgument: TypeAlias = Annotated[
    str,
    typer.Argument(
        metavar="RESOURCE",
        show_default=False,
        help="topic:NAME, group:NAME or transaction:ID, each also with prefix*; or cluster.",
    ),
]
Expires: TypeAlias = Annotated[
    str | None,
    typer.Option("--expires", metavar="TIME", help="A duration such as 90d, or a time; never by default."),
]
Deny: TypeAlias = Annotated[
    bool, typer.Option("--deny", help="Make a rule that denies; it takes precedence over all others.")
]
Out: TypeAlias = Annotated[
    Path | None, typer.Option("--out", metavar="FILE", help="File of the new key; PRINCIPAL.key by default.")
]


@security.command("init", cls=Command)
def init(
    data: Annotated[
        str,
        typer.Option(
            "--data", metavar="DIRECTORY", envvar="PLANARIA_DATA", help="Data directory of the broker."
        ),
    ] = BrokerConfig().data,
    out: Annotated[
        Path, typer.Option("--out", metavar="FILE", help="File of the new administrator's key.")
    ] = Path("admin.key"),
    server_key: Annotated[
        Path | None,
        typer.Option(
            "--server-key",
            metavar="FILE",
            help="Key file of the broker on another node of the cluster, which all nodes share.",
        ),
    ] = None,
) -> None:
    """Create the keys of a broker, which has authentication from its next start on.

    Run again to replace the administrator's key; the broker's own is kept.

    Examples:
      planaria security init --data /var/lib/planaria
      planaria --key admin.key status
    """
    from ..security import initialise  # noqa: PLC0415

    server = initialise(Path(data), out, server_key)
    note(f"administrator's key: {out}")
    note(f"public key of the broker: {server.public_key}")
    note("restart the broker, then use: planaria --key " + str(out) + " COMMAND")


@key.command("create", cls=Command)
def create_key(
    principal: Principal,
    expires: Expires = None,
    out: Out = None,
    public_key: Annotated[
        str | None,
        typer.Option("--public-key", metavar="Z85", help="Register a key whose secret part is elsewhere."),
    ] = None,
    connect: ConnectOption = DEFAULT_ENDPOINT,
) -> None:
    """Create a key for a principal, and the principal if it is new. A new principal has no rights."""
    expires_ms = _expiry(expires)
    if public_key is not None:
        with attached(connect) as client:
            _admin(client).add_key(_name(principal), check_public_key(public_key, "--public-key"), expires_ms)
        note(f"{principal}: the key is registered")
        return
    path = out or Path(f"{_name(principal)}.key")
    with attached(connect) as client:
        pair = new_key_pair(principal, pinned_server_key(connect))
        # First the file: a registered key must not be lost.
        write_key_file(path, pair, f"Key of {principal}. Keep it secret.")
        try:
            _admin(client).add_key(principal, pair.public_key, expires_ms)
        except BaseException:
            path.unlink(missing_ok=True)
            raise
    note(f"{principal}: the key is in {path}")


@key.command("rotate", cls=Command)
def rotate_key(
    principal: Principal,
    out: Annotated[Path, typer.Option("--out", metavar="FILE", help="File of the new key.")],
    grace: Annotated[
        str, typer.Option("--grace", metavar="DURATION", help="Time for which the present keys stay valid.")
    ] = "1d",
    connect: ConnectOption = DEFAULT_ENDPOINT,
) -> None:
    """Create a new key for a principal; its present keys expire after the grace period."""
    grace_ms = duration_ms(grace)
    if grace_ms is None:
        raise typer.BadParameter(f"{grace!r} is not a duration such as 1d", param_hint="--grace")
    with attached(connect) as client:
        admin = _admin(client)
        found = next((each for each in admin.principals() if each.principal == principal), None)
        create_key(principal, None, out, None, connect)
        ends_ms = _now_ms() + grace_ms
        for credential in () if found is None else found.credentials:
            if credential.kind == "key" and not 0 < credential.expires_ms <= ends_ms:
                admin.add_key(principal, credential.credential, ends_ms)
    note(f"{principal}: earlier keys expire in {grace}")


@key.command("disable", cls=Command)
def disable_key(
    principal: Principal,
    public_key: Annotated[
        str,
        typer.Argument(
            metavar="KEY|TOKEN_ID", show_default=False, help="A public key, or the id of a token."
        ),
    ],
    connect: ConnectOption = DEFAULT_ENDPOINT,
) -> None:
    """Remove a key or token: its next request is refused."""
    with attached(connect) as client:
        _admin(client).remove_credential(principal, public_key)
    note(f"{principal}: removed")


@key.command("export", cls=Command)
def export_key(
    file: Annotated[Path, typer.Argument(metavar="FILE", show_default=False, help="A key file.")],
) -> None:
    """Print the public part of a key file, which is not a secret."""
    pair = read_key_file(file)
    note(f'public_key = "{pair.public_key}"')
    if pair.server_key:
        note(f'server_key = "{pair.server_key}"')


@key.command("list", cls=Command)
@user.command("list", cls=Command)
def list_principals(as_json: JsonOption = False, connect: ConnectOption = DEFAULT_ENDPOINT) -> None:
    """List the principals with their credentials and roles. No secret is shown; the broker has none.

    --json: {"principals": [{"principal", "is_disabled", "roles", "credentials": [{"kind", "credential",
    "created_ms", "expires_ms"}]}]}
    """
    with attached(connect) as client:
        found = _admin(client).principals()
    if as_json:
        print_json({"principals": msgspec.to_builtins(found)})
        return
    rows = [row for each in found for row in _rows(each)]
    print_table(
        Listing("principal", "state", "roles", "kind", "credential", "expires"), rows, empty="no principals"
    )


@user.command("add", cls=Command)
def add_user(
    principal: Principal,
    token: Annotated[
        bool, typer.Option("--token", help="Create a token instead of asking for a password.")
    ] = False,
    role: Annotated[
        list[str] | None, typer.Option("--role", metavar="ROLE", help="A role. Repeatable.")
    ] = None,
    expires: Expires = None,
    connect: ConnectOption = DEFAULT_ENDPOINT,
) -> None:
    """Add a user with a password (asked for, or read from standard input) or a token (printed once)."""
    expires_ms = _expiry(expires)
    password = None if token else _password()
    with attached(connect) as client:
        admin = _admin(client)
        if password is None:
            made, _ = admin.add_token(_name(principal), expires_ms)
            note(made)
        else:
            admin.set_password(_name(principal), password, expires_ms)
        if role is not None:
            admin.set_roles(principal, role)


@user.command("passwd", cls=Command)
def change_password(
    principal: Principal, expires: Expires = None, connect: ConnectOption = DEFAULT_ENDPOINT
) -> None:
    """Change a password: sessions that were opened with the old one end."""
    expires_ms = _expiry(expires)
    password = _password()
    with attached(connect) as client:
        _admin(client).set_password(_name(principal), password, expires_ms)


@user.command("roles", cls=Command)
def set_roles(
    principal: Principal,
    roles: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="ROLE...", show_default=False, help="All roles that the user has from now on."
        ),
    ] = None,
    connect: ConnectOption = DEFAULT_ENDPOINT,
) -> None:
    """Give a user exactly these roles."""
    with attached(connect) as client:
        _admin(client).set_roles(principal, roles or [])


@user.command("disable", cls=Command)
def disable_user(principal: Principal, connect: ConnectOption = DEFAULT_ENDPOINT) -> None:
    """Refuse all requests of a principal from now on."""
    with attached(connect) as client:
        _admin(client).disable(principal)


@user.command("enable", cls=Command)
def enable_user(principal: Principal, connect: ConnectOption = DEFAULT_ENDPOINT) -> None:
    """Accept requests of a disabled principal again."""
    with attached(connect) as client:
        _admin(client).disable(principal, False)


@user.command("remove", cls=Command)
def remove_user(principal: Principal, connect: ConnectOption = DEFAULT_ENDPOINT) -> None:
    """Remove a principal with its keys, tokens, password and rules."""
    with attached(connect) as client:
        _admin(client).remove(principal)
    note(f"{principal}: removed")


@acl.command("grant", cls=Command)
def grant(
    subject: SubjectArgument,
    rights: Rights,
    resource: ResourceArgument,
    deny: Deny = False,
    connect: ConnectOption = DEFAULT_ENDPOINT,
) -> None:
    """Grant rights on a resource, or deny them.

    Examples:
      planaria acl grant shop produce,consume 'topic:orders*'
      planaria acl grant role:readers consume 'topic:*'
      planaria acl grant shop manage topic:orders-audit --deny
    """
    with attached(connect) as client:
        _admin(client).grant(subject, _rule(rights, resource, deny))


@acl.command("revoke", cls=Command)
def revoke(
    subject: SubjectArgument,
    rights: Rights,
    resource: ResourceArgument,
    deny: Deny = False,
    connect: ConnectOption = DEFAULT_ENDPOINT,
) -> None:
    """Remove a rule, named as it was granted. It acts on the next request."""
    with attached(connect) as client:
        _admin(client).revoke(subject, _rule(rights, resource, deny))


@acl.command("list", cls=Command)
def list_rules(as_json: JsonOption = False, connect: ConnectOption = DEFAULT_ENDPOINT) -> None:
    """List all rules.

    --json: {"rules": {subject: [{"effect", "rights", "resource"}]}}
    """
    with attached(connect) as client:
        rules = _admin(client).rules()
    if as_json:
        print_json({"rules": msgspec.to_builtins(rules)})
        return
    rows = [
        (subject, rule.effect, ", ".join(rule.rights), rule.resource)
        for subject, found in rules.items()
        for rule in found
    ]
    print_table(Listing("subject", "effect", "rights", "resource"), rows, empty="no rules")


@acl.command("test", cls=Command)
def check_access(
    principal: Principal,
    right: Annotated[str, typer.Argument(metavar="RIGHT", show_default=False, help="One right.")],
    resource: ResourceArgument,
    as_json: JsonOption = False,
    connect: ConnectOption = DEFAULT_ENDPOINT,
) -> None:
    """Print whether a principal has a right, and which rule decides. Exits with 1 if it has not.

    --json: {"is_allowed", "subject", "rule"}
    """
    [wanted] = _rule(right, resource, False).rights
    with attached(connect) as client:
        found = _admin(client).test(principal, wanted, resource)
    if as_json:
        print_json(found)
    elif found.rule is None:
        note("denied: no rule allows it")
    else:
        note(f"{'allowed' if found.is_allowed else 'denied'} by {found.subject}: {found.rule}")
    if not found.is_allowed:
        raise typer.Exit(1)


def _rows(found: PrincipalDescription) -> list[tuple[str, ...]]:
    state, roles = "disabled" if found.is_disabled else "enabled", ", ".join(found.roles) or "-"
    if not found.credentials:
        return [(found.principal, state, roles, "-", "-", "-")]
    return [
        (found.principal, state, roles, each.kind, each.credential, _time(each.expires_ms))
        for each in found.credentials
    ]


def _time(at_ms: int) -> str:
    return "never" if not at_ms else time.strftime("%Y-%m-%d %H:%M", time.localtime(at_ms / 1000))


def _rule(rights: str, resource: str, deny: bool) -> Rule:
    given = {"effect": "deny" if deny else "allow", "rights": rights.split(","), "resource": resource}
    for right in given["rights"]:
        if right not in RIGHTS:
            raise typer.BadParameter(f"{right!r} is not one of the rights {', '.join(RIGHTS)}")
    try:
        return msgspec.convert(given, Rule)
    except msgspec.ValidationError as error:
        raise typer.BadParameter(
            f"{resource!r} is not topic:NAME, group:NAME, transaction:ID, one of these with prefix*, or cluster"
        ) from error


def _expiry(text: str | None) -> int:
    """Return ms since the epoch; 0 for never."""
    if text is None:
        return 0
    span = duration_ms(text)
    at_ms = time_ms(text) if span is None else _now_ms() + span
    if at_ms is None:
        raise typer.BadParameter(
            f"{text!r} is neither a duration such as 90d nor a time", param_hint="--expires"
        )
    return at_ms


def _name(text: str) -> str:
    if re.fullmatch(NAME_PATTERN, text) is None:
        raise typer.BadParameter(
            f"{text!r} is not a valid name: 1 to 200 of A-Z a-z 0-9 . _ @ -", param_hint="PRINCIPAL"
        )
    return text


def _password() -> str:
    if not sys.stdin.isatty():
        return sys.stdin.readline().rstrip("\n")
    password = getpass.getpass("Password: ")
    if getpass.getpass("Again: ") != password:
        raise typer.BadParameter("the two passwords differ")
    return password


def _admin(client: "Client") -> "SecurityAdmin":
    from ...transport.client.security_admin import SecurityAdmin  # noqa: PLC0415

    return SecurityAdmin.over(client)


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
