"""The fleet's duty: what the policy decides is written down, and what is written down is brought about."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Final

from pipeline.app.fleet_expected import Expectations
from pipeline.app.fleet_learning import sightings_of
from pipeline.app.fleet_priors import spot_priors
from pipeline.app.fleet_reach import pools_within_reach
from pipeline.app.fleet_view import FleetKnowledge, offers_of, view_of
from pipeline.app.machines import MachineKeeper
from pipeline.app.policies import policy_of
from pipeline.app.pricing import committed_workers, rate_card
from pipeline.app.providers import providers_of
from pipeline.app.stack import Stack
from pipeline.domain.costs.rate_card import Offer, RateCard
from pipeline.domain.ids import new_worker_id
from pipeline.ports.cycle import Snapshot
from pipeline.ports.fleet import FleetPlan, FleetPolicy, FleetView, MachineProvider, PoolStanding
from scheduler.fleet.nightrate import NightrateFleet
from scheduler.fleet.policies import FLEET_POLICIES
from scheduler.fleet.sightings import learned
from scheduler.fleet.survival import Survival
from scheduler.fleet.terms import FleetTerms
from storage.demand import DemandRepository
from storage.fleet import FleetFacts, FleetRepository
from storage.prices import PriceRepository
from storage.rentals import RentalRepository, RentalRequest

_LOG = logging.getLogger(__name__)

#: What offers are worth is learned from requests of so long.
_RENTED_BACK: Final = timedelta(days=7)
#: Prices read are good for so long.
_CARD_GOOD_SECONDS: Final = 300.0
_PRICES_BACK: Final = timedelta(days=1)
#: What a worker may take to leave, and a little more.
_LEAVE_SECONDS: Final = 40.0
_LOOK_SECONDS: Final = 0.2
_LEARN_SECONDS: Final = 3600.0
#: Something outside starts this one's workers.
_OUTSIDE: Final = "outside"


class FleetDuty:
    """Decides every so often on what is stored, and tends the machines."""

    def __init__(
        self,
        stack: Stack,
        policy: FleetPolicy,
        providers: Mapping[str, MachineProvider],
        *,
        epoch: int,
        learn_survivals: Callable[[Mapping[str, Survival]], None] | None = None,
    ) -> None:
        """Decide by `policy` and rent from `providers` as the leader of that epoch.

        `learn_survivals` is told, now and then, how long offers last.
        """
        self._stack = stack
        self._policy = policy
        self._facts = FleetRepository(stack.database, rented_back=_RENTED_BACK)
        self._expectations = Expectations(DemandRepository(stack.database), stack.settings.window_of)
        self._rentals = RentalRepository(stack.database, epoch=epoch)
        self._offers = {offer.name: offer for offer in offers_of(stack.settings)}
        self._providers = providers
        self._keeper = MachineKeeper(
            self._rentals, providers, stack.settings, card=self._card_at, committed=self._committed
        )
        self._view: FleetView | None = None
        self._card: RateCard | None = None
        self._card_until = 0.0
        self._next_at = 0.0
        self._learn_survivals = learn_survivals
        self._learn_at = 0.0
        self._priors: dict[str, float] = {}

    def run_once(self) -> bool:
        """Decide, and bring it about, unless it is too soon; there is never more at once."""
        if time.monotonic() < self._next_at:
            return False
        self._next_at = time.monotonic() + self._stack.settings.fleet.every_seconds
        self.decide()
        self._keeper.tend()
        return False

    def decide(self) -> FleetPlan:
        """Decide on what is stored now, and write down what is to be started and stopped."""
        view = self._view = self.view()
        plan = self._policy.decide(view)
        requests = [
            RentalRequest(
                worker_id=new_worker_id(),
                pool=self._offers[start.offer].pool,
                offer=start.offer,
                provider=self._offers[start.offer].settings.provider,
                market=self._offers[start.offer].offer.market,
                reason=start.reason,
                lifetime=timedelta(hours=self._stack.settings.fleet.lifetime_hours),
            )
            for start in plan.starts
            # Whatever starts workers outside reads how many are wanted.
            if self._offers[start.offer].settings.provider != _OUTSIDE
            for _ in range(start.count)
        ]
        # Others' pools are looked at, and not filled.
        ours = self._stack.settings.fleet.pools
        standings = [_within(each, ours[each.pool].workers_max) for each in plan.standings if each.pool in ours]
        self._rentals.plan(requests, plan.stops, standings)
        if requests or plan.stops:
            _LOG.info(
                "fleet_decided",
                extra={
                    "starts": {start.offer: start.count for start in plan.starts},
                    "stops": {stop.worker_id: stop.reason for stop in plan.stops},
                },
            )
        return plan

    def view(self) -> FleetView:
        """Return what the policy sees."""
        settings = self._stack.settings
        facts = self._facts.facts(sorted(settings.fleet.pools))
        self._learn(facts)
        known = FleetKnowledge(
            settings=settings,
            policy=policy_of(settings),
            variants=self._stack.variants(),
            card=self._card_at(facts.now),
            priors=self._priors,
        )
        return replace(view_of(facts, known), expected=self._expectations.at(facts.now))

    def _learn(self, facts: FleetFacts) -> None:
        """Have the policy know how long offers last, by what requests have shown so far; once an hour."""
        if time.monotonic() < self._learn_at:
            return
        self._learn_at = time.monotonic() + _LEARN_SECONDS
        self._priors = spot_priors(self._offers.values(), self._providers)
        survivals = learned(
            sightings_of(facts.rented, facts.now),
            from_us=round((facts.now - _RENTED_BACK).timestamp() * 1e6),
            now_us=round(facts.now.timestamp() * 1e6),
            tick_seconds=FleetTerms().tick_seconds,
        )
        if survivals and self._learn_survivals is not None:
            self._learn_survivals(survivals)

    def with_reach(self, seen: Snapshot) -> Snapshot:
        """Return what the cycle sees, and to how many workers each pool can be brought."""
        return seen if self._view is None else replace(seen, pools=pools_within_reach(seen.pools, self._view))

    def leave(self) -> None:
        """Have this machine's workers hand back what they have, and wait for that: the stores may be stopped next."""
        here = self._providers.get("local")
        ids = [] if here is None else [machine.provider_id for machine in here.machines()]
        if here is None or not ids:
            return
        here.stop(ids)
        give_up_at = time.monotonic() + _LEAVE_SECONDS
        while here.machines() and time.monotonic() < give_up_at:
            time.sleep(_LOOK_SECONDS)

    def tend(self) -> None:
        """Bring what was written down about."""
        self._keeper.tend()

    def _committed(self, offer: Offer) -> int:
        return committed_workers(self._stack.settings, self._stack.database, offer)

    def _card_at(self, at: datetime) -> RateCard:
        if self._card is None or time.monotonic() > self._card_until:
            settings = self._stack.settings
            names = sorted({offer.offer.instance_type for offer in self._offers.values() if offer.offer.instance_type})
            self._card = rate_card(
                settings, PriceRepository(self._stack.database), at - _PRICES_BACK, at, instance_types=names
            )
            self._card_until = time.monotonic() + _CARD_GOOD_SECONDS
        return self._card


def _within(standing: PoolStanding, workers_max: int | None) -> PoolStanding:
    """Return the standing with no more than the pool may have: what is read outside is what is started."""
    if workers_max is None:
        return standing
    return replace(
        standing,
        wanted=min(standing.wanted, workers_max),
        on_demand_wanted=min(standing.on_demand_wanted, workers_max),
    )


def fleet_duty_of(stack: Stack, *, epoch: int) -> FleetDuty | None:
    """Return the duty of the settings' fleet; None where the scheduler is to fill no pool.

    Raises:
        UsageError: a provider cannot be asked as it is described.
    """
    if not stack.settings.fleet.pools:
        return None
    terms = FleetTerms(step_seconds=stack.settings.fleet.every_seconds)
    policy = FLEET_POLICIES[stack.settings.fleet.policy](terms)
    learn = policy.tables.learn if isinstance(policy, NightrateFleet) else None
    return FleetDuty(stack, policy, providers_of(stack.settings), epoch=epoch, learn_survivals=learn)
