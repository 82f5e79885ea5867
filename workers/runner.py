"""The runner: keeps the engine full from the feed and hands what finishes to the committer.

One thread, one loop, one step at a time:

    feed ──rows──► engine ──results──► committer
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable
from typing import Final, assert_never

from pipeline.domain.errors import ModelUnavailableError
from pipeline.domain.lifecycle import AttemptOutcome, IntervalKind, WorkerState
from pipeline.domain.limits import PART_ROWS_MAX
from pipeline.ports.engine import Engine
from workers.apportioner import Apportioner
from workers.catalogue import Catalogue
from workers.committer import Committer, Finish, FinishedRow, Overhead, Work
from workers.dialect import answered, asked
from workers.feed import Block, Closed, Fed, Feed, Opened
from workers.garage import Garage
from workers.heart import Heart
from workers.meter import Meter
from workers.pack_run import PackRun, Row
from workers.shadow.judge import Judge

_LOG = logging.getLogger(__name__)

#: Longest wait for something to do before the loop looks at its stop flags again.
_WAIT_SECONDS: Final = 0.1
#: An idle worker's time reaches the ledger this often.
_IDLE_SPAN_US: Final = 5_000_000
#: Rows added to the engine at once.
_ADD_ROWS_MAX: Final = 1024
_US_PER_SECOND: Final = 1_000_000


class Runner:
    """Drives engines from a feed until told to stop."""

    def __init__(  # noqa: PLR0913 -- one for each collaborator, all by name
        self,
        *,
        feed: Feed,
        committer: Committer,
        heart: Heart,
        meter: Meter,
        catalogue: Catalogue,
        garage: Garage,
        apportioner: Apportioner,
        enter: Callable[[WorkerState], None],
        on_refused: Callable[[], None],
        commit_seconds: float,
        drain_seconds: float,
        judge: Judge | None = None,
    ) -> None:
        """Commit every `commit_seconds`; call `on_refused` when a variant cannot load.

        When stopping, let in-flight rows run `drain_seconds`. Let the `judge` have its turns while the engine is empty.
        """
        self._feed = feed
        self._committer = committer
        self._heart = heart
        self._meter = meter
        self._catalogue = catalogue
        self._garage = garage
        self._apportioner = apportioner
        self._enter = enter
        self._on_refused = on_refused
        self._commit_seconds = commit_seconds
        self._drain_seconds = drain_seconds
        self._judge = judge
        self._engine: Engine | None = None
        #: What that engine runs.
        self._variant: str | None = None
        #: Leased packs, the oldest first: one that runs, and the next while the first one's last rows do.
        self._runs: deque[PackRun] = deque()
        self._in_flight: dict[int, tuple[PackRun, Row]] = {}
        self._next_key = 0
        #: Since when the engine has had nothing to do, on the meter's clock.
        self._empty_since_us: int | None = None
        self._committed_at_us = self._meter.uptime_us()

    def run(self, must_stop: Callable[[], bool]) -> None:
        """Run packs until `must_stop`; then drain and hand back what is left."""
        self._empty_since_us = self._meter.uptime_us()
        while not must_stop() and self._committer.failure is None:
            self._take_in()
            self._fill()
            self._step()
            self._end_runs()
            self._let_judge(must_stop)
        self._drain()

    def _take_in(self) -> None:
        """Take what the feed has until there are rows to add; wait only when there is nothing to do."""
        while not any(run.has_rows for run in self._runs):
            fed = self._feed.take(0 if self._in_flight else _WAIT_SECONDS)
            if fed is None:
                break
            self._note(fed)
        if not self._runs and self._meter.since_cut_us() > _IDLE_SPAN_US:
            self._cut(IntervalKind.IDLE)

    def _note(self, fed: Fed) -> None:
        match fed:
            case Opened(lease, waiting_since_us):
                if not self._runs:
                    self._settle()
                    self._cut(IntervalKind.IDLE)
                    self._committed_at_us = self._meter.uptime_us()
                self._runs.append(PackRun(lease, waiting_since_us))
            case Block():
                self._runs[-1].add(fed)
            case Closed(error, is_shard_lost):
                self._runs[-1].is_fed = True
                if error is not None:
                    self._runs[-1].is_store_failing = not is_shard_lost
                    self._runs[-1].end(AttemptOutcome.UNREAD if is_shard_lost else AttemptOutcome.PREEMPTED, error)
            case _:
                assert_never(fed)

    def _fill(self) -> None:
        """Add rows to the engine while it has room, the oldest pack's first."""
        for run in self._runs:
            if self._heart.is_lost(run.lease.pack_id, run.lease.lease_token):
                self._abandon(run, AttemptOutcome.LEASE_LOST, "the lease was lost")
            elif self._committer.has_given_up(run.lease):
                self._abandon(run, AttemptOutcome.PREEMPTED, "its parts are refused")
            if run.is_untouched and self._is_judging_due():
                # The judge's turn comes when the packs begun are done.
                return
            if run.has_rows:
                engine = self._engine_for(run)
                if engine is None:
                    return
                self._fill_from(run, engine)
            if run.has_rows or not run.is_fed:
                return

    def _fill_from(self, run: PackRun, engine: Engine) -> None:
        run.tally.identity = engine.identity
        if self._in_flight and not run.in_flight:
            # Up to here the engine worked for others alone.
            self._settle()
        try:
            self._add_rows(run, engine)
        except Exception as error:  # noqa: BLE001 -- it should have come back from `step` as an error; see there
            _LOG.exception("rows_not_added")
            message = f"{type(error).__name__}: {error}"
            run.end(AttemptOutcome.FAILED, message)
            self._fail_in_flight(message)

    def _add_rows(self, run: PackRun, engine: Engine) -> None:
        withdrawn = self._heart.withdrawn()
        while (room := min(engine.room(), _ADD_ROWS_MAX)) > 0:
            rows = run.next_rows(room, withdrawn)
            if not rows:
                return
            requests = []
            for row in rows:
                self._in_flight[self._next_key] = (run, row)
                requests.append(asked(self._next_key, run.lease.endpoint, row.body))
                self._next_key += 1
            engine.add(requests)
            self._end_gap(run)

    def _end_gap(self, run: PackRun) -> None:
        """Charge the time for which the engine was empty, from when this pack could have filled it.

        Entering rows counts too: while the first are tokenized, the device waits.
        """
        if self._empty_since_us is not None:
            run.tally.bubble_us += max(0, self._meter.uptime_us() - max(self._empty_since_us, run.waiting_since_us))
            self._empty_since_us = None

    def _engine_for(self, run: PackRun) -> Engine | None:
        """Return the run's engine, or None while another variant's rows are in flight or it cannot load."""
        variant = run.lease.variant
        if variant not in self._catalogue.known():
            run.end(AttemptOutcome.PREEMPTED, f"{variant} is not served here any more")
            return None
        if self._engine is None or self._variant != variant:
            if self._in_flight:
                return None
            self._settle()
            self._apportioner.leave()
            self._engine = None
            try:
                self._engine = self._garage.engine(variant) if self._garage.is_loaded(variant) else self._load(run)
                self._variant = variant
                self._apportioner.drive(self._engine)
            except Exception as error:  # noqa: BLE001 -- a worker that died of whatever this is would blame the rows
                _LOG.exception("model_unavailable", extra={"variant": variant})
                # The rows are not to blame: another worker may have the model.
                run.end(AttemptOutcome.PREEMPTED, f"{ModelUnavailableError.code}: {error}")
                self._catalogue.refuse(variant)
                self._on_refused()
        return self._engine

    def _load(self, run: PackRun) -> Engine:
        self._end_gap(run)
        self._commit_all()
        self._cut(IntervalKind.IDLE)
        self._enter(WorkerState.LOADING)
        try:
            return self._garage.engine(run.lease.variant)
        finally:
            self._cut(IntervalKind.LOAD)
            # Loading is overhead in the ledger, and nobody's here.
            self._apportioner.settle(())
            self._empty_since_us = self._meter.uptime_us()
            self._enter(WorkerState.READY)
            self._committed_at_us = self._meter.uptime_us()

    def _step(self) -> None:
        if self._engine is None or not self._in_flight:
            return
        for run in self._runs:
            run.tally.row_steps += run.in_flight
        began_us = self._meter.uptime_us()
        try:
            results = self._engine.step()
            ended_us = self._meter.uptime_us()
            self._apportioner.engine_us += ended_us - began_us
            for result in results:
                run, row = self._in_flight.pop(result.key)
                run.in_flight -= 1
                told = answered(run.lease.endpoint, row.body, result)
                run.finished.append(FinishedRow(row.part, row.position, row.line, told))
        except Exception as error:  # noqa: BLE001 -- a model may raise anything; the packs it held fail, the worker lives
            _LOG.exception("engine_failed")
            self._fail_in_flight(f"{type(error).__name__}: {error}")
            return
        if not self._in_flight:
            self._empty_since_us = ended_us
        is_due = ended_us - self._committed_at_us >= self._commit_seconds * _US_PER_SECOND
        if is_due or any(len(run.finished) >= PART_ROWS_MAX for run in self._runs):
            self._commit_all()

    def _abandon(self, run: PackRun, outcome: AttemptOutcome, error: str) -> None:
        """Drop a pack whose rows would be computed for nothing."""
        self._settle()
        run.end(outcome, error)
        keys = [key for key, (owner, _row) in self._in_flight.items() if owner is run]
        for key in keys:
            del self._in_flight[key]
        run.in_flight = 0
        if keys:
            assert self._engine is not None
            self._engine.abort(keys)
            self._note_if_empty()
            self._write_off(IntervalKind.LATE)

    def _fail_in_flight(self, error: str) -> None:
        """Fail the packs an engine held when it raised; the engine itself is not trusted again."""
        self._settle()
        for run in {id(run): run for run, _row in self._in_flight.values()}.values():
            run.end(AttemptOutcome.FAILED, error)
            run.in_flight = 0
        self._in_flight.clear()
        self._note_if_empty()
        assert self._variant is not None
        self._garage.discard(self._variant)
        self._apportioner.leave()
        self._engine = None
        self._write_off(IntervalKind.RETRIED)

    def _note_if_empty(self) -> None:
        if not self._in_flight and self._empty_since_us is None:
            self._empty_since_us = self._meter.uptime_us()

    def _is_judging_due(self) -> bool:
        return self._judge is not None and self._judge.wants_turn(is_idle=not self._runs)

    def _let_judge(self, must_stop: Callable[[], bool]) -> None:
        """Give the judge its turn where it wants one and the engine is empty; its time is overhead in the ledger."""
        if self._in_flight or any(not run.is_untouched for run in self._runs) or not self._is_judging_due():
            return
        assert self._judge is not None
        is_idle = not self._runs
        self._commit_all()
        self._cut(IntervalKind.IDLE)
        if self._judge.is_alone:
            self._apportioner.leave()
            self._engine = self._variant = None
            self._garage.close()

        def may_go_on() -> bool:
            # An idle worker that is given work takes it up at once.
            is_called = is_idle and not self._feed.is_empty()
            return not (is_called or must_stop() or self._committer.failure is not None)

        self._judge.turn(may_go_on)
        self._cut(IntervalKind.SHADOW)
        # Nobody's here, as time spent loading.
        self._apportioner.settle(())
        self._empty_since_us = self._committed_at_us = self._meter.uptime_us()

    def _settle(self) -> None:
        self._apportioner.settle([run.tally for run in self._runs])

    def _write_off(self, kind: IntervalKind) -> None:
        """Account for time spent on rows that did not come back."""
        self._commit_all()
        self._cut(kind)

    def _end_runs(self) -> None:
        while self._runs and self._runs[0].is_over:
            self._settle()
            run = self._runs.popleft()
            self._commit(run)
            self._finish(run)

    def _finish(self, run: PackRun) -> None:
        finish = Finish(run.lease, run.outcome, run.tally.meters(), run.error, is_store_failing=run.is_store_failing)
        self._committer.hand_over(finish)

    def _commit_all(self) -> None:
        self._settle()
        for run in self._runs:
            self._commit(run)
        self._committed_at_us = self._meter.uptime_us()

    def _commit(self, run: PackRun) -> None:
        for start in range(0, len(run.finished), PART_ROWS_MAX):
            rows = run.finished[start : start + PART_ROWS_MAX]
            self._committer.hand_over(Work(run.lease, rows, self._meter.cut(IntervalKind.WORK)))
        run.finished = []

    def _cut(self, kind: IntervalKind) -> None:
        self._committer.hand_over(Overhead(self._meter.cut(kind)))

    def _drain(self) -> None:
        """Finish what is in flight if time allows, hand the rest back, and account for the time."""
        # First, since a draining worker is refused leases.
        self._feed.stop()
        self._enter(WorkerState.DRAINING)
        give_up_at = time.monotonic() + self._drain_seconds
        while self._in_flight and time.monotonic() < give_up_at and self._committer.failure is None:
            self._step()
        while not self._feed.is_stopped() or not self._feed.is_empty():
            fed = self._feed.take(_WAIT_SECONDS)
            if fed is not None:
                self._note(fed)
        self._commit_all()
        # What was computed since the last commit of rows that others will compute again.
        self._cut(IntervalKind.PREEMPTED if self._in_flight else IntervalKind.DRAIN)
        for run in self._runs:
            run.end(AttemptOutcome.PREEMPTED, "the worker was told to stop")
            self._finish(run)
        self._runs.clear()
        self._in_flight.clear()
        self._cut(IntervalKind.DRAIN)
