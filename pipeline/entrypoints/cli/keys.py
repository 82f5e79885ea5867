"""`nightrate keys`: who may use the API."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Annotated, Final

import typer

from pipeline.entrypoints.cli.exits import ExitCode
from pipeline.entrypoints.cli.options import AsJson
from pipeline.entrypoints.cli.talk import print_document, print_line, say
from pipeline.ports.access import KeyView

app = typer.Typer(no_args_is_help=True, help="API keys: make, list, revoke.")

_NAME_CHARS_MAX: Final = 100

TenantOption = Annotated[str, typer.Option("--tenant", metavar="ID", help="Whose key it is.")]


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
    from pipeline.domain.access import Role
    from pipeline.domain.errors import UsageError
    from pipeline.domain.ids import ProjectId, TenantId
    from pipeline.domain.windows import parse_window
    from pipeline.entrypoints.cli.connection import connected

    try:
        roles = [Role(word) for word in role or ["submit"]]
    except ValueError as error:
        raise UsageError(f"{error}", hint=f"there are {', '.join(Role)}") from error
    if not name or len(name) > _NAME_CHARS_MAX:
        raise UsageError(f"a key's name has 1 to {_NAME_CHARS_MAX} characters")
    lives: timedelta | None = None if window is None else parse_window(window)
    order = KeyOrder(
        tenant_id=TenantId(tenant),
        project_id=None if project is None else ProjectId(project),
        name=name,
        roles=roles,
        expires_at=None if lives is None else datetime.now(UTC) + lives,
    )
    with connected() as stack:
        view, text = make_key(service_of(stack), order)
    if as_json:
        print_document({**key_document(view), "key": text})
    else:
        print_line(text)
        say(f"{view.key_id} for {view.tenant_id}: {', '.join(view.roles)}. It is shown this once.")
    return ExitCode.OK


@app.command("list")
def list_keys(*, tenant: TenantOption = "tnt_default", as_json: AsJson = False) -> int:
    """Show a tenant's keys, without what is secret of them."""
    from pipeline.app.serving import service_of
    from pipeline.domain.ids import TenantId
    from pipeline.entrypoints.cli.connection import connected

    with connected() as stack:
        views = service_of(stack).keys.of_tenant(TenantId(tenant))
    if as_json:
        print_document({"keys": [key_document(view) for view in views]})
        return ExitCode.OK
    for view in views:
        print_line(f"{view.key_id}  {view.hint}  {','.join(view.roles)}  {_standing(view)}  {view.name}")
    return ExitCode.OK


@app.command("revoke")
def revoke(
    key_id: Annotated[str, typer.Argument(help="As `nightrate keys list` shows it.")],
    *,
    tenant: TenantOption = "tnt_default",
    as_json: AsJson = False,
) -> int:
    """Let a key in no more, from a second on."""
    from pipeline.app.serving import service_of
    from pipeline.domain.ids import TenantId
    from pipeline.entrypoints.cli.connection import connected

    with connected() as stack:
        view = service_of(stack).keys.revoke(key_id, TenantId(tenant))
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


def _standing(view: KeyView) -> str:
    if view.revoked_at is not None:
        return "revoked"
    if view.expires_at is None:
        return "valid"
    return "expired" if view.expires_at <= datetime.now(UTC) else f"until {view.expires_at:%Y-%m-%d %H:%M}Z"
