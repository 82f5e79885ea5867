"""What each tenant got of a simulated fleet, beside what would have been fair; all in worker-seconds."""

from __future__ import annotations

import heapq
from collections import defaultdict
from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any

from pipeline.domain.ids import BatchId, TenantId
from scheduler.simulate.arrivals import Arrival
from scheduler.simulate.record import Record

#: Less work than this is none.
_SECONDS_LEAST = 1e-9
#: Time, and what a tenant got then.
Dispatch = tuple[float, float]
Interval = tuple[float, float]


def service(record: Record) -> dict[TenantId, float]:
    """Return each tenant's worker-seconds."""
    found: defaultdict[TenantId, float] = defaultdict(float)
    for pack in record.packs:
        for tenant, _, seconds in pack.shares:
            found[tenant] += seconds
    return dict(found)


def gaps(
    record: Record, arrivals: Sequence[Arrival], costs: Mapping[BatchId, float], *, lead_seconds: float
) -> dict[str, Any]:
    """Return the worst gap of each pair's service while both had rows in no pack, beside the proven bound.

    The bound is 2 Q + U_f + U_g: Q the lead of those who fill up packs, U the most a tenant had of one pack. Service
    counts when it is packed; only batches of one row are understood.
    """
    packed: dict[BatchId, float] = {}
    largest: defaultdict[TenantId, float] = defaultdict(float)
    dispatches: defaultdict[TenantId, list[Dispatch]] = defaultdict(list)
    for pack in sorted(record.packs, key=lambda pack: pack.packed_at):
        got: defaultdict[TenantId, float] = defaultdict(float)
        for tenant, batch, _ in pack.shares:
            packed[batch] = pack.packed_at
            got[tenant] += costs[batch]
        for tenant, seconds in got.items():
            largest[tenant] = max(largest[tenant], seconds)
            dispatches[tenant].append((pack.packed_at, seconds))
    waiting = _waiting(arrivals, packed, until_seconds=record.seconds)
    pairs = []
    for one, other in combinations(sorted(waiting), 2):
        bound = 2 * lead_seconds + largest[one] + largest[other]
        gap = max(
            (_gap(dispatches[one], dispatches[other], both) for both in _both(waiting[one], waiting[other])), default=0
        )
        pairs.append((gap / bound, gap, bound))
    share, gap, bound = max(pairs)
    return {
        "pairs": len(pairs),
        "gap_of_bound_most": round(share, 4),
        "gap_seconds_there": round(gap, 3),
        "bound_seconds_there": round(bound, 3),
        "request_seconds_most": round(max(costs.values()), 3),
    }


def first_come(
    arrivals: Sequence[Arrival], costs: Mapping[BatchId, float], *, workers: int, until_seconds: float
) -> dict[TenantId, float]:
    """Return each tenant's worker-seconds where whoever comes first is served first, one request at a time."""
    free = [0.0] * workers
    found: defaultdict[TenantId, float] = defaultdict(float)
    for arrival in sorted(arrivals, key=lambda arrival: arrival.at_seconds):
        begin = max(arrival.at_seconds, heapq.heappop(free))
        end = begin + costs[arrival.batch_id]
        heapq.heappush(free, end)
        found[arrival.tenant_id] += max(0.0, min(end, until_seconds) - begin)
    return dict(found)


def fluid(
    arrivals: Sequence[Arrival], costs: Mapping[BatchId, float], *, workers: int, until_seconds: float
) -> dict[TenantId, float]:
    """Return each tenant's worker-seconds where all who have work share the fleet evenly at every instant.

    Generalized processor sharing (A. Parekh, R. Gallager, 1993): what no scheduler of whole requests reaches.
    """
    found: defaultdict[TenantId, float] = defaultdict(float)
    left: dict[TenantId, float] = {}
    coming = sorted(arrivals, key=lambda arrival: arrival.at_seconds)
    changes = [*(arrival.at_seconds for arrival in coming[1:]), until_seconds]
    for arrival, until in zip(coming, changes, strict=True):
        tenant = arrival.tenant_id
        left[tenant] = left.get(tenant, 0.0) + costs[arrival.batch_id]
        at = arrival.at_seconds
        while left and at < until:
            step = min(until - at, min(left.values()) * len(left) / workers)
            at += step
            for each in tuple(left):
                part = min(left[each], step * workers / len(left))
                found[each] += part
                left[each] -= part
            left = {each: seconds for each, seconds in left.items() if seconds > _SECONDS_LEAST}
    return dict(found)


def _waiting(
    arrivals: Sequence[Arrival], packed: Mapping[BatchId, float], *, until_seconds: float
) -> dict[TenantId, list[Interval]]:
    """Return when each tenant had rows in no pack."""
    found: defaultdict[TenantId, list[Interval]] = defaultdict(list)
    for arrival in sorted(arrivals, key=lambda arrival: arrival.at_seconds):
        begin, end = arrival.at_seconds, packed.get(arrival.batch_id, until_seconds)
        known = found[arrival.tenant_id]
        if known and begin <= known[-1][1]:
            known[-1] = known[-1][0], max(end, known[-1][1])
        else:
            known.append((begin, end))
    return dict(found)


def _both(ones: Sequence[Interval], others: Sequence[Interval]) -> list[Interval]:
    overlaps = [(max(a, c), min(b, d)) for a, b in ones for c, d in others]
    return [(begin, end) for begin, end in overlaps if begin < end]


def _gap(ones: Sequence[Dispatch], others: Sequence[Dispatch], within: Interval) -> float:
    """Return the largest difference of service over any part of an interval."""
    begin, end = within
    changes = [(at, seconds) for at, seconds in ones if begin < at < end]
    changes += [(at, -seconds) for at, seconds in others if begin < at < end]
    highest = lowest = ahead = 0.0
    for _, seconds in sorted(changes, key=lambda change: change[0]):
        ahead += seconds
        highest, lowest = max(highest, ahead), min(lowest, ahead)
    return highest - lowest
