"""The outlook: what a cycle expects of rows that have not run, wherever they may run."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from pipeline.domain.shares import UnitCosts
from pipeline.domain.tiers import Tier
from pipeline.ports.cycle import Backlog, OpenShard, Snapshot, WorkSize
from scheduler.columns import Flags, Floats, Sizes
from scheduler.lineup import Lineup
from scheduler.policy import Policy
from scheduler.prediction.predictions import Predictions
from scheduler.routing import Routes

#: A measurement below a token in twenty minutes is a meter that has seen nothing yet; dividing by it
#: would put a batch's fair tag out of reach of everyone else's.
_TOKENS_PER_SECOND_MIN = 0.001


class Outlook:
    """Routes and predictions, read together; made once a cycle."""

    def __init__(self, snapshot: Snapshot, routes: Routes, predictions: Predictions, policy: Policy) -> None:
        """Expect what `predictions` say, and of what they know nothing of, the measured or assumed speed."""
        self.routes = routes
        self._predictions = predictions
        self._policy = policy
        self._pools = tuple(pool.pool for pool in snapshot.pools if pool.workers > 0)
        #: Pools and variants by model and tier, once somebody asked.
        self._places: dict[tuple[str, Tier], tuple[tuple[str, str], ...]] = {}
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
        return lineup.in_lanes(
            self.routes.variant_for(model, tier, pool) is not None for tier, model, _endpoint in lineup.lanes
        )

    def row_seconds_of(self, backlog: Backlog) -> Callable[[OpenShard], float]:
        """Return the function that tells the seconds of a row of a shard, where it takes longest: no pack is longer."""
        places = self.places_of(backlog.model, backlog.tier)

        def row_seconds(shard: OpenShard) -> float:
            # A token a row at least: rows that cost nothing would never yield their turn.
            inputs = max(shard.input_tokens, shard.rows_total - shard.output_tokens)
            estimated = WorkSize(rows=shard.rows_total, input_tokens=inputs, output_tokens=shard.output_tokens)
            size = self._predictions.size(estimated, model=backlog.model, template=shard.template)
            seconds = [
                self._predictions.seconds(size, variant=variant, pool=pool, tokens_per_second=self._speed(variant))
                for pool, variant in places
            ]
            return max(seconds) / shard.rows_total

        return row_seconds

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
        return seconds

    def seconds_anywhere(self, lineup: Lineup) -> Floats:
        """Return the same for the pool where each takes least; 0 where no pool runs it."""
        found = [self.seconds_left(lineup, pool) for pool in self._pools]
        return np.nan_to_num(np.fmin.reduce(found)) if found else np.zeros(len(lineup))

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
