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
from pipeline.ports.fleet import (
    FleetReason,
    Launch,
    Launched,
    Machine,
    MachineProvider,
    MachineState,
    ProviderUnavailableError,
    RefusalKind,
    Refused,
    Stop,
)
from storage.rentals import Rental, RentalRepository

_LOG = logging.getLogger(__name__)

#: A machine that is not in its provider's list is gone only so long after its launch: lists are late.
_LIST_LATE: Final = timedelta(seconds=60)
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
        #: By provider: machines that nobody knew of at the last look.
        self._unknown: dict[str, frozenset[str]] = {}

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
        gone, orphans = self._look(provider, rentals)
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

    def _look(self, provider: MachineProvider, rentals: Sequence[Rental]) -> tuple[int, int]:
        """Note which machines are gone; stop those that nobody knows of."""
        machines = provider.machines()
        listed = {machine.provider_id for machine in machines}
        gone = [
            each
            for each in rentals
            if each.provider_id is not None
            and each.provider_id not in listed
            and each.launched_at is not None
            and (each.state is RentalState.STOPPING or each.now - each.launched_at > _LIST_LATE)
        ]
        for each in gone:
            # It was taken before its worker was heard of; one that was heard of falls silent, and is lost by that.
            self._rentals.end_worker(each.worker_id, IntervalKind.LOST, WorkerEnd.LOST)
        if gone:
            self._rentals.gone([each.worker_id for each in gone])
        return len(gone), self._reap(provider, machines)

    def _reap(self, provider: MachineProvider, machines: Sequence[Machine]) -> int:
        """Stop the machines with our mark that no open rental knows, once they have been so for two looks and a while."""
        # Read after the machines were listed: what is listed was written down before it was asked for.
        known = {each.worker_id: each.provider_id for each in self._rentals.open()}
        unknown = {
            machine.provider_id: machine
            for machine in machines
            if machine.state is not MachineState.STOPPING
            and (machine.worker_id not in known or known[machine.worker_id] not in {None, machine.provider_id})
        }
        before, self._unknown[provider.name] = self._unknown.get(provider.name, frozenset()), frozenset(unknown)
        now = datetime.now(UTC)
        orphans = [
            provider_id
            for provider_id, machine in unknown.items()
            if provider_id in before and (machine.launched_at is None or now - machine.launched_at > _LIST_LATE)
        ]
        if orphans:
            _LOG.warning("machines_orphaned", extra={"provider": provider.name, "machines": orphans})
            provider.stop(orphans)
        return len(orphans)
