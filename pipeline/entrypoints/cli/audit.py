"""`nightrate audit`: who did what."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from pipeline.entrypoints.cli.exits import ExitCode
from pipeline.entrypoints.cli.options import AsJson, TenantOption
from pipeline.entrypoints.cli.talk import print_document, print_table, say
from pipeline.ports.access import Scope
from pipeline.ports.audit import AuditEntry


def audit(
    *,
    tenant: TenantOption = "tnt_default",
    limit: Annotated[int, typer.Option("--limit", min=1, max=10_000, help="How many, newest first.")] = 50,
    as_json: AsJson = False,
) -> int:
    """Show who did what to a tenant's keys, projects, files and batches, newest first."""
    from pipeline.app.serving import service_of
    from pipeline.domain.ids import TenantId
    from pipeline.entrypoints.cli.connection import connected
    from pipeline.entrypoints.cli.figures import moment

    with connected() as stack:
        service = service_of(stack)
        service.tenants.tenant(TenantId(tenant))
        entries = service.audit.page(Scope(tenant_id=TenantId(tenant)), limit=limit)
    if as_json:
        print_document({"entries": [entry_document(entry) for entry in entries]})
        return ExitCode.OK
    if not entries:
        say(f"Nothing was done for {tenant} yet.")
        return ExitCode.OK
    rows = [(moment(entry.at), entry.actor, str(entry.action), entry.object_id, _told(entry)) for entry in entries]
    print_table(("AT", "WHO", "WHAT", "ID", "DETAILS"), rows)
    return ExitCode.OK


def entry_document(entry: AuditEntry) -> dict[str, object]:
    """Return one entry."""
    return {
        "id": entry.entry_id,
        "at": entry.at.isoformat(),
        "tenant_id": entry.tenant_id,
        "project_id": entry.project_id,
        "actor": entry.actor,
        "request_id": entry.request_id,
        "action": str(entry.action),
        "object_id": entry.object_id,
        "details": dict(entry.details),
    }


def _told(entry: AuditEntry) -> str:
    return json.dumps(dict(entry.details), ensure_ascii=False) if entry.details else ""
