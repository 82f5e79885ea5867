"""The table of bytes that were sent out."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import CheckConstraint, ForeignKey, Index, func
from sqlalchemy.orm import Mapped, mapped_column

from storage.base import Base
from storage.tenant_tables import FileRow


class EgressRow(Base):
    """A download that the API served, whole or in part."""

    __tablename__ = "egress"
    id: Mapped[str] = mapped_column(primary_key=True)
    file_id: Mapped[str] = mapped_column(ForeignKey(FileRow.id))
    #: Handed to the network; a client that hangs up may not have received the last of them.
    size_bytes: Mapped[int]
    sent_at: Mapped[datetime] = mapped_column(server_default=func.clock_timestamp())
    __table_args__ = (CheckConstraint("size_bytes > 0", name="size_bytes"), Index("ix_egress_sent_at", "sent_at"))
