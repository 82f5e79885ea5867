"""Whose things a statement sees."""

from __future__ import annotations

from sqlalchemy import TextClause, text

from pipeline.ports.access import Scope

_IN_SCOPE = "tenant_id = :tenant_id AND (CAST(:project_id AS text) IS NULL OR COLUMN = :project_id)"


def scoped(statement: str, *, project_column: str = "project_id") -> TextClause:
    """Return a statement in which `IN_SCOPE` stands for the rows that a scope sees."""
    return text(statement.replace("IN_SCOPE", _IN_SCOPE.replace("COLUMN", project_column)))


def scope_arguments(scope: Scope) -> dict[str, str | None]:
    """Return a scope as a statement's `:tenant_id` and `:project_id`."""
    return {"tenant_id": scope.tenant_id, "project_id": scope.project_id}
