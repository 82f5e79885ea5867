"""Firing recurring batches: planned by the clock, submitted once, their results written where they are wanted."""

from __future__ import annotations

import logging
import stat
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final

from pipeline.app.batches import store_input
from pipeline.app.delivery import deliver, errors_path
from pipeline.app.stack import Stack
from pipeline.domain.cron import parse_zone, preview
from pipeline.domain.errors import NightrateError, NotLeaderError, StoreUnavailableError, UsageError
from pipeline.domain.ids import DEFAULT_TENANT, new_recurring_id
from pipeline.domain.limits import FILE_BYTES_MAX
from pipeline.domain.path_fields import ACCEPTED, render
from pipeline.domain.recurring import CatchUp, FiringOutcome, Overlap
from pipeline.domain.windows import parse_window
from pipeline.ports.batches import Submission
from pipeline.ports.recurring import Delivery, FiringView, OpenFiring, RecurringTerms, RecurringView
from pipeline.submit.inputs import Input, looked_at
from scheduler.recurring import next_try_at, pause_after, plan_firings
from storage.firings import PAGE, FiringRepository

_LOG = logging.getLogger(__name__)

#: Firings whose paths are compared before a recurring batch is made.
_PREVIEWED: Final = 50


def create_recurring(stack: Stack, terms: RecurringTerms) -> RecurringView:
    """Record a recurring batch, its terms checked; its first firing is the next one from now."""
    now = stack.recurring.now()
    check_terms(terms, now)
    return stack.recurring.add(new_recurring_id(), terms, next_at=terms.schedule.next_after(now))


def resume_recurring(stack: Stack, name: str) -> RecurringView:
    """Let a paused recurring batch fire again, from the next firing after now on."""
    view = stack.recurring.get(DEFAULT_TENANT, name)
    next_at = view.terms.schedule.next_after(stack.recurring.now())
    return stack.recurring.resume(DEFAULT_TENANT, name, next_at=next_at)


def check_terms(terms: RecurringTerms, now: datetime) -> None:
    """Raise `UsageError` where the terms as a whole make no sense; each of them has been checked by itself."""
    if terms.catch_up is CatchUp.ALL and terms.overlap is Overlap.SKIP:
        raise UsageError(
            "--catch-up all with --overlap skip would leave out all but the first", hint="--overlap queue or allow"
        )
    schedule = terms.schedule
    schedule.next_after(now)
    if terms.output_template is None:
        return
    taken: dict[Path, datetime] = {}
    for at in preview(schedule, now, _PREVIEWED):
        output = Path(render(terms.output_template, at, schedule.zone))
        if output in taken:
            both = " and ".join(each.astimezone(schedule.zone).isoformat() for each in (taken[output], at))
            raise UsageError(
                f"--output: the firings of {both} would both write {output}", hint=f"its fields may be {ACCEPTED}"
            )
        if Path(render(terms.input_template, at, schedule.zone)) in {output, errors_path(output)}:
            raise UsageError(f"--output: {output} is the input, too")
        taken[output] = at


def firing_key(firing: FiringView) -> str:
    """Return the idempotency key of the firing's batch."""
    return f"recurring:{firing.recurring_id}:{firing.scheduled_at.isoformat()}"


class Firer:
    """Plans what is due and submits it. Only the leader's writes count, and each firing is decided once."""

    def __init__(self, stack: Stack, firings: FiringRepository, *, now: Callable[[], datetime]) -> None:
        """Fire on the clock `now`."""
        self._stack = stack
        self._firings = firings
        self._now = now

    def run_once(self) -> bool:
        """Plan and submit what is due; True when there is more at once."""
        now = self._now()
        planned = [self._plan(view, waiting, now) for view, waiting in self._firings.due(now)]
        turns = self._firings.open(now)
        for turn in turns:
            self._fire(turn, now)
        # Of each recurring batch only the earliest was looked at; whatever was decided makes room for the next.
        return bool(turns) or sum(planned) == PAGE

    def _plan(self, view: RecurringView, waiting: int, now: datetime) -> bool:
        try:
            schedule = view.terms.schedule
        except UsageError as error:
            # A zone that the creator's machine knows and this one does not must not hold up the others.
            _LOG.warning("recurring_unplanned", extra={"recurring": view.recurring_id, "reason": error.message})
            return False
        plan = plan_firings(
            schedule,
            next_at=view.next_at,
            now=now,
            catch_up=view.terms.catch_up,
            catch_up_max=view.terms.catch_up_max,
            waiting=waiting,
        )
        planned = [(each.scheduled_at, each.outcome, each.reason) for each in plan.firings]
        return self._firings.advance(view, planned, next_at=plan.next_at)

    def _fire(self, turn: OpenFiring, now: datetime) -> None:
        firing, terms = turn.firing, turn.terms
        if turn.running_batch_id is not None and terms.overlap is Overlap.SKIP and not firing.is_manual:
            reason = f"{turn.running_batch_id} of an earlier firing had not ended."
            self._firings.settle(firing, FiringOutcome.SKIPPED_OVERLAP, reason, tries=firing.tries)
            return
        try:
            self._submit(firing, terms)
        except (NotLeaderError, StoreUnavailableError):
            # Says nothing of the firing: the next look finds it as it is.
            raise
        except (NightrateError, OSError) as error:
            self._put_off(firing, terms, _sentence(error), now)

    def _submit(self, firing: FiringView, terms: RecurringTerms) -> None:
        zone = parse_zone(terms.zone)
        source = read_input(Path(render(terms.input_template, firing.scheduled_at, zone)), terms)
        output = terms.output_template and render(terms.output_template, firing.scheduled_at, zone)
        submission = Submission(
            tenant_id=terms.tenant_id,
            input_file_id=store_input(self._stack, source.path),
            endpoint=source.endpoint,
            completion_window=terms.completion_window,
            tier=terms.tier,
            budget_micros=terms.budget_micros,
            metadata=terms.metadata,
            idempotency_key=firing_key(firing),
        )
        self._firings.submit(firing, submission, output_path=output)

    def _put_off(self, firing: FiringView, terms: RecurringTerms, reason: str, now: datetime) -> None:
        tries = firing.tries + 1
        retry_at = next_try_at(
            tries=tries, scheduled_at=firing.scheduled_at, window=parse_window(terms.completion_window), now=now
        )
        if retry_at is None:
            self._firings.settle(firing, FiringOutcome.FAILED, reason, tries=tries)
        else:
            self._firings.postpone(firing, reason, tries=tries, retry_at=retry_at)


class Deliverer:
    """Writes the results of ended batches where their recurring batches want them."""

    def __init__(self, stack: Stack, firings: FiringRepository, *, now: Callable[[], datetime]) -> None:
        """Rest on the clock `now`."""
        self._stack = stack
        self._firings = firings
        self._now = now

    def run_once(self) -> bool:
        """Write what can be written; True when there may be more at once."""
        now = self._now()
        waiting = self._firings.undelivered(now)
        for delivery in waiting:
            self._deliver(delivery, now)
        return len(waiting) == PAGE

    def _deliver(self, delivery: Delivery, now: datetime) -> None:
        try:
            deliver(self._stack, delivery.batch_id, Path(delivery.output_path))
        except StoreUnavailableError:
            raise
        except (NightrateError, OSError) as error:
            deliver_at = now + pause_after(delivery.tries + 1)
            self._firings.fail_delivery(delivery, _sentence(error), deliver_at=deliver_at)
        else:
            self._firings.delivered(delivery)


def read_input(path: Path, terms: RecurringTerms) -> Input:
    """Return the file of a firing, having looked at its beginning.

    Raises `UsageError` where it is no file of requests, `OSError` where it cannot be read.
    """
    found = path.stat()
    # A pipe or a device would be waited for, and there is one firer.
    if not stat.S_ISREG(found.st_mode):
        raise UsageError(f"{path} is not a regular file")
    if found.st_size > FILE_BYTES_MAX:
        raise UsageError(f"{path} is larger than {FILE_BYTES_MAX} bytes", hint="split it")
    return looked_at(path, str(path), terms.endpoint)


def manual_instant(now: datetime) -> datetime:
    """Return the instant that names a firing asked for now; no schedule ever names it, for it has a fraction of a second."""
    return now if now.microsecond else now + timedelta(microseconds=1)


def _sentence(error: NightrateError | OSError) -> str:
    if isinstance(error, OSError):
        where = f"{error.filename}: " if error.filename else ""
        return f"{where}{error.strerror or error}"
    return str(error)
