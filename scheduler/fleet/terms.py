"""What a policy for the fleet may be told; the defaults are meant to be left alone."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from pipeline.domain.tiers import Tier


class SpotRule(StrEnum):
    """By what rule a pool's shares wait, take spot, or go on demand."""

    DECISION_TABLE = "decision_table"
    UNIFORM_PROGRESS = "uniform_progress"
    GREEDY = "greedy"
    #: No spot at all.
    ON_DEMAND_ONLY = "on_demand_only"


class IdleRule(StrEnum):
    """When a worker that has nothing to do is stopped."""

    #: After as long as a new start would cost: never more than twice what knowing the next arrival would.
    SKI_RENTAL = "ski_rental"
    #: When the next arrival is less likely within the next seconds than they cost, as idle gaps so far say.
    HAZARD = "hazard"


@dataclass(frozen=True, slots=True, kw_only=True)
class FleetTerms:
    """Parameters of a policy for the fleet."""

    #: At most so long after a decision comes the next.
    step_seconds: float = 60.0
    #: How long before its deadline work is to be done: packs that run, results that are joined.
    margin_seconds: float = 240.0
    #: Of forecasts, how much of what may come is prepared for.
    arrivals_quantile: float = 0.5
    #: Starts may cost this share of the work that they are for, where deadlines leave the choice.
    overhead_max: float = 0.1
    #: Work of these tiers starts at once, however little it is.
    hurried_tiers: frozenset[Tier] = frozenset({Tier.URGENT})
    #: Work is not spread thinner than this over new workers.
    share_seconds_min: float = 60.0
    #: Work that a spot worker loses when it is taken.
    lost_seconds: float = 60.0
    #: What was not promised may rely on spot for as long as nine runs of ten last. What was promised never does.
    counts_spot: bool = False
    #: What was promised may, too: cheaper where spot is plenty, and safe with that chance for each worker, no more.
    promises_count_spot: bool = False
    spot_rule: SpotRule = SpotRule.DECISION_TABLE
    idle_rule: IdleRule = IdleRule.SKI_RENTAL
    #: Idle at least this long before it is stopped, whatever a start costs.
    idle_seconds_min: float = 60.0
    #: Tick and horizon of decision tables.
    tick_seconds: float = 600.0
    horizon_seconds: float = 24 * 3600.0
    #: Another offer takes a worker's place if it saves at least this share of its price.
    replacement_saving_min: float = 0.15
    #: A spot offer without capacity when last seen is asked again after this, for one worker.
    probe_seconds: float = 600.0
    #: What is dearer to place than the cheapest pool by less than this stays where workers are.
    placement_margin: float = 0.1
    #: Work of several models and pools is mixed anew, by integer programme, this often; None: each goes where it costs least.
    mixing_seconds: float | None = None
    #: Of `always_on`: workers of each pool.
    always_on_workers: int = 1
    #: Of `queue_length` and `keda_lag`: worker-seconds of queue for each worker.
    target_seconds: float = 600.0

    def __post_init__(self) -> None:
        """Refuse what no decision could be made with."""
        for name in (
            "step_seconds",
            "share_seconds_min",
            "tick_seconds",
            "horizon_seconds",
            "probe_seconds",
            "target_seconds",
        ):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be above 0")
        for name in ("margin_seconds", "overhead_max", "lost_seconds", "idle_seconds_min", "placement_margin"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be 0 or more")
        for name in ("arrivals_quantile", "replacement_saving_min"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be between 0 and 1")
