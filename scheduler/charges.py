"""Charges: the memory of the fair queues between cycles, and how what packs really took gets into it."""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Final

from pipeline.domain.ids import BatchId
from pipeline.ports.cycle import EndedPack, FairTag
from scheduler.lineup import Lineup
from scheduler.paths import BATCH_DEPTH, DEFAULT_PRIORITY, Path, batch_path, class_path, is_class
from scheduler.policy import Policy

_ALL_DEFAULT: Final[Mapping[BatchId, int]] = MappingProxyType({})


def recall(tags: Iterable[FairTag], lineup: Lineup, policy: Policy, *, now_us: int) -> tuple[FairTag, ...]:
    """Return the tags as they are now.

    Those of batches that have left are gone: they have no rows and never return. A tenant or tier without rows for a
    pack has less debt than it had, and no credit; one with rows works the one off and keeps the other.
    """
    present = [
        tag for tag in tags if len(tag.path) < BATCH_DEPTH or is_class(tag.path) or _is_waiting(tag.path, lineup)
    ]
    virtual = {(tag.pool, tag.path): tag.virtual_seconds for tag in present}
    waiting = lineup.tiers_and_tenants
    return tuple(
        tag if len(tag.path) >= BATCH_DEPTH or tag.path in waiting else _faded(tag, virtual, policy, now_us=now_us)
        for tag in present
    )


def true_up(
    tags: Iterable[FairTag],
    ended: Iterable[EndedPack],
    policy: Policy,
    priorities: Mapping[BatchId, int] = _ALL_DEFAULT,
) -> tuple[FairTag, ...]:
    """Return the tags with what packs took instead of what was charged for them at dispatch.

    What a pack took is split among its batches by the rule of the bill (`pipeline.domain.shares`).
    An account without a tag stood at its parent's virtual time, and gets one. Who took less than it was charged gets
    the difference back, and may then stand behind the virtual time: as long as it has rows, and no longer.
    `priorities` are those of batches that have another than the default.
    """
    known = {(tag.pool, tag.path): tag for tag in tags}
    for pack in ended:
        sizes = [share.actual for share in pack.shares]
        weights = pack.unit_costs.weights((size.rows, size.input_tokens, size.output_tokens) for size in sizes)
        whole = sum(weights)
        for share, own in zip(pack.shares, weights, strict=True):
            took = pack.seconds * own / whole if whole else 0.0
            tenant = (pack.tier.value, share.tenant_id)
            above = class_path(tenant, priorities.get(share.batch_id, DEFAULT_PRIORITY))
            paths = tenant[:1], tenant, (*above, share.batch_id)
            for path, weight in zip(paths, policy.weights_of(pack.tier, share.tenant_id), strict=True):
                _correct(known, pack.pool, path, (took - share.predicted_seconds) / weight)
    return tuple(known.values())


def without_stale(tags: Mapping[Path, FairTag], waiting: Container[Path]) -> tuple[FairTag, ...]:
    """Return the tags of one pool to keep: those ahead of their parents' virtual times, and all above them.

    So are those behind it, where the account is `waiting` for a turn; one that is not is lifted. A virtual time
    matters only to children with a tag.
    """
    kept: dict[Path, FairTag] = {}
    for path, tag in tags.items():
        parent = tags.get(path[:-1]) if path else None
        if parent is not None and tag.start_seconds < parent.virtual_seconds and path not in waiting:
            tag = replace(tag, start_seconds=parent.virtual_seconds)  # noqa: PLW2901 -- lifted
        kept[path] = tag
    wanted: set[Path] = {()}
    for path, tag in kept.items():
        parent = tags.get(path[:-1])
        # The account of a priority is kept for those below it.
        if path and not is_class(path) and (parent is None or tag.start_seconds != parent.virtual_seconds):
            wanted.update(path[:depth] for depth in range(1, len(path) + 1))
    return tuple(kept[path] for path in sorted(wanted & kept.keys()))


def _faded(tag: FairTag, virtual: Mapping[tuple[str, Path], float], policy: Policy, *, now_us: int) -> FairTag:
    base = virtual.get((tag.pool, tag.path[:-1])) if tag.path else None
    if base is None:
        return tag
    if tag.start_seconds < base:
        return replace(tag, start_seconds=base)
    if not tag.at_us:
        return tag
    half_lives = max(0, now_us - tag.at_us) / 1e6 / policy.debt_half_life_seconds
    return replace(tag, start_seconds=base + (tag.start_seconds - base) * 0.5**half_lives, at_us=max(now_us, tag.at_us))


def _is_waiting(path: Path, lineup: Lineup) -> bool:
    place = lineup.place_of_batch.get(BatchId(path[-1]))
    if place is None or batch_path(lineup[place]) != path:
        return False
    # With all rows in packs it never wants a turn again; one of several models may.
    return not lineup.is_packed[place] or len(lineup.place_of_batch) < len(lineup)


def _correct(known: dict[tuple[str, Path], FairTag], pool: str, path: Path, seconds: float) -> None:
    parent = known.get((pool, path[:-1]))
    tag = known.get((pool, path))
    if tag is None and parent is not None:
        tag = FairTag(pool=pool, path=path, start_seconds=parent.virtual_seconds, virtual_seconds=0.0)
    if tag is not None:
        known[pool, path] = replace(tag, start_seconds=tag.start_seconds + seconds)
