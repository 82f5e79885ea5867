"""Commits: parts of an attempt, the rows they hold, and what the worker's time for them cost, all at once."""

from __future__ import annotations

from typing import Final

import orjson
from sqlalchemy import Connection, text

from pipeline.domain.errors import LeaseLostError
from pipeline.domain.ids import WorkerId
from pipeline.ports.packs import PartDraft, WorkCommit
from storage.ledger import record_work, unit_costs_of
from storage.multiranges import to_literal

#: Locks the pack, for whoever still has its lease.
OWN: Final = text("""
    SELECT failures, lone_failures, unreads, is_suspect,
           row_picoseconds, input_token_picoseconds, output_token_picoseconds
      FROM packs
     WHERE id = :pack_id AND state = 'leased' AND lease_token = :lease_token FOR NO KEY UPDATE
""")

_ADD_PART: Final = text("""
    INSERT INTO parts (id, batch_id, pack_id, lease_token, object_key, sha256, size_bytes,
                       rows_succeeded, rows_errored, input_tokens, output_tokens)
    VALUES (:part_id, :batch_id, :pack_id, :lease_token, :object_key, :sha256, :size_bytes,
            :rows_succeeded, :rows_errored, :input_tokens, :output_tokens)
""")

_ADD_PART_SLICE: Final = text("""
    INSERT INTO part_slices (part_id, shard_id, rows, input_tokens, output_tokens, output_lengths)
    VALUES (:part_id, :shard_id, CAST(:rows AS int4multirange), :input_tokens, :output_tokens,
            CAST(:output_lengths AS jsonb))
""")

_ADD_SHADOW: Final = text("""
    INSERT INTO shadow_samples (model, variant, gate_key, batch_id, shard_id, position, part_id, line_no)
    SELECT model, variant, :gate_key, :batch_id, :shard_id, :position, :part_id, :line_no FROM packs WHERE id = :pack_id
    ON CONFLICT (shard_id, position) DO NOTHING
""")

_COUNT_DONE: Final = text("""
    UPDATE shards SET rows_succeeded = rows_succeeded + :rows_succeeded, rows_errored = rows_errored + :rows_errored
     WHERE id = :shard_id
""")


def commit_parts(connection: Connection, worker_id: WorkerId | None, commit: WorkCommit) -> None:
    """Record parts, counts, the worker's span and its charges within the caller's transaction.

    Raises `LeaseLostError` when the token is no longer the pack's.
    """
    # The lock before the look: the first try of this very commit may still be on its way.
    guard = {"pack_id": commit.pack_id, "lease_token": commit.lease_token}
    own = connection.execute(OWN, guard).one_or_none()
    # An answer may have been lost on the way back: the same parts again are a success.
    done = text("SELECT 1 FROM parts WHERE id = :part_id")
    if connection.execute(done, {"part_id": commit.parts[0].part_id}).one_or_none() is not None:
        return
    if own is None:
        raise LeaseLostError(f"lease {commit.lease_token} of {commit.pack_id} has ended")
    for part in commit.parts:
        _add_part(connection, commit, part)
    counts = [
        {"shard_id": rows.shard_id, "rows_succeeded": rows.rows_succeeded, "rows_errored": rows.rows_errored}
        for part in commit.parts
        for rows in part.shards
    ]
    connection.execute(_COUNT_DONE, sorted(counts, key=lambda count: count["shard_id"]))
    if commit.interval is not None:
        assert worker_id is not None, "an interval is some worker's"
        record_work(connection, worker_id, commit, unit_costs_of(own))


def _add_part(connection: Connection, commit: WorkCommit, part: PartDraft) -> None:
    connection.execute(
        _ADD_PART,
        {
            "part_id": part.part_id,
            "batch_id": part.batch_id,
            "pack_id": commit.pack_id,
            "lease_token": commit.lease_token,
            "object_key": part.object_key,
            "sha256": part.sha256,
            "size_bytes": part.size_bytes,
            "rows_succeeded": sum(rows.rows_succeeded for rows in part.shards),
            "rows_errored": sum(rows.rows_errored for rows in part.shards),
            "input_tokens": part.input_tokens,
            "output_tokens": part.output_tokens,
        },
    )
    connection.execute(
        _ADD_PART_SLICE,
        [
            {
                "part_id": part.part_id,
                "shard_id": rows.shard_id,
                "rows": to_literal(rows.ranges),
                "input_tokens": rows.input_tokens,
                "output_tokens": rows.output_tokens,
                "output_lengths": orjson.dumps(rows.output_lengths).decode(),
            }
            for rows in part.shards
        ],
    )
    if part.shadow_rows:
        named = {"pack_id": commit.pack_id, "gate_key": commit.gate_key, "batch_id": part.batch_id}
        connection.execute(
            _ADD_SHADOW,
            [
                {
                    **named,
                    "part_id": part.part_id,
                    "shard_id": row.shard_id,
                    "position": row.position,
                    "line_no": row.line_no,
                }
                for row in part.shadow_rows
            ],
        )
