"""`nightrate tenants`: who pays."""

from __future__ import annotations

from typing import Annotated

import typer

from pipeline.entrypoints.cli.exits import ExitCode
from pipeline.entrypoints.cli.options import AsJson
from pipeline.entrypoints.cli.talk import print_document, print_line, print_table, say
from pipeline.ports.access import TenantView

app = typer.Typer(no_args_is_help=True, help="Tenants: make, list, rename.")

NameArgument = Annotated[str, typer.Argument(metavar="NAME", help="1 to 100 characters.")]


@app.command("create")
def create(name: NameArgument, *, as_json: AsJson = False) -> int:
    """Make a tenant, with a default project; its id goes to stdout."""
    from pipeline.app.serving import make_tenant, service_of
    from pipeline.entrypoints.cli.connection import connected

    with connected() as stack:
        view = make_tenant(service_of(stack), name)
    if as_json:
        print_document(tenant_document(view))
    else:
        print_line(view.tenant_id)
        say(f"`nightrate keys create NAME --tenant {view.tenant_id} --role admin` makes its first key.")
    return ExitCode.OK


@app.command("list")
def list_tenants(*, as_json: AsJson = False) -> int:
    """List all tenants, the oldest first."""
    from pipeline.app.serving import service_of
    from pipeline.entrypoints.cli.connection import connected
    from pipeline.entrypoints.cli.figures import moment

    with connected() as stack:
        views = service_of(stack).tenants.tenants()
    if as_json:
        print_document({"tenants": [tenant_document(view) for view in views]})
        return ExitCode.OK
    print_table(("ID", "NAME", "CREATED"), [(view.tenant_id, view.name, moment(view.created_at)) for view in views])
    return ExitCode.OK


@app.command("rename")
def rename(
    tenant_id: Annotated[str, typer.Argument(metavar="ID", help="As `nightrate tenants list` shows it.")],
    name: NameArgument,
    *,
    as_json: AsJson = False,
) -> int:
    """Give a tenant another name; its id stays."""
    from pipeline.app.serving import service_of
    from pipeline.domain.ids import TenantId
    from pipeline.entrypoints.cli.connection import connected

    with connected() as stack:
        view = service_of(stack).tenants.rename(TenantId(tenant_id), name)
    say(f"{view.tenant_id} is called {view.name} now.")
    if as_json:
        print_document(tenant_document(view))
    return ExitCode.OK


def tenant_document(view: TenantView) -> dict[str, object]:
    """Return all that is known of a tenant."""
    return {"id": view.tenant_id, "name": view.name, "created_at": view.created_at.isoformat()}
