"""The table of who did what."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import Index, func, text
from sqlalchemy.orm import Mapped, mapped_column

from pipeline.domain.audit import AuditAction
from storage.base import Base, one_of


class AuditRow(Base):
    """One thing that somebody did; triggers write it, and nothing changes or removes it.

    It refers to nothing by a foreign key: it outlives what it tells of.
    """

    __tablename__ = "audit_log"
    id: Mapped[str] = mapped_column(primary_key=True)
    at: Mapped[datetime] = mapped_column(server_default=func.clock_timestamp())
    tenant_id: Mapped[str]
    #: None: it is about all of the tenant's.
    project_id: Mapped[str | None]
    #: The id of the key, `cli`, or `system`.
    actor: Mapped[str]
    request_id: Mapped[str | None]
    action: Mapped[str]
    object_id: Mapped[str]
    #: Terms, and what they were before; nothing secret, and nothing that people wrote into requests.
    details: Mapped[dict[str, Any]]
    __table_args__ = (
        one_of("action", AuditAction),
        Index("ix_audit_log_listing", "tenant_id", text("at DESC"), text("id DESC")),
        Index("ix_audit_log_of_project", "tenant_id", "project_id", text("at DESC"), text("id DESC")),
    )
