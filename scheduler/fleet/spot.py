"""Many divisible workers by the table of one: how much work is a worker's share, and what it does now.

One table serves all shares of a pool and all deadlines: its states are time left and slack, whatever the moment is. A
share is as much work as costs least per second of work, given the time until its deadline: more of it saves starts, less of
it leaves slack to wait for spot in. So a pool's work asks for as many workers as it has shares.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

import numpy as np

from pipeline.ports.fleet import OfferView
from scheduler.columns import Floats, Integers
from scheduler.fleet.decision_table import SLOTS_PER_TICK, DecisionTable, build
from scheduler.fleet.jobs import Job, Mode, Moment
from scheduler.fleet.ladder import pooled
from scheduler.fleet.survival import BUCKETS, HAZARD_MAX, HAZARD_MIN, Survival, bucket_of
from scheduler.fleet.zones import Zone

#: What is not known of a pool: how long it is gone, in ticks.
_OUTAGE_TICKS: Final = 6.0
#: Tables that are kept at most; the oldest goes first.
_TABLES_MAX: Final = 128


def survival_of(lifetime_seconds: float, tick_seconds: float) -> Survival:
    """Return what is thought of an offer of which nothing but its mean lifetime is known: the same hazard at any age."""
    hazard = HAZARD_MIN if math.isinf(lifetime_seconds) else tick_seconds / max(lifetime_seconds, tick_seconds)
    return Survival(
        run_hazards=np.full(BUCKETS, float(np.clip(hazard, HAZARD_MIN, HAZARD_MAX))),
        outage_hazards=np.full(BUCKETS, 1 / _OUTAGE_TICKS),
    )


def life_quantile_seconds(survival: Survival, age_ticks: int, tick_seconds: float, *, share: float = 0.1) -> float:
    """Return the seconds that all but this share of runs of this age still last: what spot can be counted on for."""
    alive, age = 1.0, max(1, age_ticks)
    ticks = 0
    while alive > 1 - share and ticks < 10_000:  # noqa: PLR2004 - longer than any horizon
        hazard = float(survival.run_hazards[bucket_of(age)])
        if alive * (1 - hazard) <= 1 - share:
            return (ticks + math.log((1 - share) / alive) / math.log1p(-hazard)) * tick_seconds
        alive *= 1 - hazard
        age, ticks = age + 1, ticks + 1
    return ticks * tick_seconds


@dataclass(frozen=True, slots=True, kw_only=True)
class SpotTable:
    """A pool's decision table, read for shares of work."""

    table: DecisionTable
    survival: Survival
    #: Prices of the table are in these: one table serves all pools whose prices are in the same proportion.
    price_unit: float = 1.0
    #: Slots of work of the cheapest share: by whether spot is there, bucket of age, ticks left.
    share_slots: tuple[Integers, Integers]

    @property
    def tick_seconds(self) -> float:
        """The tick of the table."""
        return self.table.job.tick_seconds

    def share_seconds(self, left: Floats, *, is_available: bool, age_ticks: int) -> Floats:
        """Return the work of a share by the seconds it has until its deadline."""
        job = self.table.job
        ticks = np.clip(np.floor(left / self.tick_seconds + 1e-6), 0, job.ticks).astype(int)
        slots = self.share_slots[is_available][bucket_of(age_ticks)][ticks]
        # Beyond the table's horizon, as much more as there is time.
        longer = np.maximum(1.0, left / (job.ticks * self.tick_seconds))
        found: Floats = slots * (self.tick_seconds / self.table.slots_per_tick) * longer
        return np.maximum(found, self.tick_seconds / self.table.slots_per_tick)

    def choices(self, left: Floats, work: Floats, mode: Mode, *, is_available: bool, age_ticks: int) -> Integers:
        """Return what shares of so much work do: 0 waits, 1 takes spot, 2 is on demand. What is short is on demand."""
        job, slots = self.table.job, self.table.slots_per_tick
        longer = np.maximum(1.0, left / (job.ticks * self.tick_seconds))
        ticks = np.clip(np.floor(left / longer / self.tick_seconds + 1e-6), 0, job.ticks).astype(int)
        slack = np.floor((ticks - work / longer / self.tick_seconds) * slots + 1e-6).astype(int)
        table = self.table.choices[is_available]
        row = self._row(mode, is_available=is_available)
        is_short = (slack < 0) | (ticks < 1)
        at = np.clip(job.ticks - ticks, 0, job.ticks - 1)
        found = table[at, row, bucket_of(age_ticks), np.clip(slack, 0, table.shape[-1] - 1)].astype(np.int64)
        return np.where(is_short, 2, found)

    def work_value(self, left_seconds: float, work_seconds: float, *, is_available: bool, age_ticks: int) -> float:
        """Return what an hour of work done now is worth to a share, per hour."""
        job = self.table.job
        longer = max(1.0, left_seconds / (job.ticks * self.tick_seconds))
        ticks = int(min(job.ticks, max(0.0, left_seconds / longer / self.tick_seconds)))
        return self.price_unit * self.table.work_value(
            Moment(
                tick=job.ticks - ticks,
                work_left_seconds=work_seconds / longer,
                is_available=is_available,
                age_ticks=age_ticks,
            )
        )

    def _row(self, mode: Mode, *, is_available: bool) -> int:
        """Return the table's row of a worker that works, or of none."""
        if mode is Mode.IDLE or (mode is Mode.SPOT and not is_available):
            return 0
        stages = (self.table.choices[1].shape[1] - 1) // 2
        return 1 if mode is Mode.SPOT or not is_available else 1 + stages


def _share_slots(table: DecisionTable) -> tuple[Integers, Integers]:
    """Return the work, in slots, that costs least per slot, by state."""
    horizon, slots = table.job.ticks, table.slots_per_tick
    made = []
    for values in table.idle_values:
        width = values.shape[-1]
        best = np.ones((BUCKETS, horizon + 1), dtype=np.int64)
        for ticks in range(1, horizon + 1):
            # Work of 1..ticks*slots slots has this much slack.
            work = np.arange(1, ticks * slots + 1)
            cost = values[horizon - ticks][:, np.minimum(ticks * slots - work, width - 1)]
            best[:, ticks] = np.argmin(cost / work, axis=1) + 1
        made.append(best)
    return made[0], made[1]


@dataclass(slots=True)
class SpotTables:
    """Tables by what they depend on, built when first asked for: prices, start, and survival of the offers together."""

    tick_seconds: float = 600.0
    horizon_seconds: float = 24 * 3600.0
    #: By offer, as learned; of others, what the offer says of itself.
    survivals: Mapping[str, Survival] = field(default_factory=dict)
    _tables: dict[tuple[object, ...], SpotTable] = field(default_factory=dict)

    def survival(self, offer: OfferView) -> Survival:
        """Return what is known of an offer."""
        return self.survivals.get(offer.offer) or survival_of(offer.lifetime_seconds, self.tick_seconds)

    def learn(self, survivals: Mapping[str, Survival]) -> None:
        """Replace what was learned of offers; tables follow when they are asked for next."""
        self.survivals = survivals
        self._tables.clear()

    def table(self, offers: Sequence[OfferView], *, cold_start_seconds: float, on_demand_price: float) -> SpotTable:
        """Return the table of a pool's spot offers taken together; prices are micro-units an hour.

        Starts are rounded up to a minute, and lifetimes and prices to two digits: what nearly is the same is the same table.
        """
        start = math.ceil(cold_start_seconds / 60) * 60.0
        unit = max(1.0, on_demand_price)
        kinds = sorted(self._kind(offer, unit) for offer in offers)
        key: tuple[object, ...] = (start, *kinds)
        found = self._tables.get(key)
        if found is None:
            if len(self._tables) >= _TABLES_MAX:
                del self._tables[next(iter(self._tables))]
            found = self._tables[key] = self._made(kinds, start)
        return replace(found, price_unit=unit)

    def _kind(self, offer: OfferView, unit: float) -> tuple[float, float, str]:
        """Return what the table depends on: price in units, and lifetime, or the offer whose survival was learned."""
        ratio = max(1e-6, _rounded(offer.rate_micros_per_hour / unit))
        if offer.offer in self.survivals:
            return ratio, 0.0, offer.offer
        return ratio, _rounded(offer.lifetime_seconds), ""

    def _made(self, kinds: Sequence[tuple[float, float, str]], start: float) -> SpotTable:
        zones = [
            Zone(name=str(number), region="", spot_price=ratio, on_demand_price=1.0)
            for number, (ratio, _, _) in enumerate(kinds)
        ]
        survivals = {
            str(number): self.survivals[name] if name else survival_of(lifetime, self.tick_seconds)
            for number, (_, lifetime, name) in enumerate(kinds)
        }
        job = Job(
            work_seconds=self.tick_seconds / SLOTS_PER_TICK,
            deadline_seconds=max(self.horizon_seconds, 2 * start),
            tick_seconds=self.tick_seconds,
            startup_seconds=start,
            spot_price=zones[0].spot_price,
            on_demand_price=1.0,
        )
        job, survival = pooled(job, zones, survivals)
        table = build(job, survival)
        return SpotTable(table=table, survival=survival, share_slots=_share_slots(table))


def _rounded(value: float) -> float:
    return value if value == 0 or math.isinf(value) else round(value, 1 - math.floor(math.log10(abs(value))))
