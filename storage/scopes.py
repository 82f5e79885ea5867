"""Whose things a statement sees."""

from __future__ import annotations

from pipeline.ports.access import Scope


def scope_arguments(scope: Scope) -> dict[str, str | None]:
    """Return a scope as a statement's `:tenant_id` and `:project_id`."""
    return {"tenant_id": scope.tenant_id, "project_id": scope.project_id}
