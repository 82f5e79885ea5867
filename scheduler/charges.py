"""Charges: the memory of the fair queues between cycles, and how what packs really took gets into it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

from pipeline.domain.ids import BatchId
from pipeline.ports.cycle import EndedPack, FairTag
from scheduler.lineup import Lineup
from scheduler.policy import Policy

#: From the pool down, as in `FairTag`.
Path = tuple[str, ...]
BATCH_DEPTH = 3


def recall(tags: Iterable[FairTag], lineup: Lineup) -> tuple[FairTag, ...]:
    """Return the tags without those of batches that have left: they have no rows and never return."""
    return tuple(tag for tag in tags if len(tag.path) < BATCH_DEPTH or _is_present(tag.path, lineup))


def true_up(tags: Iterable[FairTag], ended: Iterable[EndedPack], policy: Policy) -> tuple[FairTag, ...]:
    """Return the tags with what packs took instead of what was charged for them at dispatch.

    What a pack took is split among its batches by the rule of the bill (`pipeline.domain.shares`).
    An account without a tag was no further than its parent's virtual time: it gets one where it took more than
    it was charged. Where it took less there is nothing to give back: no credit is banked.
    """
    known = {(tag.pool, tag.path): tag for tag in tags}
    for pack in ended:
        sizes = [share.actual for share in pack.shares]
        weights = pack.unit_costs.weights((size.rows, size.input_tokens, size.output_tokens) for size in sizes)
        whole = sum(weights)
        for share, own in zip(pack.shares, weights, strict=True):
            took = pack.seconds * own / whole if whole else 0.0
            path = (pack.tier.value, share.tenant_id, share.batch_id)
            for depth, weight in enumerate(policy.weights_of(pack.tier, share.tenant_id), start=1):
                _correct(known, pack.pool, path[:depth], (took - share.predicted_seconds) / weight)
    return tuple(known.values())


def without_stale(tags: Mapping[Path, FairTag]) -> tuple[FairTag, ...]:
    """Return the tags of one pool to keep: those in debt, and all above them.

    An account at or behind its parent's virtual time starts there with or without a tag, and a virtual
    time matters only to children in debt.
    """
    kept: set[Path] = {()}
    for path, tag in tags.items():
        parent = tags.get(path[:-1])
        if path and (parent is None or tag.start_seconds > parent.virtual_seconds):
            kept.update(path[:depth] for depth in range(1, len(path) + 1))
    return tuple(tags[path] for path in sorted(kept & tags.keys()))


def _is_present(path: Path, lineup: Lineup) -> bool:
    tier, tenant_id, batch_id = path
    place = lineup.place_of_batch.get(BatchId(batch_id))
    return place is not None and (lineup[place].tier, lineup[place].tenant_id) == (tier, tenant_id)


def _correct(known: dict[tuple[str, Path], FairTag], pool: str, path: Path, seconds: float) -> None:
    parent = known.get((pool, path[:-1]))
    tag = known.get((pool, path))
    if tag is None and parent is not None and seconds > 0:
        tag = FairTag(pool=pool, path=path, start_seconds=parent.virtual_seconds, virtual_seconds=0.0)
    if tag is not None:
        known[pool, path] = replace(tag, start_seconds=tag.start_seconds + seconds)
