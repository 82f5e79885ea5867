"""`nightrate keys`: who may use the API."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Annotated

import typer

from pipeline.entrypoints.cli.exits import ExitCode
from pipeline.entrypoints.cli.options import AsJson, TenantOption
from pipeline.entrypoints.cli.talk import print_document, print_line, print_table, say
from pipeline.ports.access import KeyView, Scope

if TYPE_CHECKING:  # the stores are imported by the commands that open them
    from pipeline.domain.access import Role

app = typer.Typer(no_args_is_help=True, help="API keys: make, list, rotate, revoke.")

KeyArgument = Annotated[str, typer.Argument(metavar="KEY", help="Its id, as `nightrate keys list` shows it.")]


@app.command("create")
def create(
    name: Annotated[str, typer.Argument(help="What you will know it by.")],
    *,
    tenant: TenantOption = "tnt_default",
    project: Annotated[str | None, typer.Option("--project", metavar="ID", help="Confine it to a project.")] = None,
    role: Annotated[
        list[str] | None,
        typer.Option("--role", help="submit (default), read, operate, analyst, admin; may be repeated."),
    ] = None,
    window: Annotated[str | None, typer.Option("--expires-in", metavar="WINDOW", help="Such as 12h or 30d.")] = None,
    as_json: AsJson = False,
) -> int:
    """Make a key. It goes to stdout, this once; of what is stored nobody can make it again."""
    from pipeline.app.serving import KeyOrder, make_key, service_of
    from pipeline.domain.ids import ProjectId, TenantId
    from pipeline.domain.windows import parse_window
    from pipeline.entrypoints.cli.connection import connected

    lives: timedelta | None = None if window is None else parse_window(window)
    order = KeyOrder(
        tenant_id=TenantId(tenant),
        project_id=None if project is None else ProjectId(project),
        name=name,
        roles=_roles(role or ["submit"]),
        expires_at=None if lives is None else datetime.now(UTC) + lives,
    )
    with connected() as stack:
        view, text = make_key(service_of(stack), order)
    _tell_new(view, text, as_json=as_json)
    return ExitCode.OK


@app.command("list")
def list_keys(*, tenant: TenantOption = "tnt_default", as_json: AsJson = False) -> int:
    """Show a tenant's keys, without what is secret of them."""
    from pipeline.app.serving import service_of
    from pipeline.domain.ids import TenantId
    from pipeline.entrypoints.cli.connection import connected
    from pipeline.entrypoints.cli.figures import moment

    with connected() as stack:
        service = service_of(stack)
        service.tenants.tenant(TenantId(tenant))
        views = service.keys.page(Scope(tenant_id=TenantId(tenant)))
    if as_json:
        print_document({"keys": [key_document(view) for view in views]})
        return ExitCode.OK
    if not views:
        say(f"{tenant} has no keys; `nightrate keys create NAME` makes one.")
        return ExitCode.OK
    rows = [
        (
            view.key_id,
            view.name,
            view.hint,
            ", ".join(view.roles),
            view.project_id or "all",
            _standing(view),
            "never" if view.last_used_at is None else moment(view.last_used_at),
        )
        for view in views
    ]
    print_table(("ID", "NAME", "KEY", "ROLES", "PROJECT", "STANDING", "LAST USED"), rows)
    return ExitCode.OK


@app.command("rotate")
def rotate(
    key_id: KeyArgument,
    *,
    tenant: TenantOption = "tnt_default",
    overlap: Annotated[
        str,
        typer.Option("--overlap", metavar="WINDOW", help="For how long the old key lets in, too; 0 for not at all."),
    ] = "1h",
    as_json: AsJson = False,
) -> int:
    """Replace a key by one with the same terms. It goes to stdout, this once; the old one expires."""
    from pipeline.app.serving import rotate_key, service_of
    from pipeline.domain.ids import TenantId
    from pipeline.domain.windows import parse_window
    from pipeline.entrypoints.cli.connection import connected

    length = timedelta(0) if overlap == "0" else parse_window(overlap)
    with connected() as stack:
        made = rotate_key(service_of(stack), key_id, Scope(tenant_id=TenantId(tenant)), overlap=length)
    _tell_new(made.successor, made.text, as_json=as_json, replaces=made.predecessor)
    return ExitCode.OK


@app.command("revoke")
def revoke(key_id: KeyArgument, *, tenant: TenantOption = "tnt_default", as_json: AsJson = False) -> int:
    """Let a key in no more, from a second on."""
    from pipeline.app.serving import service_of
    from pipeline.domain.ids import TenantId
    from pipeline.entrypoints.cli.connection import connected

    with connected() as stack:
        view = service_of(stack).keys.revoke(key_id, Scope(tenant_id=TenantId(tenant)))
    say(f"{view.key_id} is revoked.")
    if as_json:
        print_document(key_document(view))
    return ExitCode.OK


def key_document(view: KeyView) -> dict[str, object]:
    """Return all that is known of a key."""
    return {
        "id": view.key_id,
        "tenant_id": view.tenant_id,
        "project_id": view.project_id,
        "name": view.name,
        "roles": [str(role) for role in view.roles],
        "hint": view.hint,
        "created_at": view.created_at.isoformat(),
        "expires_at": view.expires_at and view.expires_at.isoformat(),
        "revoked_at": view.revoked_at and view.revoked_at.isoformat(),
        "last_used_at": view.last_used_at and view.last_used_at.isoformat(),
    }


def _roles(words: list[str]) -> list[Role]:
    from pipeline.domain.access import Role
    from pipeline.domain.errors import UsageError

    unknown = [word for word in words if word not in set(Role)]
    if unknown:
        raise UsageError(f"{unknown[0]!r} is not a role", hint=f"there are {', '.join(Role)}")
    return [Role(word) for word in words]


def _tell_new(view: KeyView, text: str, *, as_json: bool, replaces: KeyView | None = None) -> None:
    if as_json:
        replaced = {} if replaces is None else {"replaces": key_document(replaces)}
        print_document({**key_document(view), "key": text, **replaced})
        return
    print_line(text)
    say(f"{view.key_id} for {view.project_id or view.tenant_id}: {', '.join(view.roles)}. It is shown this once.")
    if replaces is not None:
        say(f"It stands in for {replaces.key_id}, which is {_standing(replaces)}.")


def _standing(view: KeyView) -> str:
    from pipeline.entrypoints.cli.figures import moment

    if view.revoked_at is not None:
        return "revoked"
    if view.expires_at is None:
        return "valid"
    return "expired" if view.expires_at <= datetime.now(UTC) else f"valid until {moment(view.expires_at)}"
