"""The outlook: what a cycle expects of rows that have not run, wherever they may run."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Final

import numpy as np

from pipeline.domain.costs.prices import PICOS_PER_MICRO
from pipeline.domain.shares import UnitCosts
from pipeline.domain.tiers import Tier
from pipeline.ports.cycle import Backlog, OpenShard, Snapshot, WorkSize
from scheduler.columns import Flags, Floats, Integers, Sizes
from scheduler.lineup import Lineup
from scheduler.policy import Policy
from scheduler.prediction.predictions import Predictions
from scheduler.routing import Routes

#: A measurement below a token in twenty minutes is a meter that has seen nothing yet; dividing by it
#: would put a batch's fair tag out of reach of everyone else's.
_TOKENS_PER_SECOND_MIN = 0.001
#: What is learned may come near to nothing for a row; none at all would never yield its turn.
ROW_SECONDS_MIN: Final = 1e-7
_HOUR_SECONDS: Final = 3600


class Outlook:
    """Routes and predictions, read together; made once a cycle."""

    def __init__(self, snapshot: Snapshot, routes: Routes, predictions: Predictions, policy: Policy) -> None:
        """Expect what `predictions` say, and of what they know nothing of, the measured or assumed speed."""
        self.routes = routes
        self._predictions = predictions
        self._policy = policy
        self._pools = tuple(pool.pool for pool in snapshot.pools if pool.workers > 0)
        self._reached = tuple(pool.pool for pool in snapshot.pools if pool.workers_promised_on > 0)
        self._rates = {pool.pool: pool.rate_micros_per_hour for pool in snapshot.pools}
        #: Pools and variants by model and tier, once somebody asked.
        self._places: dict[tuple[str, Tier], tuple[tuple[str, str], ...]] = {}
        #: By variant and pool, once somebody asked.
        self._second_micros: dict[tuple[str, str], float] = {}
        self._fixed_micros: dict[tuple[str, str], float] = {}
        self._speeds = {
            variant: speed for variant, speed in snapshot.tokens_per_second.items() if speed >= _TOKENS_PER_SECOND_MIN
        }

    def is_measured(self, variant: str, pool: str) -> bool:
        """Say whether anything of the variant has run, so that its packs may be long."""
        return variant in self._speeds or self._predictions.is_measured(variant, pool)

    def places_of(self, model: str, tier: Tier) -> tuple[tuple[str, str], ...]:
        """Return the pools that would run such rows, each with the variant that would run there."""
        places = self._places.get((model, tier))
        if places is None:
            found = [(pool, self.routes.variant_for(model, tier, pool)) for pool in self._pools]
            places = tuple((pool, variant) for pool, variant in found if variant is not None)
            self._places[model, tier] = places
        return places

    def is_served(self, lineup: Lineup, pool: str) -> Flags:
        """Return which of the backlogs the pool runs."""
        is_routed = lineup.in_lanes(
            self.routes.variant_for(model, tier, pool) is not None for tier, model, _endpoint in lineup.lanes
        )
        return is_routed & self._may_run(lineup, pool)

    def is_served_now(self, lineup: Lineup) -> Flags:
        """Return which of the backlogs some pool with a worker runs."""
        return self._is_served_by_any(lineup, self._pools)

    def is_served_later(self, lineup: Lineup) -> Flags:
        """Return which of the backlogs some pool runs that has workers, or can be brought to some."""
        return self._is_served_by_any(lineup, self._reached)

    def _is_served_by_any(self, lineup: Lineup, pools: Iterable[str]) -> Flags:
        found = np.zeros(len(lineup), dtype=np.bool_)
        for pool in pools:
            found |= self.is_served(lineup, pool)
        return found

    def _may_run(self, lineup: Lineup, pool: str) -> Flags:
        if not self._policy.tenant_pools:
            return np.ones(len(lineup), dtype=np.bool_)
        allowed = np.fromiter((self._policy.may_run(tenant, pool) for tenant in lineup.tenants), np.bool_)
        chosen: Flags = allowed[lineup.tenant]
        return chosen

    def row_seconds_of(self, backlog: Backlog) -> Callable[[OpenShard], float]:
        """Return the function that tells the seconds of a row of a shard, where it takes longest: no pack is longer."""
        places = self.places_of(backlog.model, backlog.tier)

        def row_seconds(shard: OpenShard) -> float:
            size = self._predictions.size(_estimated(shard), model=backlog.model, template=shard.template)
            seconds = [
                self._predictions.seconds(size, variant=variant, pool=pool, tokens_per_second=self._speed(variant))
                for pool, variant in places
            ]
            return max(seconds) / shard.rows_total

        return row_seconds

    def expected_size(self, backlog: Backlog) -> WorkSize:
        """Return how much work a backlog's rows without a result are expected to be."""
        template = backlog.shards[0].template if backlog.shards else 0
        return self._predictions.size(backlog.left, model=backlog.model, template=template)

    def seconds_expected(self, backlog: Backlog, variant: str, pool: str) -> float:
        """Return the worker-seconds that a backlog's rows without a result are expected to take; no bound of them."""
        size = self.expected_size(backlog)
        return self._predictions.seconds(size, variant=variant, pool=pool, tokens_per_second=self._speed(variant))

    def unit_costs(self, variant: str, pool: str) -> UnitCosts:
        """Return what the seconds of the variant's rows are made of there, as far as it is known."""
        return self._predictions.unit_costs(variant=variant, pool=pool, tokens_per_second=self._speed(variant))

    def seconds_left(self, lineup: Lineup, pool: str) -> Floats:
        """Return upper bounds of the worker-seconds of all rows without a result, of each backlog, in one pool.

        NaN for those that the pool does not run.
        """
        seconds = np.full(len(lineup), math.nan)
        for number, (tier, model, _endpoint) in enumerate(lineup.lanes):
            variant = self.routes.variant_for(model, tier, pool)
            if variant is not None:
                places = np.flatnonzero(lineup.lane == number)
                seconds[places] = self._upper_seconds(
                    self._predictions.sizes(lineup.left.at(places), model=model, templates=lineup.template[places]),
                    variant,
                    pool,
                )
        seconds[~self._may_run(lineup, pool)] = math.nan
        return seconds

    def seconds_anywhere(self, lineup: Lineup) -> Floats:
        """Return the same for the pool where each takes least; 0 where no pool runs it."""
        found = [self.seconds_left(lineup, pool) for pool in self._pools]
        return np.nan_to_num(np.fmin.reduce(found)) if found else np.zeros(len(lineup))

    def second_micros(self, variant: str, pool: str) -> float:
        """Return what a predicted second of a pack may cost in a pool, at most, in micro-units of money."""
        known = self._second_micros.get((variant, pool))
        if known is None:
            factors = self._predictions.upper_factors(
                variant=variant, pool=pool, packs=np.ones(1), assumed=self._policy.cost_upper_factor
            )
            known = self._second_micros[variant, pool] = float(factors[0]) * self._rates[pool] / _HOUR_SECONDS
        return known

    def dearest_second_micros(self, model: str, tier: Tier) -> float:
        """Return the same for the pool where that is most; 0 where no pool would run such rows."""
        return max((self.second_micros(variant, pool) for pool, variant in self.places_of(model, tier)), default=0.0)

    def fixed_micros(self, variant: str, pool: str) -> float:
        """Return what a pack may cost in a pool beyond its rows, at most, in micro-units of money."""
        known = self._fixed_micros.get((variant, pool))
        if known is None:
            seconds = self._predictions.fixed_seconds(
                variant=variant, pool=pool, assumed=self._policy.pack_fixed_seconds
            )
            known = self._fixed_micros[variant, pool] = seconds * self._rates[pool] / _HOUR_SECONDS
        return known

    def dearest_fixed_micros(self, model: str, tier: Tier) -> float:
        """Return the same for the pool where that is most; 0 where no pool would run such rows."""
        return max((self.fixed_micros(variant, pool) for pool, variant in self.places_of(model, tier)), default=0.0)

    def row_charge_micros(self, backlog: Backlog, shard: OpenShard) -> float | None:
        """Return what a row of a shard may be charged, at most; None where that goes by what it costs."""
        terms = backlog.terms
        if terms.input_token_picos is None or terms.output_token_picos is None:
            return None
        estimated = _estimated(shard)
        expected = self._predictions.size(estimated, model=backlog.model, template=shard.template)
        inputs = max(estimated.input_tokens, expected.input_tokens)
        outputs = max(estimated.output_tokens, expected.output_tokens)
        picos = inputs * terms.input_token_picos + outputs * terms.output_token_picos
        return picos * self._policy.cost_upper_factor / shard.rows_total / PICOS_PER_MICRO

    def next_row_micros(self, lineup: Lineup, places: Integers) -> Floats:
        """Return what the next row of each of these may be charged where it costs most; 0 where there is none or no pool.

        What its pack may take beyond its rows is in it.
        """
        shards = [_next_shard(lineup[place]) for place in places.tolist()]
        has_next = np.array([shard is not None for shard in shards], dtype=np.bool_)
        found = np.zeros(len(places))
        for number, (tier, model, _endpoint) in enumerate(lineup.lanes):
            wanted = np.flatnonzero((lineup.lane[places] == number) & has_next)
            runs_at = self.places_of(model, tier)
            if len(wanted) and runs_at:
                seconds = self._row_seconds(model, [shard for n in wanted if (shard := shards[n])], runs_at)
                found[wanted] = seconds * self.dearest_second_micros(model, tier) + self.dearest_fixed_micros(
                    model, tier
                )
        found *= lineup.multiplier[places]
        for n in np.flatnonzero(lineup.is_by_token[places] & has_next).tolist():
            shard = shards[n]
            charge = None if shard is None else self.row_charge_micros(lineup[places[n]], shard)
            found[n] = found[n] if charge is None else charge
        return found

    def _row_seconds(self, model: str, shards: Sequence[OpenShard], places: Sequence[tuple[str, str]]) -> Floats:
        rows = np.array([shard.rows_total for shard in shards], dtype=np.float64)
        inputs = np.array([shard.input_tokens for shard in shards], dtype=np.float64)
        outputs = np.array([shard.output_tokens for shard in shards], dtype=np.float64)
        # As `_estimated` has it of one.
        estimated = Sizes(rows, np.maximum(inputs, rows - outputs), outputs)
        templates = np.array([shard.template for shard in shards], dtype=np.int64)
        sizes = self._predictions.sizes(estimated, model=model, templates=templates)
        seconds = [
            self._predictions.seconds_of_each(sizes, variant=variant, pool=pool, tokens_per_second=self._speed(variant))
            for pool, variant in places
        ]
        longest: Floats = np.maximum.reduce(seconds) / estimated.rows
        return np.maximum(longest, ROW_SECONDS_MIN)

    def _upper_seconds(self, sizes: Sizes, variant: str, pool: str) -> Floats:
        seconds = self._predictions.seconds_of_each(
            sizes, variant=variant, pool=pool, tokens_per_second=self._speed(variant)
        )
        return seconds * self._predictions.upper_factors(
            variant=variant,
            pool=pool,
            packs=seconds / self._policy.pack_seconds_target,
            assumed=self._policy.cost_upper_factor,
        )

    def _speed(self, variant: str) -> float:
        return self._speeds.get(variant, self._policy.default_tokens_per_second)


def _next_shard(backlog: Backlog) -> OpenShard | None:
    for shard in backlog.shards:
        if shard.rows_packed < shard.rows_total:
            return shard
    return None


def _estimated(shard: OpenShard) -> WorkSize:
    # A token a row at least: rows that cost nothing would never yield their turn.
    inputs = max(shard.input_tokens, shard.rows_total - shard.output_tokens)
    return WorkSize(rows=shard.rows_total, input_tokens=inputs, output_tokens=shard.output_tokens)
