"""The journal's tables: transactions and their entries."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import CheckConstraint, ForeignKey, ForeignKeyConstraint, Identity, Index, UniqueConstraint, func, text
from sqlalchemy.orm import Mapped, mapped_column

from pipeline.domain.costs.transactions import CostCategory, TransactionKind
from storage.base import Base, one_of
from storage.ledger_tables import IntervalRow
from storage.tables import BatchRow, PackRow, WorkerRow


class TransactionRow(Base):
    """One use of something, with its entries: append-only, and its entries sum to nothing."""

    __tablename__ = "transactions"
    id: Mapped[int] = mapped_column(Identity(always=True), primary_key=True)
    #: What it is for.
    key: Mapped[str] = mapped_column(unique=True)
    kind: Mapped[str]
    category: Mapped[str]
    #: When the thing was used: half-open.
    period_start: Mapped[datetime]
    period_stop: Mapped[datetime]
    worker_id: Mapped[str | None] = mapped_column(ForeignKey(WorkerRow.id))
    #: The start of the worker's interval, for its accrual.
    start_us: Mapped[int | None]
    pack_id: Mapped[str | None] = mapped_column(ForeignKey(PackRow.id))
    lease_token: Mapped[int | None]
    reverses_id: Mapped[int | None] = mapped_column(ForeignKey("nightrate.transactions.id"), unique=True)
    #: How it was split over accounts.
    method: Mapped[str | None]
    #: Where its prices came from.
    source: Mapped[str | None]
    #: What it was worked out from.
    detail: Mapped[dict[str, Any]] = mapped_column(server_default="{}")
    currency: Mapped[str]
    #: The database's own transaction that wrote it, which is the only one that may write its entries.
    posted_by: Mapped[int] = mapped_column(server_default=text("CAST(CAST(pg_current_xact_id() AS text) AS bigint)"))
    created_at: Mapped[datetime] = mapped_column(server_default=func.clock_timestamp())
    __table_args__ = (
        one_of("kind", TransactionKind),
        one_of("category", CostCategory),
        CheckConstraint("period_start <= period_stop", name="forward"),
        CheckConstraint("(kind = 'reversal') = (reverses_id IS NOT NULL)", name="reverses"),
        CheckConstraint("start_us IS NULL OR (kind = 'accrual' AND category = 'compute')", name="interval"),
        ForeignKeyConstraint(["worker_id", "start_us"], [IntervalRow.worker_id, IntervalRow.start_us]),
        UniqueConstraint("worker_id", "start_us"),
        Index("ix_transactions_pack_id", "pack_id", postgresql_where=text("pack_id IS NOT NULL")),
        Index("ix_transactions_period_start", "period_start"),
        Index("ix_transactions_adjustments", "period_start", postgresql_where=text("kind = 'adjustment'")),
    )


class EntryRow(Base):
    """One line: + is a debit of the account and - a credit, in micro-units of the transaction's currency."""

    __tablename__ = "entries"
    transaction_id: Mapped[int] = mapped_column(ForeignKey(TransactionRow.id), primary_key=True)
    line: Mapped[int] = mapped_column(primary_key=True)
    #: `batch:<id>`, `overhead:<kind>`, `supplier:<pool>` or `revenue:<tier>`.
    account: Mapped[str]
    batch_id: Mapped[str | None] = mapped_column(ForeignKey(BatchRow.id))
    list_micros: Mapped[int]
    contracted_micros: Mapped[int]
    effective_micros: Mapped[int]
    billed_micros: Mapped[int]
    on_demand_micros: Mapped[int]
    charged_micros: Mapped[int]
    #: What its share was worked out from.
    row_count: Mapped[int] = mapped_column(server_default="0")
    input_tokens: Mapped[int] = mapped_column(server_default="0")
    output_tokens: Mapped[int] = mapped_column(server_default="0")
    __table_args__ = (
        CheckConstraint("line >= 0", name="line"),
        CheckConstraint("account ~ '^(batch|overhead|supplier|revenue):.'", name="account"),
        CheckConstraint(
            "batch_id IS NOT DISTINCT FROM CASE WHEN account LIKE 'batch:%' THEN substr(account, 7) END", name="batch"
        ),
        CheckConstraint("account ~ '^(batch|revenue):' OR charged_micros = 0", name="charged"),
        Index(
            "ix_entries_batch_id",
            "batch_id",
            postgresql_where=text("batch_id IS NOT NULL"),
            postgresql_include=["effective_micros", "charged_micros"],
        ),
    )
