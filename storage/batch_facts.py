"""What is stored of why one batch stands where it stands."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from sqlalchemy import Connection, Row, text

from pipeline.domain.ids import BatchId
from pipeline.domain.models import split_variant
from pipeline.domain.tiers import Tier
from pipeline.ports.batches import BatchView
from pipeline.ports.explain import BatchFacts, Candidate, Waiting
from storage.batch_views import view_of
from storage.pack_facts import read_lines
from storage.servings import held_words, read_last_words

_OWN: Final = text("SELECT reason_at FROM batches WHERE id = :batch_id")

_PACKS: Final = text("""
    SELECT packs.state = 'leased' AS is_leased, count(DISTINCT packs.id) AS packs, sum(slices.predicted_seconds) AS seconds,
           min(coalesce(leased_at, packs.created_at)) AS since, array_agg(DISTINCT host) FILTER (WHERE host IS NOT NULL) AS hosts,
           count(DISTINCT packs.id) FILTER (WHERE failures > 0 OR unreads > 0 OR is_suspect) AS failed,
           max(last_error) AS last_error
      FROM pack_slices AS slices JOIN packs ON packs.id = slices.pack_id
      LEFT JOIN workers ON workers.id = packs.lease_worker_id
     WHERE slices.batch_id = :batch_id AND packs.state IN ('ready', 'retryable', 'leased')
     GROUP BY 1
""")

_SERVED: Final = text("""
    SELECT DISTINCT pool, named.variant, named.gate_key
      FROM workers, jsonb_each_text(workers.variants) AS named (variant, gate_key)
     WHERE state NOT IN ('stopped', 'lost', 'draining') AND NOT must_stop AND starts_with(named.variant, :model || '@')
     ORDER BY pool, named.variant
""")


def read_batch(connection: Connection, batch_id: BatchId) -> BatchFacts:
    """Return what is known of a batch, or raise `NotFoundError`."""
    view = view_of(connection, batch_id)
    own = connection.execute(_OWN, {"batch_id": batch_id}).one()
    packs = {row.is_leased: row for row in connection.execute(_PACKS, {"batch_id": batch_id})}
    return BatchFacts(
        view=view,
        reason_at=own.reason_at,
        waiting=_together(packs.get(False)),
        leased=_together(packs.get(True)),
        hosts=tuple(packs[True].hosts or ()) if True in packs else (),
        failed_packs=packs[False].failed if False in packs else 0,
        last_error=packs[False].last_error if False in packs else None,
        candidates=tuple(_candidates(connection, view)),
        packs=read_lines(connection, batch_id=batch_id),
    )


def _together(row: Row[Any] | None) -> Waiting:
    return Waiting() if row is None else Waiting(packs=row.packs, seconds=float(row.seconds), since=row.since)


def _candidates(connection: Connection, view: BatchView) -> Iterable[Candidate]:
    """Yield the variants that are alive and that the batch's tier may not run on."""
    for model in view.models:
        served: dict[tuple[str, str], list[str]] = {}
        for row in connection.execute(_SERVED, {"model": split_variant(model)[0]}):
            served.setdefault((row.variant, row.gate_key), []).append(row.pool)
        words = read_last_words(connection, sorted({variant for variant, _ in served})) if served else ()
        for (variant, key), pools in served.items():
            held = held_words((word for word in words if word.variant == variant), key)
            own = held.get(view.tier)
            if own is None or not own.verdict.lets_run:
                yield Candidate(
                    variant=variant,
                    pools=tuple(pools),
                    verdict=None if own is None else own.verdict,
                    tiers=frozenset(tier for tier in Tier if tier in held and held[tier].verdict.lets_run),
                )
