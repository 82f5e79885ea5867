"""What the fleet's policy sees: the stored facts, prices and settings, put into the words of its decisions."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from types import MappingProxyType
from typing import Final

from pipeline.config import Settings
from pipeline.domain.costs.prices import Market
from pipeline.domain.costs.rate_card import Offer, PriceUnknownError, RateCard
from pipeline.domain.ids import TenantId
from pipeline.domain.lifecycle import RentalState, WorkerEnd
from pipeline.domain.models import ModelSpec
from pipeline.domain.promises import Promise
from pipeline.domain.reasons import Reason
from pipeline.domain.tiers import Tier
from pipeline.fleet_settings import FleetPoolSettings, OfferSettings, SpeedSettings, offer_name
from pipeline.ports.cycle import Backlog, WorkSize
from pipeline.ports.fleet import (
    FleetView,
    OfferView,
    PaceSource,
    PoolKind,
    RefusalKind,
    UnitPace,
    WorkClass,
    WorkerStanding,
)
from scheduler.fleet.cold_starts import StartTimes
from scheduler.policy import Policy
from scheduler.prediction.predictions import Predictions
from storage.fleet import FleetFacts, Rented

#: Deadlines this near one another are one class: the first of them stands for all.
_CLASS_US: Final = 60_000_000
_NO_MONEY: Final = frozenset(
    {Reason.BUDGET_REACHED, Reason.PROJECT_BUDGET_REACHED, Reason.TENANT_BUDGET_REACHED, Reason.USER_PAUSED}
)
_PICO: Final = 1e-12
_MICRO: Final = 1e-6
#: How long an offer that was refused is left alone, by how often in a row: doubled each time, up to a quarter of an hour.
_REFUSED_SECONDS: Final[Mapping[RefusalKind, float]] = {
    RefusalKind.CAPACITY: 60.0,
    RefusalKind.THROTTLED: 15.0,
    RefusalKind.QUOTA: 300.0,
    RefusalKind.REJECTED: 300.0,
}
_REFUSED_SECONDS_MAX: Final = 900.0
#: Of a spot worker that nobody has seen yet: one taken in eight hours, counted as one observation.
_PRIOR_LIFE_SECONDS: Final = 8 * 3600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class RentableOffer:
    """An offer of the settings, with what it is called and what it runs on."""

    name: str
    pool: str
    settings: OfferSettings
    offer: Offer


def offers_of(settings: Settings) -> list[RentableOffer]:
    """Return every offer of every pool that the scheduler fills."""
    found = []
    for pool, terms in settings.fleet.pools.items():
        for each in terms.offers:
            offer = settings.rate_card.offer_of(pool, each.market)
            offer = replace(
                offer, zone=each.zone or offer.zone, instance_type=each.instance_type or offer.instance_type
            )
            found.append(RentableOffer(name=offer_name(pool, each), pool=pool, settings=each, offer=offer))
    return found


@dataclass(frozen=True, slots=True, kw_only=True)
class FleetKnowledge:
    """What a view is made with besides the facts."""

    settings: Settings
    policy: Policy
    variants: Mapping[str, ModelSpec]
    card: RateCard
    #: By offer: how much longer than others its machines are thought to last.
    priors: Mapping[str, float] = field(default_factory=dict)


def view_of(facts: FleetFacts, known: FleetKnowledge) -> FleetView:
    """Return what the policy is to decide on."""
    predictions = Predictions.recalled(facts.learned)
    now_us = round(facts.now.timestamp() * 1e6)
    offers: dict[str, list[OfferView]] = defaultdict(list)
    histories: dict[str, list[Rented]] = defaultdict(list)
    for rented in facts.rented:
        histories[rented.offer].append(rented)
    for rentable in offers_of(known.settings):
        view = _offer_of(rentable, histories[rentable.name], facts.now, known)
        if view is not None:
            offers[rentable.pool].append(view)
    pools = [
        _pool_of(pool, terms, offers[pool], facts.start_seconds.get(pool, []), predictions, known)
        for pool, terms in known.settings.fleet.pools.items()
    ]
    filled = set(known.settings.fleet.pools)
    pools += [
        _foreign_pool(pool, facts.served.get(pool, set()), predictions, known)
        for pool in sorted({worker.pool for worker in facts.workers} - filled)
    ]
    return FleetView(
        now_us=now_us,
        work=work_of(facts.backlogs, predictions, now_us=now_us, regions=_regions_of(known.settings)),
        pools=tuple(pools),
        workers=tuple(_named(worker, known.settings) for worker in facts.workers),
        spend_micros_per_hour_max=known.settings.fleet.spend_micros_per_hour_max,
    )


def work_of(
    backlogs: Iterable[Backlog],
    predictions: Predictions,
    *,
    now_us: int,
    regions: Mapping[TenantId, frozenset[str]] = MappingProxyType({}),
) -> tuple[WorkClass, ...]:
    """Return what may run, by model, tier, deadline and where; what is paused or has no money left is left out.

    `regions` are those of tenants whose rows may not run anywhere.
    """
    sums: dict[tuple[str, Tier, bool, int, int, tuple[str, ...]], list[float]] = {}
    for backlog in backlogs:
        if backlog.is_paused or backlog.reason in _NO_MONEY or backlog.left.rows <= 0:
            continue
        template = backlog.shards[0].template if backlog.shards else 0
        size = predictions.size(backlog.left, model=backlog.model, template=template)
        held = backlog.hold_until_us or 0
        from_us = held // _CLASS_US * _CLASS_US if held > now_us else 0
        due = backlog.deadline_at_us // _CLASS_US * _CLASS_US
        within = tuple(sorted(regions.get(backlog.tenant_id, ())))
        key = (backlog.model, backlog.tier, backlog.promise is Promise.MADE, due, from_us, within)
        total = sums.setdefault(key, [0.0, 0.0, 0.0])
        for place, amount in enumerate((size.rows, size.input_tokens, size.output_tokens)):
            total[place] += amount
    return tuple(
        WorkClass(
            model=model,
            tier=tier,
            is_promised=is_promised,
            deadline_at_us=due,
            from_us=from_us,
            size=WorkSize(rows=rows, input_tokens=inputs, output_tokens=outputs),
            regions=frozenset(within) or None,
        )
        for (model, tier, is_promised, due, from_us, within), (rows, inputs, outputs) in sorted(sums.items())
    )


def _regions_of(settings: Settings) -> dict[TenantId, frozenset[str]]:
    return {
        TenantId(tenant): frozenset(terms.regions)
        for tenant, terms in settings.tenants.items()
        if terms.regions is not None
    }


def _pool_of(
    pool: str,
    terms: FleetPoolSettings,
    offers: Sequence[OfferView],
    starts: Sequence[float],
    predictions: Predictions,
    known: FleetKnowledge,
) -> PoolKind:
    # The settings' word counts as some starts that were seen.
    times = StartTimes(prior_seconds=terms.start_seconds)
    for seconds in reversed(starts):
        times.observe(seconds)
    models = terms.models or tuple(name for name, spec in known.variants.items() if spec.is_reference)
    return PoolKind(
        pool=pool,
        offers=tuple(offers),
        paces={model: _pace_of(model, pool, terms.speeds.get(model), predictions, known) for model in models},
        cold_start_seconds=times.quantile(),
        workers_min=terms.workers_min,
        workers_max=terms.workers_max,
        tiers=frozenset(terms.tiers),
    )


def _foreign_pool(pool: str, served: Iterable[str], predictions: Predictions, known: FleetKnowledge) -> PoolKind:
    """Return a pool whose workers are not ours to start and stop: they do their part of the work."""
    models = {known.variants[variant].name for variant in served if variant in known.variants}
    paces = {model: _pace_of(model, pool, None, predictions, known) for model in sorted(models)}
    return PoolKind(pool=pool, offers=(), paces=paces, cold_start_seconds=0.0)


def _pace_of(
    model: str, pool: str, told: SpeedSettings | None, predictions: Predictions, known: FleetKnowledge
) -> UnitPace:
    """Return the pace of the variant that ran most there lately; else what the settings say; else what is assumed."""
    ran = [name for name, spec in known.variants.items() if spec.name == model and predictions.is_measured(name, pool)]
    assumed = known.policy.default_tokens_per_second
    if ran:
        variant = max(ran, key=lambda name: (predictions.packs_known(name, pool), name))
        costs = predictions.unit_costs(variant=variant, pool=pool, tokens_per_second=assumed)
        return UnitPace(
            row_seconds=costs.row_picoseconds * _PICO,
            input_token_seconds=costs.input_token_picoseconds * _PICO,
            output_token_seconds=costs.output_token_picoseconds * _PICO,
        )
    return UnitPace(
        input_token_seconds=1 / (assumed if told is None else told.input_tokens_per_second),
        output_token_seconds=1 / (assumed if told is None else told.output_tokens_per_second),
        source=PaceSource.TABLED,
    )


def _offer_of(
    rentable: RentableOffer, history: Sequence[Rented], now: datetime, known: FleetKnowledge
) -> OfferView | None:
    """Return the offer as it stands; None where no price of it is known: nothing runs unpriced."""
    offer = rentable.offer
    try:
        rates = known.card.hourly_rates(offer, now).rates
    except PriceUnknownError:
        return None
    rule = known.settings.rate_card.billing_rule_of(rentable.pool, offer.provider)
    is_spot = offer.market is Market.SPOT
    refused = _refusals(history)
    seen = _seen(history)
    return OfferView(
        offer=rentable.name,
        pool=rentable.pool,
        market=offer.market,
        provider=offer.provider,
        instance_type=offer.instance_type,
        region=offer.region,
        zone=offer.zone,
        rate_micros_per_hour=rates.effective_micros,
        minimum_seconds=rule.minimum_us * _MICRO,
        free_if_taken_within_seconds=rule.free_below_us * _MICRO if is_spot else 0.0,
        workers_max=rentable.settings.workers_max,
        refused_until_us=_refused_until_us(refused),
        is_available=None if seen is None else seen[0],
        available_since_us=None if seen is None else round(seen[1].timestamp() * 1e6),
        lifetime_seconds=_lifetime_seconds(history, now, known.priors.get(rentable.name, 1.0)) if is_spot else math.inf,
    )


def _refusals(history: Sequence[Rented]) -> list[Rented]:
    """Return the refusals since the last machine that was had, the oldest first."""
    last = max((place for place, each in enumerate(history) if each.launched_at is not None), default=-1)
    return [each for each in history[last + 1 :] if each.refusal is not None]


def _refused_until_us(refused: Sequence[Rented]) -> int:
    if not refused:
        return 0
    last = refused[-1]
    assert last.refusal is not None
    assert last.ended_at is not None
    # Asked for together, refused together: that is once.
    times = len({each.requested_at.replace(second=0, microsecond=0) for each in refused})
    wait = min(_REFUSED_SECONDS[last.refusal] * 2 ** min(times - 1, 10), _REFUSED_SECONDS_MAX)
    return round((last.ended_at + timedelta(seconds=wait)).timestamp() * 1e6)


def _seen(history: Sequence[Rented]) -> tuple[bool, datetime] | None:
    """Return whether capacity was there when last looked, and since when it has been so."""
    looks: list[tuple[datetime, bool]] = []
    for each in history:
        if each.launched_at is not None:
            looks.append((each.launched_at, True))
        if each.refusal is RefusalKind.CAPACITY or (
            each.end in {WorkerEnd.INTERRUPTED, WorkerEnd.LOST} and each.state is RentalState.GONE
        ):
            looks.append((each.ended_at or each.requested_at, False))
    looks.sort()
    if not looks:
        return None
    is_there = looks[-1][1]
    since = looks[-1][0]
    for at, was_there in reversed(looks):
        if was_there is not is_there:
            break
        since = at
    return is_there, since


def _lifetime_seconds(history: Sequence[Rented], now: datetime, prior: float) -> float:
    """Return the mean life of a spot worker: time seen over takings seen, what is thought counted as one of each."""
    lived = taken = 0.0
    for each in history:
        if each.launched_at is not None:
            lived += ((each.ended_at or now) - each.launched_at).total_seconds()
            taken += each.end in {WorkerEnd.INTERRUPTED, WorkerEnd.LOST}
    return (lived + prior * _PRIOR_LIFE_SECONDS) / (taken + 1)


def _named(worker: WorkerStanding, settings: Settings) -> WorkerStanding:
    """Return the worker with its offer: where something outside starts a pool's workers, that is the pool's only one."""
    terms = settings.fleet.pools.get(worker.pool)
    if terms is not None and worker.offer is None and terms.offers[0].provider == "outside":
        return replace(worker, offer=offer_name(worker.pool, terms.offers[0]))
    return worker
