"""Where to run, by named rules: the table's value of work against price, lifetime, start and egress, and what it is told beside."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np

from scheduler.fleet.jobs import Mode
from scheduler.fleet.ladder import Ladder
from scheduler.fleet.spot_policies import UniformProgress, progress_value
from scheduler.fleet.zones import IDLE, Market, Option, Plan, Situation, Zone
from scheduler.fleet.zones_replay import fallback
from scheduler.fleet.zones_watch import Watcher

#: Of what a move costs, how much more it must gain: estimates are not known to the cent, and churn helps nobody.
MOVE_MARGIN: Final = 1.0
#: A machine is left for a better one only when it has worked this often as long as its start took.
DWELL_STARTS: Final = 1.0
#: Share of the slack for the work left that moves and waiting must leave to what is not chosen.
SLACK_KEPT: Final = 0.5
#: Share of what the job has cost so far that probes may have cost.
PROBE_SHARE: Final = 0.01
#: Ticks between two probes of a zone.
PROBE_TICKS: Final = 12
_PROBE_HOURS: Final = 1 / 60


@dataclass(slots=True, kw_only=True)
class SwitchOnPreemption(Watcher):
    """Uniform Progress that moves only when spot is lost: to the cheapest zone, what was lost and its region last."""

    name: str = "switch_on_preemption"

    def plan(self, situation: Situation) -> Plan:
        """Return to stay where spot runs, or the zones by price."""
        wanted = UniformProgress(self.job).choose(self.moment(situation, is_available=True))
        if wanted is not Mode.SPOT:
            return Plan(options=(_paid(self.market, situation),) if wanted is Mode.ON_DEMAND else (IDLE,))
        if situation.running.mode is Mode.SPOT:
            return Plan(options=(situation.running,))
        order = sorted(
            self.market.zones, key=lambda zone: (zone.region == situation.held_in, zone.spot_price, zone.name)
        )
        return Plan(options=(*(Option(Mode.SPOT, zone.name) for zone in order), _without_spot(self, situation)))


@dataclass(slots=True, kw_only=True)
class MostAvailable(Watcher):
    """Uniform Progress in the zone where most of the last looks found spot, each looked at every two hours."""

    name: str = "most_available"
    looks: int = 5
    looks_by_zone: dict[str, deque[bool]] = field(default_factory=dict)

    def observe(self, zone: str, tick: int, *, is_available: bool) -> None:
        """Take in a look; one that stays running is looked at as often as others."""
        seen = self.sightings[zone]
        is_new = seen.seen_tick is None or not is_available or tick >= (seen.probed_tick or 0) + PROBE_TICKS
        Watcher.observe(self, zone, tick, is_available=is_available)
        if is_new:
            seen.probed_tick = tick
            self.looks_by_zone.setdefault(zone, deque(maxlen=self.looks)).append(is_available)

    def plan(self, situation: Situation) -> Plan:
        """Return the zones by share of looks that found spot."""
        wanted = UniformProgress(self.job).choose(self.moment(situation, is_available=True))
        if wanted is not Mode.SPOT:
            return Plan(options=(_paid(self.market, situation),) if wanted is Mode.ON_DEMAND else (IDLE,))
        order = sorted(self.market.zones, key=lambda zone: (-self._share(zone), zone.spot_price))
        running = situation.running
        options = [Option(Mode.SPOT, zone.name) for zone in order]
        if running.mode is Mode.SPOT and running.zone is not None:
            least = self._share(self.market.zone(running.zone))
            options = [each for each in options if self._share(self.market.zone(each.zone or "")) > least] + [running]
        due = [
            zone
            for zone in order
            if zone.name != running.zone
            and situation.tick >= (self.sightings[zone.name].probed_tick or -PROBE_TICKS) + PROBE_TICKS
        ]
        due.sort(key=lambda zone: len(self.looks_by_zone.get(zone.name, ())))
        return Plan(options=(*options, _without_spot(self, situation)), probes=tuple(zone.name for zone in due[:1]))

    def _share(self, zone: Zone) -> float:
        found = self.looks_by_zone.get(zone.name)
        return sum(found) / len(found) if found else 0.5


@dataclass(slots=True, kw_only=True)
class SkyNomad(Watcher):
    """SkyNomad's rule from its formulas (NSDI '27): the highest U = V eta - price - egress / life, tried in that order."""

    name: str = "skynomad"

    def plan(self, situation: Situation) -> Plan:
        """Return options by utility, those below what runs left out."""
        value = progress_value(self.job, self.moment(situation, is_available=True))
        hours = self.job.tick_seconds / 3600
        most = (situation.work_left_seconds + self.job.startup_seconds) / 3600
        scored = [(0.0, 0, IDLE)]
        for rank, zone in enumerate(self.market.zones, start=1):
            for option in (Option(Mode.SPOT, zone.name), Option(Mode.ON_DEMAND, zone.name)):
                is_kept = option == situation.running
                start = (situation.startup_left_seconds if is_kept else self.job.startup_seconds) / 3600
                is_spot = option.mode is Mode.SPOT
                life = min(most, self.life_ticks(zone.name, situation.tick) * hours) if is_spot else most
                price = zone.spot_price if is_spot else zone.on_demand_price
                # On demand lasts: its start is no share of a life.
                share = max(0.0, life - start) / life if is_spot else 1.0
                egress = self.market.egress(situation.held_in, zone.region) if not is_kept else 0.0
                scored.append((value * share - price - egress / life, rank, option))
        scored.sort(key=lambda each: (-each[0], each[2] != situation.running, each[1]))
        options = [option for _, _, option in scored]
        kept = options[: options.index(situation.running) + 1]
        if situation.running != IDLE:
            # As published: what runs is left for a better machine, and not for none.
            kept = [option for option in kept if option != IDLE]
        probes = [
            zone.name
            for zone in self.market.zones
            if zone.name != situation.running.zone and self.sightings[zone.name].seen_tick is None
        ]
        return Plan(options=tuple(kept), probes=tuple(probes))


@dataclass(slots=True, kw_only=True)
class TableZones(Watcher):
    """Decision tables say whether to start, wait or pay, and what an hour of work is worth; that chooses the zone (the default).

    Of the cheapest zones alone, of those and the next, and so on, each has a table: starting in a zone is weighed against
    waiting for cheaper ones. An hour in a zone gains V - price, as long as it lasts; a start loses V for its length, and
    egress. What an hour could gain on average elsewhere is taken off, so that machines of different lifetimes compare.
    """

    name: str = "decision_table"
    ladder: Ladder | None = None
    spent: float = 0.0
    probed: float = 0.0

    def plan(self, situation: Situation) -> Plan:
        """Return what to try, best first, and what to do when nothing of it is to be had."""
        ladder = self.ladder = self.ladder or Ladder.of(self.job, self.market, self.survivals)
        self._pay(situation)
        return (
            self._moves(ladder, situation) if situation.running.mode is Mode.SPOT else self._starts(ladder, situation)
        )

    def _moves(self, ladder: Ladder, situation: Situation) -> Plan:
        """Return zones that gain more than the one that runs by more than moving costs."""
        running = situation.running
        assert running.zone is not None
        price = self.market.zone(running.zone).spot_price
        moment = self.moment(
            situation, is_available=True, age_ticks=self.sightings[running.zone].age_ticks(situation.tick)
        )
        rungs = [at for at, rung in enumerate(ladder.rungs) if running.zone in rung] or [len(ladder.rungs) - 1]
        table = min((ladder.tables[at] for at in rungs), key=lambda table: table.expected_cost(moment))
        # Where it runs, work is worth its price.
        value = min(max(table.work_value(moment), price), self.job.on_demand_price)
        worth = self._worth(situation, value)
        here, least = self.market.zone(running.zone), MOVE_MARGIN * worth.start
        others = [zone for zone in self.market.zones if zone.name != running.zone]
        gains = {zone.name: worth.gain(here, zone, worth.lives[zone.name]) for zone in others}
        dwell = DWELL_STARTS * self.job.startup_seconds / self.job.tick_seconds
        may_move = situation.dwell_ticks >= dwell and self._may_spend(situation, self.job.startup_seconds)
        better = [name for name, gain in gains.items() if gain > least] if may_move else []
        better.sort(key=lambda name: -gains[name])
        # Zones that would be better were their runs known to be old.
        unsure = [
            zone
            for zone in others
            if zone.name not in better and worth.gain(here, zone, worth.usual[zone.name]) > least
        ]
        options = (*(Option(Mode.SPOT, zone) for zone in better), running)
        return Plan(options=options, probes=self._probes(situation, unsure))

    def _starts(self, ladder: Ladder, situation: Situation) -> Plan:
        """Return zones to start in rather than to wait for cheaper ones, or to go on without spot."""
        tick = situation.tick
        gone = [self._outage(rung, tick) for rung in ladder.rungs]
        waits = [
            table.expected_cost(self.moment(situation, is_available=False, age_ticks=age))
            for table, age in zip(ladder.tables, gone, strict=True)
        ]
        best = int(np.argmin(waits))
        moment = self.moment(situation, is_available=False, age_ticks=gone[best])
        is_paid = ladder.tables[best].choice(moment) is Mode.ON_DEMAND
        without = _paid(self.market, situation) if is_paid else IDLE
        value = min(max(ladder.tables[best].work_value(moment), ladder.prices[best]), self.job.on_demand_price)
        worth = self._worth(situation, value)
        may_wait = self._may_spend(situation, self.job.tick_seconds)
        wanted = []
        for zone in self.market.zones:
            cost, choice = self._start(ladder, situation, zone, gone)
            # Work that is done cannot be lost again: waiting must save more than a start costs.
            if choice is not Mode.ON_DEMAND and (cost <= waits[best] + worth.start or not may_wait):
                wanted.append(zone)
        wanted.sort(key=lambda zone: (worth.price(zone), zone.name))
        return Plan(options=(*(Option(Mode.SPOT, zone.name) for zone in wanted), without))

    def _start(self, ladder: Ladder, situation: Situation, zone: Zone, gone: list[int]) -> tuple[float, Mode | None]:
        """Return what the job is expected to cost with a start in a zone, and what its table would do there."""
        hours = self.job.tick_seconds / 3600
        tick = situation.tick
        moment = self.moment(situation, is_available=True, age_ticks=self.run_age(zone.name, tick))
        least: tuple[float, Mode | None] = (np.inf, None)
        for at, rung in enumerate(ladder.rungs):
            if zone.name not in rung:
                continue
            table = ladder.tables[at]
            lasts = min(self.life_ticks(zone.name, tick) * hours, situation.work_left_seconds / 3600)
            if at:
                # Dearer than the rung's mean, until cheaper zones are back.
                lasts = min(lasts, ladder.pools[at - 1].left_ticks(gone[at - 1], is_available=False) * hours)
            premium = max(0.0, zone.spot_price - table.job.spot_price) * lasts
            cost = table.expected_cost(moment) + premium + self.market.egress(situation.held_in, zone.region)
            if least[1] is None or cost < least[0]:
                least = (cost, table.choice(moment))
        return least

    def _may_spend(self, situation: Situation, seconds: float) -> bool:
        """Whether so much slack may be spent on what is not forced.

        Some of the slack there was is kept for losses to come, in proportion to work left: histories tell less of the
        future than tables made of them believe.
        """
        job = self.job
        slack = (job.ticks - situation.tick) * job.tick_seconds - situation.work_left_seconds
        first = job.ticks * job.tick_seconds - job.work_seconds
        return slack - seconds >= SLACK_KEPT * first * situation.work_left_seconds / job.work_seconds

    def _outage(self, rung: tuple[str, ...], tick: int) -> int:
        """Return for how many ticks all of these zones have been gone, if none of them is there now."""
        ages = [
            1 if seen.seen_tick is None or seen.is_available else seen.age_ticks(tick)
            for seen in (self.sightings[zone] for zone in rung)
        ]
        return min(ages)

    def _worth(self, situation: Situation, value: float) -> _Worth:
        hours = self.job.tick_seconds / 3600
        start = value * self.job.startup_seconds / 3600
        most = situation.work_left_seconds / 3600 + self.job.startup_seconds / 3600
        lives, usual, moves = {}, {}, {}
        for zone in self.market.zones:
            lives[zone.name] = min(most, self.life_ticks(zone.name, situation.tick) * hours)
            usual[zone.name] = min(most, self.outlooks[zone.name].usual_life * hours)
            moves[zone.name] = self.market.egress(situation.held_in, zone.region)
        return _Worth(start=start, most=most, lives=lives, usual=usual, moves=moves)

    def _probes(self, situation: Situation, unsure: Sequence[Zone]) -> tuple[str, ...]:
        """Return the cheapest of these whose look is due, if the budget allows for one."""
        for zone in sorted(unsure, key=lambda zone: (zone.spot_price, zone.name)):
            seen = self.sightings[zone.name]
            is_due = seen.seen_tick is None or situation.tick - seen.seen_tick >= PROBE_TICKS
            price = zone.spot_price * _PROBE_HOURS
            if is_due and self.probed + price <= PROBE_SHARE * self.spent:
                self.probed += price
                return (zone.name,)
        return ()

    def _pay(self, situation: Situation) -> None:
        if situation.running.zone is not None:
            zone = self.market.zone(situation.running.zone)
            is_spot = situation.running.mode is Mode.SPOT
            self.spent += (zone.spot_price if is_spot else zone.on_demand_price) * self.job.tick_seconds / 3600


@dataclass(frozen=True, slots=True, kw_only=True)
class _Worth:
    """What a start loses in work, and by zone hours that spot would last, as far as known and usually, and egress."""

    start: float
    most: float
    lives: dict[str, float]
    usual: dict[str, float]
    moves: dict[str, float]

    def price(self, zone: Zone) -> float:
        """Return what an hour there costs with its start, egress and life in it: the effective price."""
        return zone.spot_price + (self.start + self.moves[zone.name]) / self.lives[zone.name]

    def gain(self, here: Zone, there: Zone, life: float) -> float:
        """Return what a move saves while both would last, a loss here costing a start just as a loss there does."""
        both = min(self.lives[here.name], life)
        saved = (here.spot_price - there.spot_price) * both
        starts = both / self.lives[here.name] - both / life - 1
        return saved + self.start * starts - self.moves[there.name]


def _paid(market: Market, situation: Situation) -> Option:
    return situation.running if situation.running.mode is Mode.ON_DEMAND else fallback(market, situation)


def _without_spot(watcher: Watcher, situation: Situation) -> Option:
    choice = UniformProgress(watcher.job).choose(watcher.moment(situation, is_available=False))
    return _paid(watcher.market, situation) if choice is Mode.ON_DEMAND else IDLE


ZONES_POLICIES: Final = (TableZones, SkyNomad, SwitchOnPreemption, MostAvailable)
