"""Tenants with projects, and something of every kind in one of them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass

from pipeline.app.serving import make_tenant
from pipeline.domain.access import Role
from pipeline.domain.ids import ProjectId, TenantId, new_project_id
from tests.pipeline.http.served import Served

LINE = json.dumps(
    {
        "custom_id": "row-1",
        "method": "POST",
        "url": "/v1/chat/completions",
        "body": {"model": "echo", "messages": [{"role": "user", "content": "hello"}]},
    }
).encode()


@dataclass(frozen=True, slots=True)
class Organization:
    """A tenant, and two projects of it besides the default one."""

    api: Served
    tenant_id: TenantId
    first: ProjectId
    second: ProjectId

    def key(self, *roles: Role, project_id: ProjectId | None = None) -> str:
        return self.api.key(*(roles or (Role.ADMIN,)), tenant_id=self.tenant_id, project_id=project_id)

    def project(self, name: str) -> ProjectId:
        return self.api.service.tenants.create_project(new_project_id(), self.tenant_id, name).project_id


def organization(api: Served, name: str = "somebody") -> Organization:
    """Make a tenant with two projects."""
    tenant_id = make_tenant(api.service, name).tenant_id
    api.service.quotas.set_plan(tenant_id, "unlimited")
    first, second = (
        api.service.tenants.create_project(new_project_id(), tenant_id, each).project_id for each in ("one", "two")
    )
    return Organization(api, tenant_id, first, second)


def batch_body(file_id: str) -> dict[str, object]:
    """Return what makes a batch of a file."""
    return {"input_file_id": file_id, "endpoint": "/v1/chat/completions", "completion_window": "24h"}


def belongings(there: Organization) -> Mapping[str, str]:
    """Make one of each kind of thing in the first project; returns ids by the names that paths give them."""
    api, key = there.api, there.key(project_id=there.first)
    file_id = api.upload(LINE, key=key).json["id"]
    batch_id = api.ask("POST", "/v1/batches", batch_body(file_id), key=key).json["id"]
    key_id = api.ask("POST", "/v1/organization/api_keys", {"name": "spare"}, key=key).json["id"]
    started = {"filename": "in.jsonl", "purpose": "batch", "bytes": len(LINE), "mime_type": "application/jsonl"}
    upload_id = api.ask("POST", "/v1/uploads", started, key=key).json["id"]
    wanted = {"url": "http://127.0.0.1:9/", "event_types": ["batch.completed"]}
    webhook_id = api.ask("POST", "/v1/webhooks", wanted, key=key).json["id"]
    limit = {"amount": "1000", "project_id": there.first}
    budget_id = api.ask("POST", "/v1/organization/budgets", limit, key=there.key()).json["id"]
    return {
        "budget_id": budget_id,
        "file_id": file_id,
        "batch_id": batch_id,
        "project_id": there.first,
        "key_id": key_id,
        "upload_id": upload_id,
        "webhook_id": webhook_id,
    }
