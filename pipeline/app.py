"""The composition root: the one module that knows every concrete class and wires them."""

from __future__ import annotations

import gc
import logging
import os
import shutil
import socket
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Final, cast

from infra.clock import SystemClock
from infra.lending import lent_folder
from pipeline.config import Settings
from pipeline.domain.endpoints import Endpoint
from pipeline.domain.errors import (
    ConflictError,
    LeaseLostError,
    ObjectCorruptError,
    ObjectMissingError,
    StoreUnavailableError,
    UsageError,
)
from pipeline.domain.ids import DEFAULT_TENANT, FileId, new_file_id, new_pack_id, new_worker_id
from pipeline.domain.lifecycle import BatchState
from pipeline.domain.limits import CLAIM_FAILURES_MAX
from pipeline.domain.models import BUILT_IN, ModelSpec, spec_of
from pipeline.domain.objects.keys import file_key
from pipeline.ports.batches import Admitted, BatchClaim, BatchView, LineError, Rejected, Submission
from pipeline.ports.engine import Engine
from pipeline.ports.objects import ObjectStore
from pipeline.ports.packs import WorkerRegistration
from pipeline.ports.vigil import vigil
from pipeline.report.assemble import assemble
from pipeline.submit.intake import take_in
from pipeline.submit.sealed import SealedSource
from scheduler.convictor import Convictor
from scheduler.cycle import decide
from scheduler.doers import Alarm, Doer, run_doers
from scheduler.policy import Policy
from storage.batches import BatchRepository
from storage.cycles import CycleRepository, Leadership
from storage.database import Database
from storage.objects import open_store
from storage.packs import PackRepository
from storage.wakeups import WakeupListener
from storage.workers import WorkerRepository
from workers.garage import Garage
from workers.worker import Worker, WorkerSettings

if TYPE_CHECKING:  # Celery costs half a second that a command which only opens the stores need not pay
    from infra.broker import HintSender

_LOG = logging.getLogger(__name__)

_HINT_AGAIN_AFTER: Final = timedelta(seconds=5)
_STAND_AGAIN_SECONDS: Final = 1.0
#: Of the garbage collector; Python's own are made for programs with few objects.
_GC_THRESHOLDS: Final = (50_000, 20, 100)
#: Longer than an embedded Postgres takes to be brought back.
_AWAY_SECONDS_MAX: Final = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Stack:
    """The stores of one installation, open."""

    settings: Settings
    database: Database
    objects: ObjectStore
    batches: BatchRepository
    models: Mapping[str, ModelSpec]
    #: Local folder for temporary files of bounded work.
    spool_folder: Path

    @property
    def endpoints_of(self) -> dict[str, frozenset[Endpoint]]:
        """Return the endpoints each model serves."""
        return {name: spec.endpoints for name, spec in self.models.items()}


def models_of(settings: Settings) -> dict[str, ModelSpec]:
    """Return the models this installation knows: the built-in ones and those of the settings."""
    return {**BUILT_IN, **{name: spec_of(name, written) for name, written in settings.models.items()}}


def objects_url_of(settings: Settings) -> str:
    """Return where objects are kept: the setting, or a folder in home."""
    return settings.objects_url or (settings.home_folder / "objects").absolute().as_uri()


@contextmanager
def open_stack(settings: Settings, *, away_seconds_max: float = _AWAY_SECONDS_MAX) -> Iterator[Stack]:
    """Open the stores that the settings name; `database_url` must be set by now.

    A database that is away is waited for, `away_seconds_max` at most.
    """
    database = Database(_required(settings.database_url, "NIGHTRATE_DATABASE_URL"), away_seconds_max=away_seconds_max)
    spool_folder = settings.home_folder / "spool"
    spool_folder.mkdir(parents=True, exist_ok=True)
    try:
        yield Stack(
            settings=settings,
            database=database,
            objects=open_store(objects_url_of(settings), endpoint_url=settings.s3_endpoint_url),
            batches=BatchRepository(database, claim_for=timedelta(seconds=settings.lease_seconds)),
            models=models_of(settings),
            spool_folder=spool_folder,
        )
    finally:
        database.close()


def _required(url: object, name: str) -> str:
    secret = getattr(url, "get_secret_value", None)
    if secret is None:
        raise UsageError(f"{name} is not set and no embedded server runs", hint="`nightrate up` starts one")
    return str(secret())


def collect_seldom() -> None:
    """Look for garbage in cycles seldom from here on: rows come and go by the thousand and hold none."""
    # Looking again and again took a worker a quarter of its time, the finalizer half and intake 7 %.
    gc.freeze()
    gc.set_threshold(*_GC_THRESHOLDS)


# --- submitting -------------------------------------------------------------------------------


def store_input(stack: Stack, source: Path) -> FileId:
    """Copy a local file into the object store and record it."""
    file_id = new_file_id()
    stored = stack.objects.put(file_key(DEFAULT_TENANT, file_id), source)
    # A name need not be UTF-8 on disk, but it must be in the database.
    filename = source.name.encode(errors="replace").decode()
    stack.batches.add_file(DEFAULT_TENANT, stored, file_id=file_id, filename=filename)
    return file_id


def submit(
    stack: Stack,
    submission: Submission,
    *,
    on_created: Callable[[BatchView], None] | None = None,
    on_progress: Callable[[int], None] | None = None,
) -> BatchView:
    """Make the batch and take it in; returns it admitted or failed.

    Where the process dies on the way, the scheduler takes the batch in instead; `on_created` hears
    which batch that is.
    """
    view = stack.batches.submit(submission)
    claim = stack.batches.first_claim(view)
    try:
        if on_created is not None:
            on_created(view)
        if claim is not None:
            take_in_claimed(stack, claim, on_progress=on_progress)
    except BaseException:
        # Whoever hears of the batch may interrupt at once; the scheduler takes it in without waiting.
        if claim is not None:
            stack.batches.release_claim(claim)
        raise
    return stack.batches.get(view.batch_id)


def take_in_claimed(stack: Stack, claim: BatchClaim, *, on_progress: Callable[[int], None] | None = None) -> None:
    """Take a claimed batch in, unless it was cancelled or another took over meanwhile."""
    with _claim_kept(stack, claim):
        outcome = _take_in(stack, claim, on_progress)
        if isinstance(outcome, Admitted):
            stack.batches.admit(claim, outcome)
        else:
            stack.batches.reject(claim, outcome)


def _take_in(stack: Stack, claim: BatchClaim, on_progress: Callable[[int], None] | None) -> Admitted | Rejected:
    try:
        with ExitStack() as resources:
            opened: BinaryIO = resources.enter_context(stack.objects.open(claim.input_key))
            source = SealedSource(opened, sha256=claim.input_sha256, where=claim.input_key)
            folder = resources.enter_context(lent_folder(stack.spool_folder, prefix="intake-"))
            outcome = take_in(
                claim,
                cast("BinaryIO", source),
                stack.objects,
                models=stack.endpoints_of,
                spool_folder=folder,
                on_progress=on_progress,
            )
            source.check()
            return outcome
    except (ObjectMissingError, ObjectCorruptError) as error:
        if claim.failures < CLAIM_FAILURES_MAX:
            raise
        lost = LineError(code="input_lost", message=f"The input file cannot be read: {error}", param=None, line=None)
        return Rejected(errors=(lost,), errors_total=1, rows_total=0)


def finalize_claimed(stack: Stack, claim: BatchClaim) -> None:
    """Write a claimed batch's files and end it, unless another took over meanwhile.

    What is missing or damaged is looked for again for some minutes. Then the batch ends without it.
    """
    has_patience = claim.failures < CLAIM_FAILURES_MAX
    with _claim_kept(stack, claim), lent_folder(stack.spool_folder, prefix="result-") as folder:
        rows_of_lost = None if has_patience else stack.batches.rows_of_part
        try:
            assembled = assemble(
                claim,
                stack.batches.result_sources(claim),
                stack.objects,
                spool_folder=folder,
                rows_of_lost=rows_of_lost,
            )
        except (ObjectMissingError, ObjectCorruptError) as error:
            if has_patience:
                raise
            lost = LineError(
                code="results_lost", message=f"The files cannot be written: {error}", param=None, line=None
            )
            stack.batches.give_up(claim, lost)
            return
        stack.batches.publish(claim, assembled, rows_total=stack.batches.get(claim.batch_id).rows_total)


@contextmanager
def _claim_kept(stack: Stack, claim: BatchClaim) -> Iterator[None]:
    """Keep the claim while the block works on it; a claim that another took over ends the block in peace."""
    try:
        with vigil(lambda: stack.batches.renew_claim(claim), every_seconds=stack.settings.lease_seconds / 3):
            yield
    except LeaseLostError:
        return
    except Exception as error:
        # Others come first; without this the batch would wait for the claim to run out, and then be the first again.
        stack.batches.fail_claim(claim, str(error) or type(error).__name__)
        raise
    except BaseException:
        # Interrupted: another may try at once.
        stack.batches.release_claim(claim)
        raise


# --- the scheduler process --------------------------------------------------------------------


def run_scheduler(settings: Settings, must_stop: threading.Event) -> None:
    """Lead when nobody else does, until `must_stop`."""
    from infra.broker import HintSender

    with open_stack(settings) as stack:
        sender = HintSender(_required(settings.redis_url, "NIGHTRATE_REDIS_URL"))
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
                _lead(stack, leadership, sender, term_over)
        sender.close()


def _lead(stack: Stack, leadership: Leadership, sender: HintSender, term_over: threading.Event) -> None:
    alarm = Alarm()
    listener = WakeupListener(stack.database.url, alarm.ring)
    listener.start()
    try:
        run_doers(_Duties(stack, leadership, sender, term_over, alarm).doers(), term_over, alarm)
    finally:
        listener.stop()


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
        self._cycles = CycleRepository(stack.database, silence=lease_for)
        self._policy = Policy(pack_seconds_target=stack.settings.pack_seconds)
        self._convictor = Convictor(PackRepository(stack.database, lease_for=lease_for), stack.objects)

    def doers(self) -> list[Doer]:
        """Return the duties with how often each is looked to."""
        settings = self._stack.settings
        return [
            Doer(name="cycle", every_seconds=settings.cycle_seconds, run_once=self.cycle),
            Doer(
                name="rescue",
                every_seconds=min(settings.cycle_seconds, settings.lease_seconds / 3),
                run_once=self.rescue,
            ),
            Doer(name="intake", every_seconds=settings.cycle_seconds, run_once=self.take_in_next),
            Doer(name="finalize", every_seconds=settings.cycle_seconds, run_once=self.finalize_next),
        ]

    def cycle(self) -> bool:
        if not self._leadership.is_held():
            self._term_over.set()
            return False
        epoch = self._leadership.epoch
        if self._cycles.advance_batches(epoch):
            # The finalizer is to look at once.
            self._alarm.ring()
        try:
            self._cycles.dispatch(epoch, decide(self._cycles.snapshot(), self._policy, new_pack_id))
        except ConflictError:
            return True
        for pack_id, pool in self._cycles.due_hints(again_after=_HINT_AGAIN_AFTER):
            if not self._sender.send(pack_id, pool):
                break
        return False

    def rescue(self) -> bool:
        self._cycles.rescue(self._leadership.epoch)
        return self._convictor.run_once()

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


# --- a worker process -------------------------------------------------------------------------


def run_worker(settings: Settings, must_stop: threading.Event) -> None:
    """Run one worker until `must_stop`."""
    from infra.broker import HintListener
    from workers.engine.registry import is_available, load_engine

    lease_for = timedelta(seconds=settings.lease_seconds)
    models = models_of(settings)
    served = tuple(name for name, spec in models.items() if is_available(spec))
    threads = settings.threads or max(1, (os.cpu_count() or 1) // max(1, settings.workers))

    def load(model: str) -> Engine:
        return load_engine(
            models[model], cache_dir=settings.home_folder / "models", device=settings.device, threads=threads
        )

    with open_stack(settings) as stack, _heart_database(settings) as heart_database:
        worker = Worker(
            WorkerRegistration(
                worker_id=new_worker_id(),
                pool=settings.pool,
                market=settings.market,
                host=socket.gethostname(),
                pid=os.getpid(),
                models=served,
                rate_micros_per_hour=settings.rate_micros_per_hour,
                currency=settings.currency,
            ),
            packs=PackRepository(stack.database, lease_for=lease_for),
            workers=WorkerRepository(stack.database, lease_for=lease_for),
            heart_store=WorkerRepository(heart_database, lease_for=lease_for),
            objects=stack.objects,
            garage=Garage(served, load),
            clock=SystemClock(),
            settings=WorkerSettings(
                lease_seconds=settings.lease_seconds,
                poll_seconds=settings.poll_seconds,
                commit_seconds=settings.commit_seconds,
            ),
        )
        redis_url = _required(settings.redis_url, "NIGHTRATE_REDIS_URL")
        listener = HintListener(redis_url, settings.pool, worker.wake)
        listener.start()
        collect_seldom()
        worker.run(must_stop.is_set)
        listener.stop()


@contextmanager
def _heart_database(settings: Settings) -> Iterator[Database]:
    # A beat that cannot get through within a lease is no beat; the watchdog takes it from there.
    url = _required(settings.database_url, "NIGHTRATE_DATABASE_URL")
    database = Database(url, pool_size=1, away_seconds_max=settings.lease_seconds / 3)
    try:
        yield database
    finally:
        database.close()


# --- looking after the house ------------------------------------------------------------------


def check_broker(settings: Settings) -> None:
    """Refuse a broker that would lose hints silently; raises `UsageError`."""
    from infra.broker import check_server

    check_server(_required(settings.redis_url, "NIGHTRATE_REDIS_URL"))


def free_bytes(settings: Settings) -> int:
    """Return how many bytes are free where home is."""
    folder = settings.home_folder
    while not folder.exists():
        folder = folder.parent
    return shutil.disk_usage(folder).free
