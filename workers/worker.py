"""A worker's life: registered, ready, draining, stopped; each second of it in the ledger."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from pipeline.domain.errors import NightrateError
from pipeline.domain.lifecycle import IntervalKind, WorkerEnd, WorkerState
from pipeline.domain.models import split_variant
from pipeline.ports.clock import Clock
from pipeline.ports.objects import ObjectStore
from pipeline.ports.packs import PackLease, PackStore, WorkerRegistration, WorkerStore
from pipeline.ports.shadow import ShadowStore
from workers.apportioner import Apportioner
from workers.catalogue import Catalogue
from workers.committer import Committer, Overhead
from workers.feed import Feed
from workers.garage import Garage
from workers.heart import Heart
from workers.meter import Meter
from workers.runner import Runner
from workers.shadow.judge import Judge, JudgeSettings, Reference
from workers.telemetry.telemetry import Telemetry

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerSettings:
    """Durations of a worker's habits, in seconds."""

    #: How long a lease lasts; the store that grants leases must be set to the same.
    lease_seconds: float = 30.0
    #: How often to look for packs without being woken.
    poll_seconds: float = 0.5
    #: How often finished rows are committed: what a crash can lose.
    commit_seconds: float = 2.0
    #: How long in-flight rows may run on after the order to stop.
    drain_seconds: float = 20.0
    #: Of the answers that variants give, the share that their reference judges.
    shadow_share: float = 0.0
    judging: JudgeSettings = field(default_factory=JudgeSettings)


@dataclass(frozen=True, slots=True, kw_only=True)
class Shadow:
    """What a worker judges by."""

    store: ShadowStore
    #: Opens the reference of a model.
    open_reference: Callable[[str], Reference]
    #: Whether the device has no room for a reference beside the engines.
    is_alone: bool = False


class Worker:
    """One process on one accelerator."""

    def __init__(  # noqa: PLR0913 -- the stores and the machine, all by name
        self,
        registration: WorkerRegistration,
        *,
        packs: PackStore,
        workers: WorkerStore,
        heart_store: WorkerStore,
        objects: ObjectStore,
        catalogue: Catalogue,
        garage: Garage,
        telemetry: Telemetry,
        clock: Clock,
        settings: WorkerSettings,
        shadow: Shadow | None = None,
    ) -> None:
        """Wire the threads; `heart_store` has a connection of its own, so that no commit delays a beat.

        Without `shadow`, nothing is judged here; rows are chosen all the same, for other workers.
        """
        self._registration = registration
        self._workers = workers
        self._catalogue = catalogue
        #: What the store was told last.
        self._announced = dict(registration.variants)
        self._garage = garage
        self._telemetry = telemetry
        self._meter = Meter(clock)
        worker_id = registration.worker_id
        self._heart = Heart(
            worker_id, heart_store, lease_seconds=settings.lease_seconds, uptime_us=self._meter.uptime_us
        )
        self._feed = Feed(
            worker_id,
            packs,
            objects,
            pool=registration.pool,
            variants=self._served,
            warm=garage.loaded_after,
            on_lease=self._hold,
            uptime_us=self._meter.uptime_us,
            poll_seconds=settings.poll_seconds,
        )
        self._committer = Committer(
            worker_id,
            packs,
            workers,
            objects,
            on_ended=self._ended,
            gate_keys=catalogue.known,
            shadow_share=settings.shadow_share,
        )
        self._runner = Runner(
            feed=self._feed,
            committer=self._committer,
            heart=self._heart,
            meter=self._meter,
            catalogue=catalogue,
            garage=garage,
            apportioner=Apportioner(telemetry),
            enter=self._enter,
            on_refused=lambda: self._announce(catalogue.known()),
            commit_seconds=settings.commit_seconds,
            drain_seconds=settings.drain_seconds,
            judge=None if shadow is None else self._judge(shadow, objects, settings.judging),
        )

    def _judge(self, shadow: Shadow, objects: ObjectStore, settings: JudgeSettings) -> Judge:
        return Judge(
            shadow.store,
            objects,
            open_reference=shadow.open_reference,
            models=lambda: [name for name in self._catalogue.known() if not split_variant(name)[1]],
            uptime_us=self._meter.uptime_us,
            settings=settings,
            is_alone=shadow.is_alone,
        )

    def wake(self) -> None:
        """Look for a pack now: a hint arrived."""
        self._feed.wake()

    def run(self, must_stop: Callable[[], bool], was_interrupted: Callable[[], bool] = lambda: False) -> None:
        """Live until `must_stop`, or the store says so, or the provider takes the machine; raises what broke the books."""
        self._meter.backdate(self._workers.register(self._registration))
        self._committer.start()
        self._committer.hand_over(Overhead(self._meter.cut(IntervalKind.BOOT)))
        self._enter(WorkerState.READY)
        self._heart.start()
        self._feed.start()
        try:
            self._runner.run(lambda: must_stop() or self._heart.must_stop.is_set() or was_interrupted())
        finally:
            self._end(WorkerEnd.INTERRUPTED if was_interrupted() else WorkerEnd.STOPPED)

    def _end(self, cause: WorkerEnd) -> None:
        # Where the runner drained, nothing is left to throw away; where it broke, leases are left to expire.
        self._feed.close()
        self._committer.close()
        self._heart.stop()
        self._garage.close()
        self._telemetry.close()
        if self._committer.failure is not None:
            raise self._committer.failure
        # What the last heartbeat reported beyond the last span is still this worker's time.
        self._workers.meter(self._registration.worker_id, self._meter.cut(IntervalKind.DRAIN))
        self._enter(WorkerState.STOPPED, end=cause)

    def _hold(self, lease: PackLease, asked_at: float) -> None:
        self._heart.hold(lease.pack_id, lease.lease_token, asked_at=asked_at)

    def _ended(self, lease: PackLease, is_store_failing: bool) -> None:  # noqa: FBT001 -- the committer's callback
        self._heart.let_go(lease.pack_id, lease.lease_token)
        self._feed.pack_ended(is_store_failing=is_store_failing)

    def _served(self) -> Mapping[str, str]:
        served = self._catalogue.served()
        self._announce(served)
        return served

    def _announce(self, served: Mapping[str, str]) -> None:
        """Tell the store what is served here where that has changed: packs come for nothing else."""
        if served == self._announced:
            return
        try:
            self._workers.serve(self._registration.worker_id, served)
            self._announced = dict(served)
        except NightrateError as error:
            _LOG.warning("variants_not_recorded", extra={"reason": error.code})

    def _enter(self, state: WorkerState, *, end: WorkerEnd = WorkerEnd.STOPPED) -> None:
        try:
            self._workers.enter(self._registration.worker_id, state, end=end)
        except NightrateError as error:
            _LOG.warning("state_not_recorded", extra={"state": state, "reason": error.code})
