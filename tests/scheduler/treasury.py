"""A treasury: tenants with projects, batches, budgets at every scope, packs in flight and a ledger; what happens is drawn.

It keeps books of its own, apart from the scheduler's: limits, charges and reservations by scope and period. A cycle sees
what a store would tell, torn in time as a store tells it: what is reserved first, then what is spent, and workers commit in
between and before the plan is stored. Leaders fail, and one that is deposed has its plan refused.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import date
from random import Random
from typing import Final

import numpy as np

from pipeline.domain.costs.budgets import (
    ALWAYS,
    BudgetMark,
    BudgetPeriod,
    BudgetScope,
    BudgetStanding,
    BudgetTerms,
    next_month_after,
)
from pipeline.domain.costs.charging import PAR_PPM, ChargeTerms
from pipeline.domain.ids import BatchId, BudgetId, PackId, ProjectId, TenantId
from pipeline.domain.tiers import Tier
from pipeline.ports.cycle import Backlog, CyclePlan, EndedPack, EndedShare, PackDraft, PoolView, Snapshot, WorkSize
from scheduler.cycle import decide
from scheduler.policy import Policy
from scheduler.prediction.predictions import Predictions
from tests.scheduler.world import backlog, pack_ids, references, snapshot

POLICY: Final = Policy(pack_rows_min=1, pack_seconds_target=4.0, pack_fixed_seconds=0.0)
#: Of one who does not know yet what packs take beyond their rows, and learns it.
LEARNING: Final = replace(POLICY, pack_fixed_seconds=Policy().pack_fixed_seconds)
#: In micro-units an hour: a cent a second, and three.
RATES: Final = {"cheap": 36_000_000, "dear": 108_000_000}
SPEED: Final = 100.0
PROJECTS: Final = {"tnt_a": ("proj_a1", "proj_a2"), "tnt_b": ("proj_b1",)}
STEPS: Final = 60
#: Whose money: a batch's own budget, or one of a scope; and its period.
Account = tuple[str, date]


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What came of a run, of micro-units."""

    #: The most that any account was overrun by, at any moment, and where.
    overrun_micros: int
    where: str
    #: The largest upper bound of one pack.
    pack_bound_micros: int
    packs: int
    #: Packs that were charged more than was reserved for them.
    packs_beyond: int
    spent_micros: int
    stops: int

    @property
    def overrun_packs(self) -> float:
        """Return the overrun in largest packs."""
        return self.overrun_micros / self.pack_bound_micros if self.pack_bound_micros else 0.0


@dataclass(eq=False)
class Flight:
    """A pack on its way: what it reserved of each batch, what it will be charged in the end, and what it was so far."""

    draft: PackDraft
    month: date
    reserved: Counter[BatchId]
    true: dict[BatchId, int]
    #: The worker-seconds that it takes.
    seconds: float
    charged: Counter[BatchId] = field(default_factory=Counter)


@dataclass
class Treasury:
    """The whole of it."""

    random: Random
    #: Draws what a pack's charge is of its upper bound.
    ratio: Callable[[Random], float]
    #: What every pack takes beyond its rows, in seconds; None: nothing, and nothing is learned.
    fixed_seconds: float | None = None
    predictions: Predictions = field(default_factory=Predictions)
    ended: list[EndedPack] = field(default_factory=list)
    month: date = date(2026, 1, 1)
    backlogs: dict[BatchId, Backlog] = field(default_factory=dict)
    standings: dict[BudgetId, BudgetStanding] = field(default_factory=dict)
    #: In which each budget counted so far.
    periods: dict[BudgetId, list[date]] = field(default_factory=dict)
    flights: list[Flight] = field(default_factory=list)
    spent: Counter[Account] = field(default_factory=Counter)
    added: Counter[tuple[BudgetId, date]] = field(default_factory=Counter)
    told: list[tuple[BudgetId, date, int, BudgetMark, int]] = field(default_factory=list)
    #: Of each account: what packs were charged beyond what they had reserved.
    beyond: Counter[Account] = field(default_factory=Counter)
    new_pack_id: Callable[[], PackId] = field(default_factory=pack_ids)
    epoch: int = 0
    overrun: tuple[int, str] = (0, "-")
    pack_bound: int = 0
    packs: int = 0
    packs_beyond: int = 0
    stops: int = 0

    @property
    def policy(self) -> Policy:
        return POLICY if self.fixed_seconds is None else LEARNING

    # --- what may happen ---------------------------------------------------------------------------

    def submit(self) -> None:
        random = self.random
        tenant = random.choice(list(PROJECTS))
        rows, tokens = random.randint(1, 150), random.randint(1, 300)
        terms = ChargeTerms(multiplier_ppm=random.choice([PAR_PPM, 700_000, 1_500_000, 3_000_000, 333_333]))
        if random.random() < 0.3:
            terms = replace(
                terms, input_token_picos=random.randint(0, 10**9), output_token_picos=random.randint(0, 10**9)
            )
        batch = backlog(
            f"batch_{len(self.backlogs)}",
            rows=rows,
            row_tokens=tokens,
            budget_micros=random.choice([None, None, random.randint(0, 500_000)]),
            tier=random.choice(list(Tier)),
            tenant_id=TenantId(tenant),
            project_id=ProjectId(random.choice(PROJECTS[tenant])),
            terms=terms,
        )
        shard = replace(batch.shards[0], output_tokens=rows * random.randint(0, 100))
        self.backlogs[batch.batch_id] = replace(batch, shards=(shard,))

    def set_budget(self) -> None:
        """Set one that was not there; those that are there are raised only, by topping up."""
        tenant = self.random.choice(list(PROJECTS))
        project = self.random.choice([None, *PROJECTS[tenant]])
        period = self.random.choice(list(BudgetPeriod))
        name = BudgetId(f"{project or tenant}:{period}")
        if name in self.standings:
            return
        scope = BudgetScope(tenant_id=TenantId(tenant), project_id=None if project is None else ProjectId(project))
        account = project or tenant, self.month if period is BudgetPeriod.MONTH else ALWAYS
        # Not below what is gone already: that is nobody's overrun.
        least = self.spent[account] + self._reserved(account)
        amount = least + self.random.choice([self.random.randint(0, 300_000), self.random.randint(0, 3_000_000)])
        self.periods[name] = [account[1]]
        self.standings[name] = BudgetStanding(
            budget_id=name,
            scope=scope,
            period=period,
            period_start=account[1],
            terms=BudgetTerms(amount_micros=amount, core_share_ppm=self.random.choice([900_000, 500_000, 1_000_000])),
            added_micros=0,
            spent_micros=0,
        )

    def top_up(self) -> None:
        if self.standings:
            name = self.random.choice(sorted(self.standings))
            self.added[name, self._account(self.standings[name])[1]] += self.random.randint(1, 1_000_000)

    def turn_month(self) -> None:
        self.month = next_month_after(self.month)
        for standing in self.standings.values():
            if standing.period is BudgetPeriod.MONTH:
                self.periods[standing.budget_id].append(self.month)

    def cycle(self) -> None:
        """Decide on a torn look, while workers commit and months turn, and store the plan unless another leads by then."""
        epoch = self.epoch
        seen = self._look()
        self.ended.clear()
        plan = decide(seen, self.policy, self.new_pack_id, self.predictions)
        if self.random.random() < 0.3:
            self._meanwhile()
        if self.random.random() < 0.1:
            self.epoch += 1
        # A cancelled batch, a deposed leader: nothing of such a plan is stored.
        if epoch == self.epoch:
            self._store(plan)

    def commit(self) -> None:
        """Commit a part of some pack, which is then preempted, or fails, and is tried again."""
        if self.flights:
            flight = self.random.choice(self.flights)
            for name, true in flight.true.items():
                self._charge(flight, name, self.random.randint(0, true - flight.charged[name]))

    def end(self) -> None:
        if self.flights:
            flight = self.flights.pop(self.random.randrange(len(self.flights)))
            self._learn_of(flight)
            for name, true in flight.true.items():
                self._charge(flight, name, true - flight.charged[name])

    def give_up(self) -> None:
        """Lose a pack whose batches were withdrawn: what it has not been charged is free again."""
        if self.flights and self.random.random() < 0.3:
            self.flights.pop(self.random.randrange(len(self.flights)))

    # --- the run --------------------------------------------------------------------------------------

    def run(self) -> Outcome:
        for _ in range(4):
            self.set_budget()
        acts = [self.cycle] * 6 + [self.commit] * 4 + [self.end] * 4 + [self.give_up, self.top_up, self.set_budget]
        for number in range(STEPS):
            if number % 4 == 0:
                self.submit()
            if number % 19 == 18:
                self.turn_month()
            self.random.choice(acts)()
            self._check()
        for _ in range(40):
            self.cycle()
            self._check()
            for _ in range(6):
                self.end()
            self._check()
            if not self.flights:
                break
        assert len(self.told) == len(set(self.told)), "told twice"
        return Outcome(
            overrun_micros=self.overrun[0],
            where=self.overrun[1],
            pack_bound_micros=self.pack_bound,
            packs=self.packs,
            packs_beyond=self.packs_beyond,
            spent_micros=sum(self.spent[name, ALWAYS] for name in PROJECTS),
            stops=sum(mark is BudgetMark.REACHED for _, _, _, mark, _ in self.told),
        )

    def month_of(self, plan: CyclePlan) -> date:
        """Return the month that a plan's packs count in."""
        assert plan.month is not None
        return plan.month

    def limit(self, standing: BudgetStanding, start: date) -> int:
        return standing.terms.amount_micros + self.added[standing.budget_id, start]

    # --- the store's side -----------------------------------------------------------------------------

    def _look(self) -> Snapshot:
        # Reserved first, by account; then commits; then what is spent.
        reserved = self._reservations()
        if self.random.random() < 0.3:
            self._meanwhile()
        month = self.month
        budgets = []
        for each in self.standings.values():
            start = month if each.period is BudgetPeriod.MONTH else ALWAYS
            account = each.scope.project_id or each.scope.tenant_id, start
            limit = self.limit(each, start)
            told = {
                (mark, share)
                for name, at, of, mark, share in self.told
                if (name, at, of) == (each.budget_id, start, limit)
            }
            budgets.append(
                replace(
                    each,
                    period_start=start,
                    added_micros=self.added[each.budget_id, start],
                    spent_micros=self.spent[account],
                    reserved_micros=reserved[account],
                    told=frozenset(told),
                )
            )
        waiting = Counter(flight.draft.pool for flight in self.flights)
        return snapshot(
            [
                replace(
                    each,
                    spent_micros=self.spent[name, ALWAYS],
                    reserved_micros=reserved[name, ALWAYS],
                    rows_in_flight=sum(1 for flight in self.flights if name in flight.reserved),
                )
                for name, each in self.backlogs.items()
                if each.shards[0].rows_packed < each.shards[0].rows_total
            ],
            pools=tuple(
                PoolView(
                    pool=name,
                    workers=workers,
                    servings=references(["model-a"]),
                    packs_waiting=waiting[name] // 2,
                    rate_micros_per_hour=RATES[name],
                )
                for name, workers in (("cheap", 3), ("dear", 2))
            ),
            tokens_per_second={"model-a": SPEED},
            budgets=tuple(budgets),
            month=month,
            ended=tuple(self.ended),
        )

    def _meanwhile(self) -> None:
        for _ in range(self.random.randint(1, 3)):
            self.random.choice([self.commit, self.end])()
        if self.random.random() < 0.1:
            self.turn_month()

    def _store(self, plan: CyclePlan) -> None:
        for pack in plan.packs:
            reserved: Counter[BatchId] = Counter()
            bound: Counter[BatchId] = Counter()
            for part in pack.slices:
                reserved[part.batch_id] += part.reserved_micros
                rows = part.row_stop - part.row_start
                bound[part.batch_id] += self._bound(part.batch_id, rows, part.predicted_seconds, pack)
                before = self.backlogs[part.batch_id]
                shard = replace(before.shards[0], rows_packed=part.row_stop)
                self.backlogs[part.batch_id] = replace(before, shards=(shard,))
            assert all(reserved[name] >= most for name, most in bound.items()), "less was reserved than the upper bound"
            self.flights.append(self._flight(pack, self.month_of(plan), reserved, bound))
            self.packs += 1
            self.pack_bound = max(self.pack_bound, sum(bound.values()))
        for notice in plan.notices:
            standing = notice.standing
            key = standing.budget_id, standing.period_start, standing.limit_micros, notice.mark, notice.share_ppm
            if key not in self.told:
                self.told.append(key)

    def _flight(self, pack: PackDraft, month: date, reserved: Counter[BatchId], bound: Mapping[BatchId, int]) -> Flight:
        # A pack is slow or fast as a whole; charges are rounded down.
        ratio = self.ratio(self.random)
        if self.fixed_seconds is None:
            true = {name: math.floor(most * ratio) for name, most in bound.items()}
            return Flight(pack, month, reserved, true, 0.0)
        ratio *= POLICY.cost_upper_factor
        seconds: Counter[BatchId] = Counter()
        for part in pack.slices:
            seconds[part.batch_id] += (part.row_stop - part.row_start) * self._row_tokens(part.batch_id) / SPEED * ratio
        whole = sum(seconds.values())
        true = {}
        for name, own in seconds.items():
            terms = self.backlogs[name].terms
            took = own * (1 + self.fixed_seconds / whole)
            cost = took * RATES[pack.pool] / 3600 * terms.multiplier_ppm / PAR_PPM
            true[name] = math.floor(cost) if terms.input_token_picos is None else bound[name]
        return Flight(pack, month, reserved, true, whole + self.fixed_seconds)

    def _learn_of(self, flight: Flight) -> None:
        if self.fixed_seconds is None:
            return
        shares = []
        for part in flight.draft.slices:
            rows = part.row_stop - part.row_start
            shard = self.backlogs[part.batch_id].shards[0]
            size = WorkSize(
                rows=rows,
                input_tokens=shard.input_tokens * rows / shard.rows_total,
                output_tokens=shard.output_tokens * rows / shard.rows_total,
            )
            shares.append(
                EndedShare(
                    tenant_id=self.backlogs[part.batch_id].tenant_id,
                    batch_id=part.batch_id,
                    predicted_seconds=part.predicted_seconds,
                    template=shard.template,
                    estimated=size,
                    actual=size,
                    lengths={},
                )
            )
        draft = flight.draft
        self.ended.append(
            EndedPack(
                pack_id=draft.pack_id,
                pool=draft.pool,
                model=draft.model,
                variant=draft.variant,
                tier=draft.tier,
                seconds=flight.seconds,
                # What was preempted took its fixed time twice, or so.
                is_clean=not flight.charged,
                shares=tuple(shares),
                unit_costs=draft.unit_costs,
            )
        )

    def _row_tokens(self, batch_id: BatchId) -> float:
        shard = self.backlogs[batch_id].shards[0]
        return (shard.input_tokens + shard.output_tokens) / shard.rows_total

    def _bound(self, batch_id: BatchId, rows: int, seconds: float, pack: PackDraft) -> int:
        """Return the upper bound of a charge, worked out apart from the scheduler's; rounded down, as charges are."""
        batch = self.backlogs[batch_id]
        terms, shard = batch.terms, batch.shards[0]
        if terms.input_token_picos is not None and terms.output_token_picos is not None:
            picos = shard.input_tokens * terms.input_token_picos + shard.output_tokens * terms.output_token_picos
            return math.floor(picos * rows / shard.rows_total * POLICY.cost_upper_factor / 1e6)
        place = {"variant": pack.variant, "pool": pack.pool}
        factor = self.predictions.upper_factors(**place, packs=np.ones(1), assumed=POLICY.cost_upper_factor)[0]
        fixed = self.predictions.fixed_seconds(**place, assumed=self.policy.pack_fixed_seconds)
        cost = seconds * (factor + fixed / pack.predicted_seconds) * RATES[pack.pool] / 3600
        # A part in a million million is rounding of the binary fractions.
        return math.floor(cost * terms.multiplier_ppm / PAR_PPM * (1 - 1e-12))

    def _charge(self, flight: Flight, name: BatchId, micros: int) -> None:
        before = flight.charged[name]
        flight.charged[name] += micros
        over = max(0, before + micros - flight.reserved[name]) - max(0, before - flight.reserved[name])
        if over and before <= flight.reserved[name]:
            self.packs_beyond += 1
        for account in self._accounts_of(name, flight.month):
            self.spent[account] += micros
            self.beyond[account] += over

    def _accounts_of(self, name: BatchId, month: date) -> tuple[Account, ...]:
        batch = self.backlogs[name]
        scopes = batch.project_id, batch.tenant_id
        return (name, ALWAYS), *((scope, start) for scope in scopes for start in (month, ALWAYS))

    def _reservations(self) -> Counter[Account]:
        held: Counter[Account] = Counter()
        for flight in self.flights:
            for name, micros in flight.reserved.items():
                for account in self._accounts_of(name, flight.month):
                    held[account] += max(0, micros - flight.charged[name])
        return held

    def _reserved(self, account: Account) -> int:
        return self._reservations()[account]

    def _account(self, standing: BudgetStanding) -> Account:
        start = self.month if standing.period is BudgetPeriod.MONTH else ALWAYS
        return standing.scope.project_id or standing.scope.tenant_id, start

    # --- what must hold ----------------------------------------------------------------------------------

    def _check(self) -> None:
        held = self._reservations()
        limits: dict[Account, int] = {
            (name, ALWAYS): each.budget_micros for name, each in self.backlogs.items() if each.budget_micros is not None
        }
        for standing in self.standings.values():
            # Months that are over too: packs that were begun in them may still be charged.
            for start in self.periods[standing.budget_id]:
                limits[standing.scope.project_id or standing.scope.tenant_id, start] = self.limit(standing, start)
        for account, limit in limits.items():
            assert self.spent[account] + held[account] <= limit + self.beyond[account], account
            over = self.spent[account] - limit
            if over > self.overrun[0]:
                self.overrun = over, f"{account[0]} {account[1]}"


def within_bounds(random: Random) -> float:
    """No pack is charged more than its upper bound."""
    return random.uniform(0, 1)


def as_assumed(random: Random) -> float:
    """Packs' times spread about their predictions as quotes assume of those unmeasured: one in eleven is beyond its bound."""
    return min(4.0, math.exp(random.gauss(0, 0.3))) / POLICY.cost_upper_factor


def beside_fixed_time(random: Random) -> float:
    """The same, and every pack takes up to three seconds beyond its rows, which nobody knows at first and cycles learn."""
    return as_assumed(random)


def all_wrong(random: Random) -> float:
    """Every bound is too low, by up to three times."""
    return random.uniform(1, 3)


def treasury(seed: int, ratio: Callable[[Random], float]) -> Treasury:
    """Return one to run."""
    random = Random(seed)
    return Treasury(random, ratio, random.uniform(0, 3) if ratio is beside_fixed_time else None)
