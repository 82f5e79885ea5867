"""The scheduler process: leads when nobody else does, and does what a leader does."""

from __future__ import annotations

import logging
import os
import socket
import threading
import time
from datetime import timedelta
from typing import TYPE_CHECKING, Final

from pipeline.app.allocating import EVERY_SECONDS as ALLOCATE_EVERY_SECONDS
from pipeline.app.allocating import Allocator
from pipeline.app.batches import finalize_claimed, take_in_claimed
from pipeline.app.bills import bills_of, object_prices_at
from pipeline.app.cost_exports import EXPORT_EVERY_SECONDS, SUM_EVERY_SECONDS, CostKeeper
from pipeline.app.fleet import fleet_duty_of
from pipeline.app.keeping import EVERY_SECONDS as KEEP_EVERY_SECONDS
from pipeline.app.keeping import Keeper
from pipeline.app.policies import policy_of
from pipeline.app.recurring import Deliverer, Firer
from pipeline.app.settling import EVERY_SECONDS as SETTLE_EVERY_SECONDS
from pipeline.app.settling import Settler
from pipeline.app.stack import Stack, collect_seldom, open_stack, required
from pipeline.app.sweeping import EVERY_SECONDS as SWEEP_EVERY_SECONDS
from pipeline.app.sweeping import Sweeper
from pipeline.app.volumes import Volumes
from pipeline.app.webhooks import Webhooks
from pipeline.config import Settings
from pipeline.domain.costs.transactions import Overhead
from pipeline.domain.errors import ConflictError, StoreUnavailableError
from pipeline.domain.ids import new_pack_id
from pipeline.domain.lifecycle import BatchState
from scheduler.convictor import Convictor
from scheduler.cycle import decide
from scheduler.doers import Alarm, Doer, run_doers
from scheduler.prediction.predictions import Predictions
from storage.allocations import AllocationRepository
from storage.currencies import check_currency
from storage.cycles import CycleRepository, Leadership
from storage.firings import FiringRepository
from storage.keeping import KeepingRepository
from storage.packs import PackRepository
from storage.prices import PriceRepository
from storage.settlements import SettlementRepository
from storage.wakeups import WakeupListener

if TYPE_CHECKING:  # Celery costs half a second that a command which only opens the stores need not pay
    from infra.broker import HintSender

_LOG = logging.getLogger(__name__)

_HINT_AGAIN_AFTER: Final = timedelta(seconds=5)
_STAND_AGAIN_SECONDS: Final = 1.0
_SHADOW_EVERY_SECONDS: Final = 600.0
#: An answer that nobody judged for this long tells nothing of what runs now.
_SHADOW_WAITING_FOR: Final = timedelta(days=3)
_SHADOW_KEPT_FOR: Final = timedelta(days=30)


def run_scheduler(settings: Settings, must_stop: threading.Event) -> None:
    """Lead when nobody else does, until `must_stop`."""
    from infra.broker import HintSender

    with open_stack(settings) as stack:
        check_currency(stack.database, settings.currency)
        sender = HintSender(required(settings.redis_url, "NIGHTRATE_REDIS_URL"))
        holder = f"{socket.gethostname()}:{os.getpid()}"
        while not must_stop.is_set():
            try:
                leadership = Leadership.stand(stack.database, holder)
            except StoreUnavailableError as error:
                # Between elections nothing needs Postgres: it is waited for here, however long it stays away.
                _LOG.warning("election_failed", extra={"reason": error.message})
                leadership = None
            if leadership is None:
                must_stop.wait(_STAND_AGAIN_SECONDS)
                continue
            collect_seldom()
            with leadership:
                term_over = threading.Event()
                _end_with(must_stop, term_over)
                _lead(stack, leadership, sender, term_over, must_stop)
        sender.close()


def _lead(
    stack: Stack, leadership: Leadership, sender: HintSender, term_over: threading.Event, must_stop: threading.Event
) -> None:
    alarm = Alarm()
    listener = WakeupListener(stack.database.url, alarm.ring)
    listener.start()
    duties = _Duties(stack, leadership, sender, term_over, alarm)
    try:
        run_doers(duties.doers(), term_over, alarm)
    finally:
        listener.stop()
        duties.close(is_leaving=must_stop.is_set())


def _end_with(must_stop: threading.Event, term_over: threading.Event) -> None:
    def pass_on() -> None:
        must_stop.wait()
        term_over.set()

    threading.Thread(target=pass_on, name="stop", daemon=True).start()


class _Duties:
    """What the leading scheduler does, one method a duty; each says whether there is more at once."""

    def __init__(
        self, stack: Stack, leadership: Leadership, sender: HintSender, term_over: threading.Event, alarm: Alarm
    ) -> None:
        lease_for = timedelta(seconds=stack.settings.lease_seconds)
        self._stack = stack
        self._leadership = leadership
        self._sender = sender
        self._term_over = term_over
        self._alarm = alarm
        self._policy = policy_of(stack.settings)
        self._cycles = CycleRepository(stack.database, silence=lease_for, limited=self._policy.tenant_limits)
        #: None: to be read again, because what is stored is not what was learned.
        self._predictions: Predictions | None = None
        self._expire_at = time.monotonic()
        self._convictor = Convictor(PackRepository(stack.database, lease_for=lease_for), stack.objects)
        firings = FiringRepository(stack.database, epoch=leadership.epoch, book=stack.settings.plan_book)
        # On Postgres's clock, which all schedulers share.
        self._firer = Firer(stack, firings, now=stack.recurring.now)
        self._deliverer = Deliverer(stack, firings, now=stack.recurring.now)
        self._sweeper = Sweeper(stack, every_seconds=SWEEP_EVERY_SECONDS)
        self._settler = Settler(
            SettlementRepository(stack.database), bills_of(stack), every_seconds=SETTLE_EVERY_SECONDS
        )
        self._allocator = Allocator(
            AllocationRepository(stack.database),
            stack.settings.share_overhead,
            [Overhead(kind) for kind in stack.settings.share_overhead_kinds],
            every_seconds=ALLOCATE_EVERY_SECONDS,
        )
        kept = KeepingRepository(stack.database)
        self._keeper = Keeper(
            kept,
            lambda at: object_prices_at(stack, at),
            currency=stack.settings.currency,
            now=stack.recurring.now,
            also=[Volumes(stack.settings, kept, PriceRepository(stack.database)).accrue],
            every_seconds=KEEP_EVERY_SECONDS,
        )
        self._webhooks = Webhooks.of(stack)
        self._costs = CostKeeper(stack, now=stack.recurring.now)
        self._fleet = fleet_duty_of(stack, epoch=leadership.epoch)

    def doers(self) -> list[Doer]:
        """Return the duties with how often each is looked to."""
        settings = self._stack.settings
        fleet = self._fleet
        return [
            *(
                []
                if fleet is None
                else [Doer(name="fleet", every_seconds=settings.fleet.every_seconds, run_once=fleet.run_once)]
            ),
            Doer(name="cycle", every_seconds=settings.cycle_seconds, run_once=self.cycle),
            Doer(
                name="rescue",
                every_seconds=min(settings.cycle_seconds, settings.lease_seconds / 3),
                run_once=self.rescue,
            ),
            Doer(name="intake", every_seconds=settings.cycle_seconds, run_once=self.take_in_next),
            Doer(name="finalize", every_seconds=settings.cycle_seconds, run_once=self.finalize_next),
            Doer(name="shadow", every_seconds=_SHADOW_EVERY_SECONDS, run_once=self.expire_samples),
            Doer(name="sweep", every_seconds=SWEEP_EVERY_SECONDS, run_once=self._sweeper.run_once),
            Doer(name="settle", every_seconds=SETTLE_EVERY_SECONDS, run_once=self._settler.run_once),
            Doer(name="allocate", every_seconds=ALLOCATE_EVERY_SECONDS, run_once=self._allocator.run_once),
            Doer(name="keep", every_seconds=KEEP_EVERY_SECONDS, run_once=self._keeper.run_once),
            Doer(name="fire", every_seconds=settings.cycle_seconds, run_once=self._firer.run_once),
            Doer(name="deliver", every_seconds=settings.cycle_seconds, run_once=self._deliverer.run_once),
            Doer(name="webhooks", every_seconds=settings.cycle_seconds, run_once=self._webhooks.run_once),
            Doer(name="cost_sums", every_seconds=SUM_EVERY_SECONDS, run_once=self._costs.sum_up),
            Doer(name="cost_exports", every_seconds=EXPORT_EVERY_SECONDS, run_once=self._costs.export_days),
        ]

    def close(self, *, is_leaving: bool) -> None:
        """End what was started on threads of its own, and, where the process itself leaves, what runs beside it."""
        self._webhooks.close()
        if is_leaving and self._fleet is not None:
            self._fleet.leave()

    def cycle(self) -> bool:
        if not self._leadership.is_held():
            self._term_over.set()
            return False
        epoch = self._leadership.epoch
        if self._cycles.advance_batches(epoch):
            # The finalizer is to look at once.
            self._alarm.ring()
        if self._predictions is None:
            self._predictions = Predictions.recalled(self._cycles.predictions())
        known, self._predictions = self._predictions, None
        try:
            seen = self._cycles.snapshot()
            seen = seen if self._fleet is None else self._fleet.with_reach(seen)
            self._cycles.dispatch(epoch, decide(seen, self._policy, new_pack_id, known))
        except ConflictError:
            return True
        # Only now: what a plan learned that was not stored would be learned again.
        known.stored()
        self._predictions = known
        for pack_id, pool in self._cycles.due_hints(again_after=_HINT_AGAIN_AFTER):
            if not self._sender.send(pack_id, pool):
                break
        return False

    def rescue(self) -> bool:
        self._cycles.rescue(self._leadership.epoch)
        return self._convictor.run_once()

    def expire_samples(self) -> bool:
        # The alarm, which rings for every commit, is none for this.
        if time.monotonic() < self._expire_at:
            return False
        self._expire_at = time.monotonic() + _SHADOW_EVERY_SECONDS
        self._stack.shadow.expire(waiting_for=_SHADOW_WAITING_FOR, kept_for=_SHADOW_KEPT_FOR)
        return False

    def take_in_next(self) -> bool:
        claim = self._stack.batches.claim([BatchState.VALIDATING])
        if claim is not None:
            take_in_claimed(self._stack, claim)
        return claim is not None

    def finalize_next(self) -> bool:
        claim = self._stack.batches.claim([BatchState.FINALIZING, BatchState.CANCELLING])
        if claim is not None:
            finalize_claimed(self._stack, claim)
        return claim is not None
