"""Alembic's entry: runs the versions on the connection that `storage.migrations.upgrade` holds."""

from __future__ import annotations

from alembic import context

import storage.audit_tables  # noqa: F401 -- a table that no other refers to
from storage import cost_tables, egress_tables, quota_tables  # noqa: F401 -- importing declares
from storage.base import SCHEMA
from storage.recurring_tables import FiringRow

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=FiringRow.metadata,
    version_table_schema=SCHEMA,
    include_schemas=True,
    compare_server_default=False,
)
with context.begin_transaction():
    context.run_migrations()
