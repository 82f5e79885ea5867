"""Backlogs: what a cycle sees of the batches, of which it reads again only those that may have changed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final

from sqlalchemy import Connection, Row, text

from pipeline.domain.endpoints import Endpoint
from pipeline.domain.ids import BatchId, ProjectId, TenantId
from pipeline.domain.promises import Promise
from pipeline.domain.reasons import Reason
from pipeline.domain.tiers import Tier
from pipeline.ports.cycle import Backlog, OpenShard, WorkSize
from storage.changes import ChangeCursor
from storage.ledger import terms_of
from storage.reservations import Reserved, read_reserved

#: Shards carried of each batch: enough for one cycle's packs, whatever the batch's size.
_SHARDS_A_BATCH: Final = 64

_COLUMNS: Final = """
    SELECT batches.id, tenant_id, tier, endpoint, budget_micros, created_at, deadline_at, hold_until, promise, must_promise,
           priority, reason, project_id, charge_multiplier_ppm, input_token_price_picos, output_token_price_picos,
           paused_at IS NOT NULL AS is_paused,
           coalesce((SELECT sum(charged_micros) FROM entries WHERE batch_id = batches.id), 0) AS spent_micros,
           undone.*
      FROM batches,
      LATERAL (SELECT coalesce(sum(rows_packed - rows_succeeded - rows_errored), 0) AS rows_in_flight, min(model) AS model,
                      sum(rows_total - rows_succeeded - rows_errored) AS rows_left,
                      sum(input_tokens_estimated
                          * (1 - (rows_succeeded + rows_errored) / CAST(rows_total AS float))) AS input_tokens_left,
                      sum(output_tokens_estimated
                          * (1 - (rows_succeeded + rows_errored) / CAST(rows_total AS float))) AS output_tokens_left
                 FROM shards WHERE batch_id = batches.id AND rows_succeeded + rows_errored < rows_total) AS undone
     WHERE state = 'in_progress' AND undone.model IS NOT NULL
"""

_ALL: Final = text(_COLUMNS)
_SOME: Final = text(f"{_COLUMNS} AND batches.id = ANY(:batch_ids)")

_OPEN_SHARDS: Final = text("""
    -- Intake puts one model in a file, so the first shards of a batch stand for all of its backlog.
    SELECT open.* FROM unnest(CAST(:batch_ids AS text[])) AS wanted (batch_id),
      LATERAL (SELECT batch_id, id, shard_no, model, rows_total, rows_packed, input_tokens_estimated,
                      output_tokens_estimated, template
                 FROM shards WHERE shards.batch_id = wanted.batch_id AND rows_packed < rows_total
                ORDER BY shard_no LIMIT :shards_a_batch) AS open
""")


class BacklogMirror:
    """The backlogs as they were last read, for one reader that looks again and again."""

    def __init__(self) -> None:
        """Know nothing yet, so that the first look is at everything."""
        self._backlogs: dict[tuple[str, str], Backlog] = {}
        self._models: dict[str, list[str]] = {}
        #: What open packs may still be charged, as it was at the last look.
        self.reserved: tuple[Reserved, ...] = ()
        self._changes = ChangeCursor()

    def read(self, connection: Connection) -> tuple[Backlog, ...]:
        """Return all batches with rows that have no result.

        One whose rows are all in packs is among them: whether these wait for a worker is to be known.
        """
        look = self._changes.look(connection)
        # Before what is spent is read: what a pack that ends meanwhile has cost is counted twice then, and not missed.
        self.reserved = read_reserved(connection)
        if look.batch_ids is None:
            self._backlogs.clear()
            self._models.clear()
            self._enter(connection, connection.execute(_ALL).all())
        elif look.batch_ids:
            for batch_id in look.batch_ids:
                for model in self._models.pop(batch_id, ()):
                    del self._backlogs[batch_id, model]
            self._enter(connection, connection.execute(_SOME, {"batch_ids": list(look.batch_ids)}).all())
        self._changes.saw(look)
        return tuple(self._backlogs.values())

    def _enter(self, connection: Connection, rows: Sequence[Row[Any]]) -> None:
        shards: dict[tuple[str, str], list[OpenShard]] = {(row.id, row.model): [] for row in rows}
        arguments = {"batch_ids": [row.id for row in rows], "shards_a_batch": _SHARDS_A_BATCH}
        for shard in connection.execute(_OPEN_SHARDS, arguments) if rows else ():
            shards.setdefault((shard.batch_id, shard.model), []).append(
                OpenShard(
                    shard_id=shard.id,
                    shard_no=shard.shard_no,
                    rows_total=shard.rows_total,
                    rows_packed=shard.rows_packed,
                    input_tokens=shard.input_tokens_estimated,
                    output_tokens=shard.output_tokens_estimated,
                    template=shard.template,
                )
            )
        by_id = {row.id: row for row in rows}
        reserved: Counter[str] = Counter()
        for each in self.reserved:
            reserved[each.batch_id] += each.micros
        for (batch_id, model), opened in shards.items():
            self._backlogs[batch_id, model] = _backlog_of(
                by_id[batch_id], model, opened, reserved_micros=reserved[batch_id]
            )
            self._models.setdefault(batch_id, []).append(model)


def _backlog_of(row: Row[Any], model: str, shards: Sequence[OpenShard], *, reserved_micros: int) -> Backlog:
    return Backlog(
        tenant_id=TenantId(row.tenant_id),
        batch_id=BatchId(row.id),
        tier=Tier(row.tier),
        model=model,
        endpoint=Endpoint(row.endpoint),
        created_at_us=epoch_us(row.created_at),
        deadline_at_us=epoch_us(row.deadline_at),
        promise=Promise(row.promise),
        hold_until_us=row.hold_until and epoch_us(row.hold_until),
        is_paused=row.is_paused,
        left=WorkSize(
            rows=float(row.rows_left),
            input_tokens=float(row.input_tokens_left),
            output_tokens=float(row.output_tokens_left),
        ),
        spent_micros=int(row.spent_micros),
        budget_micros=row.budget_micros,
        shards=tuple(shards),
        rows_in_flight=int(row.rows_in_flight),
        reserved_micros=reserved_micros,
        must_promise=row.must_promise,
        priority=row.priority,
        reason=row.reason and Reason(row.reason),
        project_id=ProjectId(row.project_id),
        terms=terms_of(row),
    )


def epoch_us(at: datetime) -> int:
    """Return microseconds since the Unix epoch."""
    return int(at.timestamp() * 1_000_000)
