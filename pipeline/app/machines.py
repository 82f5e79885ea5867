"""Machines: those that were asked for are started, those whose workers ended are stopped, and nobody's are reaped."""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

from pipeline.app.children import worker_environment
from pipeline.app.fleet_view import RentableOffer, offers_of
from pipeline.config import Settings
from pipeline.domain.costs.rate_card import Offer, RateCard
from pipeline.domain.lifecycle import IntervalKind, RentalState, WorkerEnd, WorkerState
from pipeline.fleet_settings import watch_of
from pipeline.ports.fleet import (
    FleetReason,
    Launch,
    Launched,
    MachineProvider,
    ProviderUnavailableError,
    RefusalKind,
    Refused,
    Stop,
)
from scheduler.fleet.orphans import KnownWorker, Memory, sweep
from storage.rentals import Rental, RentalRepository

_LOG = logging.getLogger(__name__)

#: Longer than a launch takes to be listed and recorded.
_GRACE: Final = timedelta(seconds=60)
#: A machine's worker is told to leave so long before the machine is.
_LEAVE_BEFORE: Final = timedelta(minutes=5)
#: Machines asked for in one go.
_LAUNCHES_MAX: Final = 100
_PATIENCE_MIN: Final = timedelta(seconds=60)


@dataclass(frozen=True, slots=True, kw_only=True)
class Tended:
    """What was done in one round."""

    launched: int = 0
    refused: int = 0
    stopped: int = 0
    gone: int = 0
    #: Machines with our mark that nobody knew of.
    orphans: int = 0


class MachineKeeper:
    """Brings what runs at the providers in line with what is stored; every step may be repeated.

    What is stored says more than providers do: a rental is written before its machine is asked for, so that a machine whose
    launch was never heard of again is known by its mark, and one that nobody knows is stopped.
    """

    def __init__(
        self,
        rentals: RentalRepository,
        providers: Mapping[str, MachineProvider],
        settings: Settings,
        *,
        card: Callable[[datetime], RateCard],
        committed: Callable[[Offer], int],
    ) -> None:
        """Tend the machines of these providers, priced by `card`; `committed` workers are covered by contracts already."""
        self._rentals = rentals
        self._providers = providers
        self._settings = settings
        self._card = card
        self._committed = committed
        self._offers = {offer.name: offer for offer in offers_of(settings)}
        #: By provider: what the last look found.
        self._memories: dict[str, Memory] = {}

    def tend(self) -> Tended:
        """Start, stop and look after machines once; a provider that cannot be asked leaves the others alone."""
        by_provider: dict[str, list[Rental]] = defaultdict(list)
        for rental in self._rentals.open():
            by_provider[rental.provider].append(rental)
        done: list[Tended] = []
        for name, provider in self._providers.items():
            try:
                done.append(self._tend(provider, by_provider.pop(name, [])))
            except ProviderUnavailableError as error:
                _LOG.warning("provider_unavailable", extra={"provider": name, "reason": str(error)})
        for name, rentals in by_provider.items():
            _LOG.warning("provider_unknown", extra={"provider": name, "rentals": len(rentals)})
        return Tended(**{field: sum(getattr(each, field) for each in done) for field in Tended.__dataclass_fields__})

    def _tend(self, provider: MachineProvider, rentals: Sequence[Rental]) -> Tended:
        launched, refused = self._launch(provider, [each for each in rentals if each.state is RentalState.REQUESTED])
        held = [each for each in rentals if each.state is not RentalState.REQUESTED]
        stopped = self._release(provider, held)
        gone, orphans = self._look(provider)
        return Tended(launched=launched, refused=refused, stopped=stopped, gone=gone, orphans=orphans)

    # --- starting ------------------------------------------------------------------------------

    def _launch(self, provider: MachineProvider, rentals: Sequence[Rental]) -> tuple[int, int]:
        known = [(each, self._offers[each.offer]) for each in rentals if each.offer in self._offers]
        # An offer that the settings have no more: whoever asked for it asked another scheduler's.
        for each in rentals:
            if each.offer not in self._offers:
                self._rentals.refused(
                    Refused(
                        worker_id=each.worker_id, kind=RefusalKind.REJECTED, message="no such offer in the settings"
                    )
                )
        some = known[:_LAUNCHES_MAX]
        if not some:
            return 0, 0
        answers = provider.start([self._launch_of(rental, offer) for rental, offer in some])
        launched = 0
        for (_, offer), answer in zip(some, answers, strict=True):
            launched += self._note(offer, answer)
        return launched, len(some) - launched

    def _launch_of(self, rental: Rental, rentable: RentableOffer) -> Launch:
        offer = rentable.offer
        environment = worker_environment(
            self._settings,
            worker_id=rental.worker_id,
            pool=rental.pool,
            market=rental.market,
            is_here=rental.provider == "local",
        )
        if rental.provider == "local":
            # A drill: what makes this file has the worker told that its machine is taken.
            notice = self._settings.home_folder.absolute() / "fleet" / f"{rental.worker_id}.notice"
            environment["NIGHTRATE_INTERRUPTION_NOTICE"] = str(notice)
        watch = watch_of(self._settings.fleet, rental.provider)
        if watch is not None:
            environment["NIGHTRATE_WATCH_INTERRUPTIONS"] = watch
        return Launch(
            worker_id=rental.worker_id,
            pool=rental.pool,
            offer=rental.offer,
            market=rental.market,
            ends_by=rental.ends_by,
            instance_type=offer.instance_type,
            region=offer.region,
            zone=offer.zone,
            environment=environment,
        )

    def _note(self, rentable: RentableOffer, answer: Launched | Refused) -> bool:
        if isinstance(answer, Refused):
            _LOG.warning(
                "machine_refused", extra={"offer": rentable.name, "kind": answer.kind, "reason": answer.message}
            )
            self._rentals.refused(answer)
            return False
        hourly = self._card(datetime.now(UTC)).hourly_rates(
            rentable.offer, answer.launched_at, committed_workers=self._committed(rentable.offer)
        )
        self._rentals.launched(answer, rentable.offer, hourly.rates, currency=self._settings.currency)
        return True

    # --- stopping ------------------------------------------------------------------------------

    def _release(self, provider: MachineProvider, rentals: Sequence[Rental]) -> int:
        """Stop the machines whose workers have ended or never came, and have others drain before their time is up."""
        over = [each for each in rentals if self._is_over(each)]
        ids = [each.provider_id for each in over if each.provider_id is not None]
        if ids:
            # Those that are on their way out already are told again: an order may have been lost.
            provider.stop(ids)
            self._rentals.stopping([each.worker_id for each in over])
        leaving = [
            Stop(worker_id=each.worker_id, reason=FleetReason.LIFETIME)
            for each in rentals
            if each.stop_reason is None and each.now > each.ends_by - _LEAVE_BEFORE
        ]
        if leaving:
            self._rentals.ask_to_stop(leaving)
        return sum(each.state is RentalState.LAUNCHED for each in over)

    def _is_over(self, rental: Rental) -> bool:
        if rental.state is RentalState.STOPPING:
            return True
        if rental.worker_state is WorkerState.REQUESTED:
            return self._gave_up(rental)
        return rental.worker_state is None or rental.worker_state.is_terminal

    def _gave_up(self, rental: Rental) -> bool:
        """End a worker that never appeared and is not waited for any more; say whether it was so."""
        if rental.stop_reason is not None:
            return self._rentals.end_worker(rental.worker_id, IntervalKind.BOOT, WorkerEnd.STOPPED)
        assert rental.launched_at is not None
        if rental.now - rental.launched_at < self._patience(rental.pool):
            return False
        _LOG.warning("worker_never_appeared", extra={"worker_id": rental.worker_id, "offer": rental.offer})
        return self._rentals.end_worker(rental.worker_id, IntervalKind.LOST, WorkerEnd.LOST)

    def _patience(self, pool: str) -> timedelta:
        terms = self._settings.fleet.pools.get(pool)
        seconds = 0.0 if terms is None else terms.start_seconds * self._settings.fleet.start_patience
        return max(timedelta(seconds=seconds), _PATIENCE_MIN)

    # --- looking after -------------------------------------------------------------------------

    def _look(self, provider: MachineProvider) -> tuple[int, int]:
        """Note which machines are gone; stop those that nobody knows of."""
        machines = provider.machines()
        # Read after the machines were listed: what is listed was written down before it was asked for.
        rentals = [each for each in self._rentals.open() if each.provider == provider.name]
        found = sweep(
            machines,
            [_known(each) for each in rentals],
            provider=provider.name,
            now=max((each.now for each in rentals), default=datetime.now(UTC)),
            grace=_GRACE,
            memory=self._memories.get(provider.name),
        )
        self._memories[provider.name] = found.memory
        if found.stops:
            _LOG.warning("machines_orphaned", extra={"provider": provider.name, "machines": list(found.stops)})
            provider.stop(found.stops)
        listed = {machine.provider_id for machine in machines}
        gone = [
            each.worker_id for each in rentals if each.state is RentalState.STOPPING and each.provider_id not in listed
        ]
        for worker_id in found.lost:
            # It was taken before its worker was heard of; one that was heard of falls silent, and is lost by that.
            self._rentals.end_worker(worker_id, IntervalKind.LOST, WorkerEnd.LOST)
        gone += found.lost
        if gone:
            self._rentals.gone(gone)
        return len(gone), len(found.stops)


def _known(rental: Rental) -> KnownWorker:
    return KnownWorker(
        worker_id=rental.worker_id,
        state=rental.worker_state or WorkerState.REQUESTED,
        provider=rental.provider,
        provider_id=rental.provider_id,
        launched_at=rental.launched_at,
        heard_at=rental.heard_at,
    )
