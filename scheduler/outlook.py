"""The outlook: what a cycle expects of rows that have not run, wherever they may run."""

from __future__ import annotations

from collections.abc import Callable

from pipeline.domain.tiers import Tier
from pipeline.ports.cycle import Backlog, OpenShard, Snapshot, WorkSize
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

    def places_of(self, backlog: Backlog) -> tuple[tuple[str, str], ...]:
        """Return the pools that would run the backlog, each with the variant that would run there."""
        key = backlog.model, backlog.tier
        places = self._places.get(key)
        if places is None:
            found = [(pool, self.routes.variant_for(backlog, pool)) for pool in self._pools]
            places = self._places[key] = tuple((pool, variant) for pool, variant in found if variant is not None)
        return places

    def row_seconds_of(self, backlog: Backlog) -> Callable[[OpenShard], float]:
        """Return the function that tells the seconds of a row of a shard, where it takes longest: no pack is longer."""
        places = self.places_of(backlog)

        def row_seconds(shard: OpenShard) -> float:
            # A token a row at least: rows that cost nothing would never yield their turn.
            inputs = max(shard.input_tokens, shard.rows_total - shard.output_tokens)
            estimated = WorkSize(rows=shard.rows_total, input_tokens=inputs, output_tokens=shard.output_tokens)
            size = self._predictions.size(estimated, model=backlog.model, template=shard.template)
            return max(self._seconds(size, variant, pool) for pool, variant in places) / shard.rows_total

        return row_seconds

    def seconds_left(self, backlog: Backlog, pool: str) -> float:
        """Return an upper bound of the worker-seconds that all its rows without a result take in one pool."""
        variant = self.routes.variant_for(backlog, pool)
        assert variant is not None, "the pool runs it"
        template = backlog.shards[0].template if backlog.shards else 0
        size = self._predictions.size(backlog.left, model=backlog.model, template=template)
        seconds = self._seconds(size, variant, pool)
        return seconds * self._predictions.upper_factor(
            variant=variant,
            pool=pool,
            packs=seconds / self._policy.pack_seconds_target,
            assumed=self._policy.cost_upper_factor,
        )

    def seconds_anywhere(self, backlog: Backlog) -> float:
        """Return the same for the pool where it is least; 0 where no pool runs it."""
        return min((self.seconds_left(backlog, pool) for pool, _ in self.places_of(backlog)), default=0.0)

    def _seconds(self, size: WorkSize, variant: str, pool: str) -> float:
        assumed = self._speeds.get(variant, self._policy.default_tokens_per_second)
        return self._predictions.seconds(size, variant=variant, pool=pool, tokens_per_second=assumed)
