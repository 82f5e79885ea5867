"""A tenant beside the default one."""

from __future__ import annotations

from sqlalchemy import text

from pipeline.app.stack import Stack
from pipeline.domain.ids import TenantId

_TENANT = text("INSERT INTO tenants (id, name) VALUES ('tnt_other', 'other') ON CONFLICT DO NOTHING")
_PROJECT = text("""
    INSERT INTO projects (id, tenant_id, name, is_default) VALUES ('proj_other', 'tnt_other', 'default', true)
    ON CONFLICT DO NOTHING
""")


def other_tenant(stack: Stack) -> TenantId:
    """Make the other tenant, with a project, unless it is there."""
    with stack.database.transaction() as connection:
        connection.execute(_TENANT)
        connection.execute(_PROJECT)
    return TenantId("tnt_other")
