"""The least that any fleet could have cost, had all arrivals, capacities and prices been known: a lower bound.

Work is a fluid of worker-seconds (of the fastest pool's workers), machines start at once and for any length of time, and
bills have neither minimum nor rounding. Time is cut into bins; in each, a batch that is there for part of the bin may use all
of it, and an offer's machines have as many seconds as its capacity has over the bin. A policy's run, cut the same way, is a
way to serve all work on such seconds, and pays at least for those that it used. What providers give away is in it too: a
spot machine that is taken within its first `free_below` seconds costs nothing, does nothing before it has started, which takes
so many seconds at least, and is taken only where capacity drops, with no more of them than it drops by; so the last
`free_below` seconds less those of a start before a drop cost nothing for so many machines. So the least cost of serving the work on these seconds is no more than the policy's.

That least cost is exact. Which sets of worker-seconds can all be used to do work in its window are the independent sets of a
transversal matroid, on which taking the cheapest first is optimal (J. Edmonds, D. Fulkerson, 1965): with prices
p1 < p2 < …, and F(p) the most work that can be done on seconds of price p or less, it is the sum of p_k (F(p_k) - F(p_k-1)).
And F(p) is what serving the earliest deadline first does, with what is past its deadline left out, because windows are
intervals (F. Glover, 1967).

It holds for runs that finish everything in time. Seconds that packs take longer or shorter by chance are not in it.
"""

from __future__ import annotations

import heapq
import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from pipeline.ports.cycle import WorkSize
from scheduler.simulate.arrivals import Arrival
from scheduler.simulate.capacity import Capacity
from scheduler.simulate.scene import ElasticPool, Offering, Scene
from scheduler.simulate.state import MICROSECONDS

_MICROS: Final = 1_000_000
_TINY: Final = 1e-6


@dataclass(frozen=True, slots=True, kw_only=True)
class Bound:
    """The bound, in units of the currency, and what it is made of."""

    cost: float
    #: Worker-seconds done, by price of an hour.
    seconds_by_price: Mapping[float, float]
    #: Worker-seconds that no offer had room for in time: then no policy is on time.
    impossible_seconds: float


def lower_bound(
    arrivals: Sequence[Arrival], scene: Scene, *, bin_seconds: float = 600.0, is_free_counted: bool = True
) -> Bound:
    """Return what no policy can do the work for less than, every batch in time.

    Without `is_free_counted` it bounds what would be paid if interrupted machines were paid for like all others.

    With several pools a worker-second of each counts as so many of the first one's as it is worth for the model that
    gains most by it: at worst too low a bound.
    """
    bins = math.ceil(max(a.at_seconds + a.window_seconds for a in arrivals) / bin_seconds)
    jobs = _jobs(arrivals, scene, bin_seconds)
    segments = _segments(scene, bins, bin_seconds, is_free_counted=is_free_counted)
    done, cost = 0.0, 0.0
    by_price: dict[float, float] = {}
    room = np.zeros(bins)
    whole = sum(work for _, _, work in jobs)
    for price in sorted(segments):
        room = room + segments[price]
        now_done = _most_work(jobs, room)
        if now_done > done + _TINY:
            by_price[price] = now_done - done
            cost += price / 3600 * (now_done - done)
            done = now_done
        if done >= whole - _TINY:
            break
    return Bound(cost=cost, seconds_by_price=by_price, impossible_seconds=max(0.0, whole - done))


def _jobs(arrivals: Sequence[Arrival], scene: Scene, bin_seconds: float) -> list[tuple[int, int, float]]:
    """Return first and last bin and worker-seconds of all work."""
    found: dict[tuple[int, int], float] = defaultdict(float)
    first = scene.pools[0]
    for arrival in arrivals:
        size = arrival.estimated
        actual = WorkSize(
            rows=size.rows,
            input_tokens=size.input_tokens,
            output_tokens=size.output_tokens * arrival.output_ratio,
        )
        pool = first if arrival.model in first.speeds else _serving(scene, arrival.model)
        begin = int(arrival.at_seconds // bin_seconds)
        end = max(begin, math.ceil((arrival.at_seconds + arrival.window_seconds) / bin_seconds) - 1)
        found[begin, end] += pool.speeds[arrival.model].seconds(actual)
    return sorted((begin, end, seconds) for (begin, end), seconds in found.items())


def _serving(scene: Scene, model: str) -> ElasticPool:
    return next(pool for pool in scene.pools if model in pool.speeds)


def _segments(
    scene: Scene, bins: int, bin_seconds: float, *, is_free_counted: bool
) -> dict[float, NDArray[np.float64]]:
    """Return worker-seconds by price of such an hour and bin."""
    found: dict[float, NDArray[np.float64]] = defaultdict(lambda: np.zeros(bins))
    for pool in scene.pools:
        worth = _worth(pool, scene)
        limit = math.inf if pool.workers_max is None else pool.workers_max
        for offering in pool.offerings:
            price = offering.rate_micros_per_hour / _MICROS / worth
            seconds = _room(offering, bins, bin_seconds)
            least = pool.boot.least_seconds + pool.load.least_seconds
            free = np.minimum(_free(offering, bins, bin_seconds, least), seconds) * is_free_counted
            found[0.0] += np.minimum(free, limit * bin_seconds) * worth
            found[price] += np.minimum(seconds - free, limit * bin_seconds) * worth
    return dict(found)


def _worth(pool: ElasticPool, scene: Scene) -> float:
    """Return how many seconds of the first pool's that serves a model one of this pool's is worth, at most."""
    best = 0.0
    for model, speed in pool.speeds.items():
        first = scene.pools[0] if model in scene.pools[0].speeds else _serving(scene, model)
        for unit in (
            WorkSize(rows=1, input_tokens=0, output_tokens=0),
            WorkSize(rows=0, input_tokens=1, output_tokens=0),
            WorkSize(rows=0, input_tokens=0, output_tokens=1),
        ):
            mine, theirs = speed.seconds(unit), first.speeds[model].seconds(unit)
            if theirs > 0:
                best = max(best, theirs / mine if mine > 0 else math.inf)
    return best


def _room(offering: Offering, bins: int, bin_seconds: float) -> NDArray[np.float64]:
    quota = math.inf if offering.workers_max is None else offering.workers_max
    if offering.capacity is None:
        return np.full(bins, min(quota, _WITHOUT_END) * bin_seconds)
    return _integrated(offering.capacity, quota, bins, bin_seconds)


#: Machines that nobody will ever need at once.
_WITHOUT_END: Final = 1e6


def _integrated(capacity: Capacity, quota: float, bins: int, bin_seconds: float) -> NDArray[np.float64]:
    """Return the worker-seconds that capacity has in each bin."""
    edges = np.arange(bins + 1) * bin_seconds
    times = np.union1d(np.array(capacity.times), edges)
    times = times[times <= edges[-1]]
    counts = np.array(capacity.counts)[np.searchsorted(np.array(capacity.times), times[:-1], side="right") - 1]
    seconds = np.minimum(counts, quota) * np.diff(times)
    places = np.searchsorted(edges, times[:-1], side="right") - 1
    return np.asarray(np.bincount(places, weights=seconds, minlength=bins)[:bins], dtype=np.float64)


def _free(offering: Offering, bins: int, bin_seconds: float, start_seconds: float) -> NDArray[np.float64]:
    """Return the worker-seconds of each bin that may cost nothing: those before machines are taken."""
    made = np.zeros(bins)
    window = offering.rule.free_below_us / MICROSECONDS - start_seconds
    if offering.capacity is None or window <= 0:
        return made
    for at, left in offering.capacity.drops():
        dropped = offering.capacity.at(math.nextafter(at, 0)) - left
        begin = max(0.0, at - window)
        for number in range(int(begin // bin_seconds), min(bins, math.ceil(at / bin_seconds))):
            overlap = min(at, (number + 1) * bin_seconds) - max(begin, number * bin_seconds)
            made[number] += dropped * max(0.0, overlap)
    return made


def _most_work(jobs: Sequence[tuple[int, int, float]], room: NDArray[np.float64]) -> float:
    """Return the most work that fits, the earliest deadline first."""
    open_: list[list[float]] = []
    done, at = 0.0, 0
    for number, seconds in enumerate(room.tolist()):
        while at < len(jobs) and jobs[at][0] <= number:
            heapq.heappush(open_, [jobs[at][1], jobs[at][2]])
            at += 1
        while open_ and open_[0][0] < number:
            heapq.heappop(open_)
        left = seconds
        while open_ and left > 0:
            part = min(left, open_[0][1])
            done += part
            left -= part
            open_[0][1] -= part
            if open_[0][1] <= _TINY * _TINY:
                heapq.heappop(open_)
    return done
