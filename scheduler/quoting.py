"""Quotes: what a batch would cost, when it would be done, and which windows it would meet, before anything is paid.

The policy itself is asked: the cycle runs on a virtual clock from what is queued now, with the batch added, some
times over. What is not known is drawn anew each time: how far packs were off their predictions, from those that
ran, and how long answers of a template are that nobody has seen. What comes later and is worth more is not in it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from random import Random
from types import MappingProxyType
from typing import Final

from pipeline.domain.costs.charging import AT_COST, PAR_PPM, ChargeTerms
from pipeline.domain.endpoints import Endpoint
from pipeline.domain.ids import BatchId, TenantId
from pipeline.domain.promises import Promise
from pipeline.domain.tiers import Tier
from pipeline.ports.batches import Survey
from pipeline.ports.cycle import Backlog, OpenShard, PoolView, Snapshot, WorkSize
from pipeline.ports.quotes import ExpectedTokens, TierQuote
from scheduler.lineup import Lineup
from scheduler.outlook import Outlook
from scheduler.policy import Policy
from scheduler.prediction.predictions import Predictions
from scheduler.promises import Promises
from scheduler.routing import Routes
from scheduler.simulate.arrivals import Arrival
from scheduler.simulate.fleet import Fleet, Pool
from scheduler.simulate.record import quantile
from scheduler.simulate.simulation import Simulation

_US: Final = 1_000_000
_HOUR_SECONDS: Final = 3600
_QUOTED: Final = BatchId("batch_quoted")
#: Batches ahead that are told apart; more are taken together by tenant, tier and model.
_AHEAD_MAX: Final = 200
#: Packs that a run is simulated in, about, and those of the quoted batch at least: larger packs are simulated
#: faster and change its end by a part of one.
_PACKS_IN_ALL: Final = 300
_PACKS_OF_ITS_OWN: Final = 10
#: Ratios that are enough to draw from.
_RATIOS_ENOUGH: Final = 8
#: Spread (of the logarithm) of a pack's seconds while there are fewer.
_PACK_SPREAD: Final = 0.3
#: Rows of a template after which its answers are known.
_ROWS_TO_KNOW: Final = 50
#: Spread (of the logarithm) of answers' lengths from one unseen template to another.
_TEMPLATE_SPREAD: Final = 0.5
#: Longest time that is simulated.
_SECONDS_MAX: Final = 30 * 86_400
_AT_COST: Final[Mapping[Tier, ChargeTerms]] = MappingProxyType({})
_LOW, _MIDDLE, _HIGH = 0.05, 0.5, 0.95


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """A batch as it would be submitted."""

    tenant_id: TenantId
    endpoint: Endpoint
    survey: Survey
    window_seconds: float


def expected_tokens(survey: Survey, predictions: Predictions) -> ExpectedTokens:
    """Return what the surveyed rows are expected to take, whatever runs them."""
    sizes = [
        predictions.size(
            WorkSize(rows=shard.rows, input_tokens=shard.input_tokens, output_tokens=shard.output_tokens),
            model=survey.model,
            template=shard.template,
        )
        for shard in survey.shards
    ]
    # A file has one template, mostly, and then all of its shards do.
    rows_of: dict[int, int] = {}
    for shard in survey.shards:
        rows_of[shard.template] = rows_of.get(shard.template, 0) + shard.rows
    lengths = predictions.lengths(survey.model, max(rows_of, key=lambda each: rows_of[each], default=0))
    return ExpectedTokens(
        input_tokens=sum(size.input_tokens for size in sizes),
        output_tokens=sum(size.output_tokens for size in sizes),
        answers_known=lengths.total,
        answer_tokens=(lengths.quantile(0.5), lengths.quantile(0.95)) if lengths.total else None,
    )


def quote(
    asked: Asked,
    snapshot: Snapshot,
    predictions: Predictions,
    policy: Policy,
    *,
    windows: Iterable[float],
    seed: int,
    runs: int = 16,
    terms: Mapping[Tier, ChargeTerms] = _AT_COST,
) -> tuple[TierQuote, ...]:
    """Return what each tier offers, at the price of its `terms`.

    `windows` are the seconds to tell the chances of, beside the asked one; these are multiples of one over `runs`.
    """
    quoter = _Quoter(
        asked=asked,
        snapshot=snapshot,
        outlook=Outlook(snapshot, Routes.over(snapshot.pools), predictions, policy),
        predictions=predictions.frozen(),
        policy=policy,
        windows=sorted({asked.window_seconds, *windows}),
        seeds=range(seed, seed + runs),
        terms=terms,
    )
    return tuple(quoter.offer(tier) for tier in Tier)


class _Quoter:
    """One question, asked of each tier."""

    def __init__(
        self,
        *,
        asked: Asked,
        snapshot: Snapshot,
        outlook: Outlook,
        predictions: Predictions,
        policy: Policy,
        windows: Sequence[float],
        seeds: Sequence[int],
        terms: Mapping[Tier, ChargeTerms],
    ) -> None:
        self._asked = asked
        self._snapshot = snapshot
        self._outlook = outlook
        self._predictions = predictions
        self._policy = policy
        self._windows = windows
        self._seeds = seeds
        self._terms = terms
        self._ahead = _ahead(snapshot.backlogs)
        self._rates = {pool.pool: pool.rate_micros_per_hour for pool in snapshot.pools}
        self._fleet = Fleet(
            pools=tuple(_pool_of(pool, snapshot, predictions, policy) for pool in snapshot.pools if pool.workers > 0),
            trouble=_Ratios(_ratios_of(snapshot, predictions)),
        )

    def offer(self, tier: Tier) -> TierQuote:
        """Return what one tier offers; nothing is promised by it, so that no tier takes from another."""
        snapshot = self._snapshot
        backlog = _backlog_of(self._asked, tier, snapshot.now_us)
        places = self._outlook.places_of(backlog.model, tier)
        if not places or not backlog.shards:
            return TierQuote(
                tier=tier, variant=None, cost_micros=None, currency="USD", finish_seconds=None, chances={},
                can_promise=False, promise_seconds=None,
            )  # fmt: skip
        lineup = Lineup.of((*snapshot.backlogs, backlog))
        place = lineup.place_of_batch[_QUOTED]
        promises = Promises(snapshot, lineup, self._outlook, self._policy)
        earliest_us = promises.earliest(place)
        coarse = replace(self._policy, pack_seconds_target=_pack_seconds(lineup, place, self._outlook, self._policy))
        runs = [self._run(backlog, coarse, seed) for seed in self._seeds]
        costs = [cost for _, cost in runs]
        finishes = [finish for finish, _ in runs]
        serving = {pool for pool, _ in places}
        return TierQuote(
            tier=tier,
            variant=", ".join(sorted({variant for _, variant in places})),
            cost_micros=self._charge(tier, costs),
            currency=min(pool.currency for pool in snapshot.pools if pool.pool in serving),
            finish_seconds=(_at(finishes, _LOW), _at(finishes, _MIDDLE), _at(finishes, _HIGH)),
            chances={window: sum(finish <= window for finish in finishes) / len(finishes) for window in self._windows},
            can_promise=promises.can_promise(place),
            promise_seconds=None if earliest_us is None else (earliest_us - snapshot.now_us) / _US,
            is_measured=all(self._outlook.is_measured(variant, pool) for pool, variant in places),
        )

    def _charge(self, tier: Tier, costs: Sequence[float]) -> tuple[int, int]:
        """Return what the tenant would pay: by the simulated costs, or by the tokens as expected and as estimated."""
        terms = self._terms.get(tier, AT_COST)
        if not terms.is_by_token:
            # A budget must pay for what a pack reserves beyond its rows, or nothing of the batch would ever start.
            beside = self._outlook.dearest_fixed_micros(self._asked.survey.model, tier)
            # Rounded outwards.
            low, high = math.floor(_at(costs, _LOW)), math.ceil(_at(costs, _HIGH) + beside)
            return low * terms.multiplier_ppm // PAR_PPM, -(-high * terms.multiplier_ppm // PAR_PPM)
        expected, estimated = expected_tokens(self._asked.survey, self._predictions), self._asked.survey.size
        charges = [
            terms.charge_micros(effective_micros=0, input_tokens=math.ceil(inputs), output_tokens=math.ceil(outputs))
            for inputs, outputs in (
                (expected.input_tokens, expected.output_tokens),
                (
                    max(expected.input_tokens, estimated.input_tokens),
                    max(expected.output_tokens, estimated.output_tokens),
                ),
            )
        ]
        return charges[0], charges[1]

    def _run(self, backlog: Backlog, policy: Policy, seed: int) -> tuple[float, float]:
        """Return when the batch is done in one run, in seconds from now, and what it costs, in micro-units."""
        random = Random(seed)  # noqa: S311 -- a simulation, not a secret
        now_us = self._snapshot.now_us
        patient = replace(backlog, deadline_at_us=now_us + _SECONDS_MAX * _US)
        arrivals = [_arrival_of(each, now_us, self._predictions, random) for each in (*self._ahead, patient)]
        record = Simulation(
            arrivals,
            self._fleet,
            policy,
            seed=seed,
            predictions=self._predictions,
            fair_tags=self._snapshot.fair_tags,
        ).run(until_seconds=_SECONDS_MAX, until_end_of=_QUOTED)
        cost = sum(
            seconds * self._rates[pack.pool] / _HOUR_SECONDS
            for pack in record.packs
            for _, batch_id, seconds in pack.shares
            if batch_id == _QUOTED
        )
        (mine,) = (batch for batch in record.batches if batch.batch_id == _QUOTED)
        return mine.ended_at if mine.ended_at is not None else float(_SECONDS_MAX), cost


def _pack_seconds(lineup: Lineup, place: int, outlook: Outlook, policy: Policy) -> float:
    """Return how long packs may be in the simulation, so that a long queue takes no longer to go through."""
    seconds = outlook.seconds_anywhere(lineup)
    packs = min(seconds[place] / _PACKS_OF_ITS_OWN, seconds.sum() / _PACKS_IN_ALL)
    return max(policy.pack_seconds_target, float(packs))


def _at(values: Sequence[float], share: float) -> float:
    found = quantile(values, share)
    assert found is not None
    return found


@dataclass(frozen=True, slots=True)
class _Ratios:
    """Draws from how far packs were off their predictions."""

    ratios: tuple[float, ...]

    def factor(self, random: Random) -> float:
        """Return one of them, or while there are few a guess."""
        is_known = len(self.ratios) >= _RATIOS_ENOUGH
        return random.choice(self.ratios) if is_known else math.exp(random.gauss(0, _PACK_SPREAD))


@dataclass(frozen=True, slots=True)
class _Predicted:
    """The pace that is known of a variant in a pool."""

    predictions: Predictions
    variant: str
    pool: str
    tokens_per_second: float

    def seconds(self, size: WorkSize) -> float:
        """Return how long so much work is expected to take."""
        return self.predictions.seconds(
            size, variant=self.variant, pool=self.pool, tokens_per_second=self.tokens_per_second
        )


def _ratios_of(snapshot: Snapshot, predictions: Predictions) -> tuple[float, ...]:
    return tuple(
        ratio
        for pool in snapshot.pools
        for serving in pool.servings
        for ratio in predictions.ratios(serving.variant, pool.pool)
    )


def _pool_of(pool: PoolView, snapshot: Snapshot, predictions: Predictions, policy: Policy) -> Pool:
    speeds = {
        serving.variant: _Predicted(
            predictions,
            serving.variant,
            pool.pool,
            snapshot.tokens_per_second.get(serving.variant, policy.default_tokens_per_second),
        )
        for serving in pool.servings
    }
    return Pool(name=pool.pool, workers=pool.workers, speeds=speeds, servings=pool.servings)


def _backlog_of(asked: Asked, tier: Tier, now_us: int) -> Backlog:
    shards = tuple(
        OpenShard(
            shard_id=-1 - number,
            shard_no=number,
            rows_total=shard.rows,
            rows_packed=0,
            input_tokens=shard.input_tokens,
            output_tokens=shard.output_tokens,
            template=shard.template,
        )
        for number, shard in enumerate(asked.survey.shards)
    )
    return Backlog(
        tenant_id=asked.tenant_id,
        batch_id=_QUOTED,
        tier=tier,
        model=asked.survey.model,
        endpoint=asked.endpoint,
        created_at_us=now_us,
        deadline_at_us=now_us + round(asked.window_seconds * _US),
        promise=Promise.PENDING,
        hold_until_us=None,
        is_paused=False,
        left=asked.survey.size,
        spent_micros=0,
        budget_micros=None,
        shards=shards,
    )


def _ahead(backlogs: Sequence[Backlog]) -> list[Backlog]:
    """Return who is queued already and would run, taken together where they are very many."""
    running = [backlog for backlog in backlogs if not backlog.is_paused and backlog.left.rows > 0]
    if len(running) <= _AHEAD_MAX:
        return running
    together: dict[tuple[TenantId, Tier, int, str, Endpoint], Backlog] = {}
    for backlog in running:
        key = backlog.tenant_id, backlog.tier, backlog.priority, backlog.model, backlog.endpoint
        first = together.get(key)
        together[key] = backlog if first is None else replace(first, left=_sum(first.left, backlog.left))
    return list(together.values())


def _sum(one: WorkSize, other: WorkSize) -> WorkSize:
    return WorkSize(
        rows=one.rows + other.rows,
        input_tokens=one.input_tokens + other.input_tokens,
        output_tokens=one.output_tokens + other.output_tokens,
    )


def _arrival_of(backlog: Backlog, now_us: int, predictions: Predictions, random: Random) -> Arrival:
    template = backlog.shards[0].template if backlog.shards else 0
    expected = predictions.size(backlog.left, model=backlog.model, template=template)
    ratio = expected.output_tokens / backlog.left.output_tokens if backlog.left.output_tokens else 1.0
    if predictions.rows_known(backlog.model, template) < _ROWS_TO_KNOW:
        # Answers are bounded by what was estimated, mostly: a bound is what is estimated where there is one.
        ratio = min(max(1.0, ratio), ratio * math.exp(random.gauss(0, _TEMPLATE_SPREAD)))
    return Arrival(
        batch_id=backlog.batch_id,
        tenant_id=backlog.tenant_id,
        tier=backlog.tier,
        model=backlog.model,
        at_seconds=0.0,
        window_seconds=max(1.0, (backlog.deadline_at_us - now_us) / _US),
        # Of the input, what is expected is what will be: a tokenizer does not surprise.
        estimated=replace(backlog.left, rows=max(1, round(backlog.left.rows)), input_tokens=expected.input_tokens),
        output_ratio=ratio,
        endpoint=backlog.endpoint,
        template=template,
        hold_until_seconds=None if backlog.hold_until_us is None else max(0.0, (backlog.hold_until_us - now_us) / _US),
    )
