"""`nightrate projects`: the parts of a tenant's work that keys can be confined to."""

from __future__ import annotations

from typing import Annotated

import typer

from pipeline.entrypoints.cli.exits import ExitCode
from pipeline.entrypoints.cli.options import AsJson, TenantOption
from pipeline.entrypoints.cli.talk import print_document, print_line, print_table, say
from pipeline.ports.access import ProjectView, Scope

app = typer.Typer(no_args_is_help=True, help="Projects of a tenant: make, list, rename, archive.")

NameArgument = Annotated[str, typer.Argument(metavar="NAME", help="1 to 100 characters, unique among live projects.")]
ProjectArgument = Annotated[str, typer.Argument(metavar="ID", help="As `nightrate projects list` shows it.")]


@app.command("create")
def create(name: NameArgument, *, tenant: TenantOption = "tnt_default", as_json: AsJson = False) -> int:
    """Make a project; its id goes to stdout."""
    from pipeline.app.serving import service_of
    from pipeline.domain.ids import TenantId, new_project_id
    from pipeline.entrypoints.cli.connection import connected

    with connected() as stack:
        view = service_of(stack).tenants.create_project(new_project_id(), TenantId(tenant), name)
    if as_json:
        print_document(project_document(view))
    else:
        print_line(view.project_id)
    return ExitCode.OK


@app.command("list")
def list_projects(
    *,
    tenant: TenantOption = "tnt_default",
    archived: Annotated[bool, typer.Option("--archived", help="Those that are archived, too.")] = False,
    as_json: AsJson = False,
) -> int:
    """List a tenant's projects, the oldest first."""
    from pipeline.app.serving import service_of
    from pipeline.domain.ids import TenantId
    from pipeline.entrypoints.cli.connection import connected
    from pipeline.entrypoints.cli.figures import moment

    with connected() as stack:
        tenants = service_of(stack).tenants
        tenants.tenant(TenantId(tenant))
        views = tenants.projects(Scope(tenant_id=TenantId(tenant)), with_archived=archived)
    if as_json:
        print_document({"projects": [project_document(view) for view in views]})
        return ExitCode.OK
    rows = [(view.project_id, view.name, _standing(view), moment(view.created_at)) for view in views]
    print_table(("ID", "NAME", "STANDING", "CREATED"), rows)
    return ExitCode.OK


@app.command("rename")
def rename(
    project_id: ProjectArgument, name: NameArgument, *, tenant: TenantOption = "tnt_default", as_json: AsJson = False
) -> int:
    """Give a project another name; its id stays."""
    from pipeline.app.serving import service_of
    from pipeline.domain.ids import TenantId
    from pipeline.entrypoints.cli.connection import connected

    with connected() as stack:
        view = service_of(stack).tenants.rename_project(project_id, Scope(tenant_id=TenantId(tenant)), name)
    say(f"{view.project_id} is called {view.name} now.")
    if as_json:
        print_document(project_document(view))
    return ExitCode.OK


@app.command("archive")
def archive(project_id: ProjectArgument, *, tenant: TenantOption = "tnt_default", as_json: AsJson = False) -> int:
    """Close a project: its keys let nobody in, nothing new is made in it; what is there stays."""
    from pipeline.app.serving import service_of
    from pipeline.domain.ids import TenantId
    from pipeline.entrypoints.cli.connection import connected

    with connected() as stack:
        view = service_of(stack).tenants.archive_project(project_id, Scope(tenant_id=TenantId(tenant)))
    say(f"{view.project_id} is archived.")
    if as_json:
        print_document(project_document(view))
    return ExitCode.OK


def project_document(view: ProjectView) -> dict[str, object]:
    """Return all that is known of a project."""
    return {
        "id": view.project_id,
        "tenant_id": view.tenant_id,
        "name": view.name,
        "is_default": view.is_default,
        "created_at": view.created_at.isoformat(),
        "archived_at": view.archived_at and view.archived_at.isoformat(),
    }


def _standing(view: ProjectView) -> str:
    if view.archived_at is not None:
        return "archived"
    return "default" if view.is_default else "active"
