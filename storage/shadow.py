"""Samples and watches in Postgres: a sample is judged once, and what was found is folded in by the same transaction.

Lock order is samples by id, then watches by their key, then whatever a rollback touches.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from datetime import timedelta
from typing import Final

import orjson
from sqlalchemy import Connection, text

from pipeline.domain.endpoints import Endpoint
from pipeline.domain.gates import GateVerdict
from pipeline.domain.models import split_variant
from pipeline.domain.shadow import Watch
from pipeline.domain.tiers import ACCURACY_MARGIN_POINTS, Tier
from pipeline.ports.shadow import Finding, Rollback, ShadowSample, Watched
from pipeline.ports.variants import Qualification
from storage.database import Database
from storage.servings import held_words, read_last_words
from storage.variants import record_qualifications

_CLAIM: Final = text("""
    -- The newest first: they tell of what runs now. What others hold is stepped over.
    WITH taken AS (
        UPDATE shadow_samples SET claimed_until = clock_timestamp() + :hold_for FROM (
            SELECT id FROM shadow_samples
             WHERE state = 'waiting' AND model = ANY(:models)
               AND (claimed_until IS NULL OR claimed_until <= clock_timestamp())
             ORDER BY id DESC LIMIT :count FOR NO KEY UPDATE SKIP LOCKED) AS free
         WHERE shadow_samples.id = free.id
        RETURNING shadow_samples.*)
    SELECT taken.id, taken.model, taken.variant, batches.endpoint, taken.position, taken.line_no,
           shards.object_key AS shard_key, shards.sha256 AS shard_sha256,
           parts.object_key AS part_key, parts.sha256 AS part_sha256
      FROM taken
      JOIN batches ON batches.id = taken.batch_id
      JOIN shards ON shards.id = taken.shard_id
      JOIN parts ON parts.id = taken.part_id
     ORDER BY taken.id DESC
""")

_HOLD: Final = text("""
    SELECT id, variant, gate_key FROM shadow_samples
     WHERE id = ANY(:ids) AND state = 'waiting' ORDER BY id FOR NO KEY UPDATE
""")

_END: Final = text("""
    UPDATE shadow_samples SET state = :state, x = :x, tokens = :tokens, ended_at = clock_timestamp() WHERE id = :id
""")

_BEGIN: Final = text("""
    INSERT INTO watches (variant, gate_key, tier, watch) VALUES (:variant, :gate_key, :tier, CAST(:watch AS jsonb))
    ON CONFLICT (variant, gate_key, tier) DO NOTHING
""")

_WATCH: Final = text("""
    SELECT watch FROM watches WHERE variant = :variant AND gate_key = :gate_key AND tier = :tier FOR NO KEY UPDATE
""")

_SEE: Final = text("""
    UPDATE watches SET watch = CAST(:watch AS jsonb), seen_at = clock_timestamp()
     WHERE variant = :variant AND gate_key = :gate_key AND tier = :tier
""")

_EXPIRE: Final = text("""
    UPDATE shadow_samples SET state = 'expired', ended_at = clock_timestamp() FROM (
        SELECT id FROM shadow_samples WHERE state = 'waiting' AND created_at < clock_timestamp() - :waiting_for
           FOR NO KEY UPDATE SKIP LOCKED) AS old
     WHERE shadow_samples.id = old.id
""")

_FORGET: Final = text(
    "DELETE FROM shadow_samples WHERE state <> 'waiting' AND ended_at < clock_timestamp() - :kept_for"
)

_WATCHED: Final = text("""
    WITH waits AS (
        SELECT gate_key, count(*) AS waiting FROM shadow_samples
         WHERE model = :model AND variant = :variant AND state = 'waiting' GROUP BY gate_key)
    SELECT watches.gate_key, tier, watch, coalesce(waiting, 0) AS waiting
      FROM watches LEFT JOIN waits ON waits.gate_key = watches.gate_key
     WHERE variant = :variant ORDER BY seen_at DESC, watches.gate_key
""")


class ShadowRepository:
    """`ShadowStore` on Postgres."""

    def __init__(self, database: Database) -> None:
        """Keep samples and watches in `database`."""
        self._database = database

    def claim(self, models: Collection[str], count: int, *, hold_for: timedelta) -> tuple[ShadowSample, ...]:
        """Take up to `count` waiting samples of these models, the newest first, that nobody else holds now."""
        arguments = {"models": list(models), "count": count, "hold_for": hold_for}
        rows = self._database.run(lambda connection: connection.execute(_CLAIM, arguments).all())
        return tuple(
            ShadowSample(
                sample_id=row.id,
                model=row.model,
                variant=row.variant,
                endpoint=Endpoint(row.endpoint),
                shard_key=row.shard_key,
                shard_sha256=row.shard_sha256,
                position=row.position,
                part_key=row.part_key,
                part_sha256=row.part_sha256,
                line_no=row.line_no,
            )
            for row in rows
        )

    def record(self, findings: Sequence[Finding]) -> tuple[Rollback, ...]:
        """Store what was found, fold it into the watches, and roll back what is shown beyond its margin, all at once."""
        return self._database.run(lambda connection: _record(connection, findings))

    def expire(self, *, waiting_for: timedelta, kept_for: timedelta) -> int:
        """Give up samples that waited longer than `waiting_for`, and forget those that ended `kept_for` ago; count both."""

        def work(connection: Connection) -> int:
            expired = connection.execute(_EXPIRE, {"waiting_for": waiting_for}).rowcount
            return expired + connection.execute(_FORGET, {"kept_for": kept_for}).rowcount

        return self._database.run(work)

    def watched(self, variant: str) -> tuple[Watched, ...]:
        """Return what is known of the variant in production, by gate key and tier."""
        arguments = {"variant": variant, "model": split_variant(variant)[0]}
        rows = self._database.run(lambda connection: connection.execute(_WATCHED, arguments).all())
        found = [
            Watched(gate_key=row.gate_key, tier=Tier(row.tier), watch=Watch.from_plain(row.watch), waiting=row.waiting)
            for row in rows
        ]
        return tuple(sorted(found, key=lambda each: list(Tier).index(each.tier)))


def _record(connection: Connection, findings: Sequence[Finding]) -> tuple[Rollback, ...]:
    by_id = {finding.sample_id: finding for finding in findings}
    held = connection.execute(_HOLD, {"ids": list(by_id)}).all()
    new: dict[tuple[str, str], list[Finding]] = {}
    for row in held:
        finding = by_id[row.id]
        is_judged = finding.x is not None
        connection.execute(
            _END,
            {
                "id": row.id,
                "state": "judged" if is_judged else "dropped",
                "x": finding.x,
                "tokens": finding.tokens if is_judged else None,
            },
        )
        if is_judged:
            new.setdefault((row.variant, row.gate_key), []).append(finding)
    rollbacks: list[Rollback] = []
    for variant, key in sorted(new):
        beyond = _fold(connection, variant, key, new[variant, key])
        rollbacks += _roll_back(connection, variant, key, beyond)
    return tuple(rollbacks)


def _fold(connection: Connection, variant: str, key: str, findings: Iterable[Finding]) -> dict[Tier, Watch]:
    """Fold the findings into the watch of every tier and return those that are beyond their margin."""
    beyond = {}
    for tier, margin in sorted(ACCURACY_MARGIN_POINTS.items()):
        named = {"variant": variant, "gate_key": key, "tier": tier}
        connection.execute(_BEGIN, {**named, "watch": _json(Watch(margin_points=margin))})
        watch = Watch.from_plain(connection.execute(_WATCH, named).scalar_one())
        for finding in findings:
            assert finding.x is not None
            watch = watch.plus(finding.x, finding.bounds, tokens=finding.tokens)
        connection.execute(_SEE, {**named, "watch": _json(watch)})
        if watch.is_beyond:
            beyond[tier] = watch
    return beyond


def _roll_back(connection: Connection, variant: str, key: str, beyond: dict[Tier, Watch]) -> list[Rollback]:
    """Reject the variant for the tiers that run on it now."""
    if not beyond:
        return []
    held = held_words(read_last_words(connection, [variant]), key)
    running = {tier: watch for tier, watch in beyond.items() if tier in held and held[tier].verdict.lets_run}
    if running:
        record_qualifications(connection, [_rejected(variant, key, tier, watch) for tier, watch in running.items()])
    return [Rollback(variant=variant, tier=tier, reason=watch.sentence) for tier, watch in running.items()]


def _rejected(variant: str, key: str, tier: Tier, watch: Watch) -> Qualification:
    return Qualification(
        variant=variant,
        tier=tier,
        verdict=GateVerdict.REJECTED,
        gate_key=key,
        reference=split_variant(variant)[0],
        reason=watch.sentence,
        report={"source": "shadow", "mean_points": watch.mean_points, "watch": watch.as_plain()},
    )


def _json(watch: Watch) -> str:
    return orjson.dumps(watch.as_plain()).decode()
