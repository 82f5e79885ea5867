"""Recurring batches on a real Postgres: what fires, fires once."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from threading import Barrier

import pytest
from pydantic import SecretStr
from sqlalchemy import text

from pipeline.app import delivery
from pipeline.app.batches import finalize_claimed, take_in_claimed
from pipeline.app.recurring import Deliverer, Firer, create_recurring, firing_key, manual_instant, resume_recurring
from pipeline.app.stack import Stack, open_stack
from pipeline.config import Settings
from pipeline.domain.endpoints import Endpoint
from pipeline.domain.errors import ConflictError, NotFoundError, NotLeaderError, UsageError
from pipeline.domain.ids import DEFAULT_TENANT, BatchId, RecurringId, new_recurring_id
from pipeline.domain.lifecycle import BatchState
from pipeline.domain.limits import DELIVERY_TRIES_MAX, FIRING_TRIES_MAX
from pipeline.domain.recurring import CatchUp, FiringOutcome, Overlap
from pipeline.domain.tiers import Tier
from pipeline.ports.recurring import FiringView, RecurringTerms
from storage.cycles import Leadership
from storage.firings import FiringRepository

START = datetime(2026, 3, 20, 12, tzinfo=UTC)
DAY = timedelta(days=1)
FIRST = datetime(2026, 3, 21, 1, tzinfo=UTC)  # two at night in Berlin
NAME = "nightly"


def requests(count: int = 2) -> str:
    lines = []
    for number in range(count):
        body = {"model": "echo", "messages": [{"role": "user", "content": f"say {number}"}]}
        lines.append({"custom_id": str(number), "method": "POST", "url": "/v1/chat/completions", "body": body})
    return "".join(f"{json.dumps(line)}\n" for line in lines)


@dataclass
class Night:
    """A stack whose scheduler's clock is set by the test."""

    stack: Stack
    folder: Path
    leadership: Leadership
    now: datetime = START
    recurring_id: RecurringId = field(default_factory=new_recurring_id)

    def terms(self, **changes: object) -> RecurringTerms:
        terms = RecurringTerms(
            tenant_id=DEFAULT_TENANT,
            name=NAME,
            cron="0 2 * * *",
            zone="Europe/Berlin",
            input_template=f"{self.folder}/in-{{date}}.jsonl",
            output_template=None,
            endpoint=None,
            tier=Tier.BULK,
            completion_window="24h",
            budget_micros=700,
            metadata={"team": "a"},
            overlap=Overlap.ALLOW,
            catch_up=CatchUp.LAST,
            catch_up_max=10,
        )
        return replace(terms, **changes)  # type: ignore[arg-type] # fields by name

    def create(self, **changes: object) -> None:
        terms = self.terms(**changes)
        self.stack.recurring.add(self.recurring_id, terms, next_at=terms.schedule.next_after(self.now))

    def put(self, *dates: str) -> None:
        for date in dates:
            (self.folder / f"in-{date}.jsonl").write_text(requests())

    @property
    def firings(self) -> FiringRepository:
        return FiringRepository(self.stack.database, epoch=self.leadership.epoch)

    def fire(self, now: datetime | None = None) -> list[FiringView]:
        """Let the scheduler look at `now` until there is nothing more; return the history, the oldest first."""
        self.now = now or self.now
        firer = Firer(self.stack, self.firings, now=lambda: self.now)
        while firer.run_once():
            pass
        return self.history()

    def deliver(self) -> FiringView:
        Deliverer(self.stack, self.firings, now=lambda: self.now).run_once()
        return self.history()[-1]

    def history(self) -> list[FiringView]:
        return self.stack.recurring.history(self.recurring_id, limit=200)[::-1]

    def batches(self) -> int:
        return len(self.stack.batches.list(limit=100))

    def end(self, batch_id: BatchId | None) -> None:
        """Bring a batch to its end without a worker: all of its rows are left over."""
        assert batch_id is not None
        claim = self.stack.batches.claim([BatchState.VALIDATING], batch_id=batch_id)
        assert claim is not None
        take_in_claimed(self.stack, claim)
        self.stack.batches.cancel(batch_id)
        claim = self.stack.batches.claim([BatchState.CANCELLING], batch_id=batch_id)
        assert claim is not None
        finalize_claimed(self.stack, claim)

    def execute(self, sql: str) -> None:
        with self.stack.database.transaction() as connection:
            connection.execute(text(sql))


@contextmanager
def opened(database_url: str, folder: Path) -> Iterator[Stack]:
    settings = Settings(home=folder / "home", database_url=SecretStr(database_url), redis_url=None)
    with open_stack(settings) as stack:
        yield stack


@pytest.fixture
def night(database_url: str, tmp_path: Path) -> Iterator[Night]:
    with opened(database_url, tmp_path) as stack:
        leadership = Leadership.stand(stack.database, "test")
        assert leadership is not None
        with leadership:
            yield Night(stack=stack, folder=tmp_path, leadership=leadership)


def outcomes(history: list[FiringView]) -> list[FiringOutcome | None]:
    return [firing.outcome for firing in history]


def test_a_firing_submits_the_file_of_its_date_under_its_terms(night: Night) -> None:
    night.create()
    night.put("2026-03-21")

    assert night.fire(FIRST - timedelta(microseconds=1)) == []
    (firing,) = night.fire(FIRST)

    assert (firing.scheduled_at, firing.outcome, firing.is_manual) == (FIRST, FiringOutcome.SUBMITTED, False)
    assert firing.batch_id is not None
    batch = night.stack.batches.get(firing.batch_id)
    assert (batch.tier, batch.budget_micros, batch.metadata, batch.endpoint, batch.completion_window) == (
        Tier.BULK, 700, {"team": "a"}, Endpoint.CHAT_COMPLETIONS, "24h",
    )  # fmt: skip
    assert night.stack.files.get(batch.input_file_id).filename == "in-2026-03-21.jsonl"
    # Nobody has claimed it: the intake of whoever leads takes it in.
    claim = night.stack.batches.claim([BatchState.VALIDATING])
    assert claim is not None
    assert claim.batch_id == firing.batch_id


def test_looking_again_and_again_fires_once(night: Night) -> None:
    night.create()
    night.put("2026-03-21", "2026-03-22")

    for minutes in (0, 1, 1, 600, 1440, 1441):
        night.fire(FIRST + timedelta(minutes=minutes))

    assert [firing.scheduled_at for firing in night.history()] == [FIRST, FIRST + DAY]
    assert night.batches() == 2


def test_a_clock_that_is_put_back_fires_nothing_twice(night: Night) -> None:
    night.create()
    night.put("2026-03-21", "2026-03-22")
    night.fire(FIRST)
    night.fire(START)
    night.fire(FIRST)
    resumed = resume_recurring(night.stack, NAME)

    assert night.batches() == 1
    assert resumed.next_at >= FIRST + DAY


def test_two_who_fire_at_once_make_one_batch(night: Night, database_url: str, tmp_path: Path) -> None:
    night.create(cron="* * * * *", input_template=f"{tmp_path}/in.jsonl")
    (tmp_path / "in.jsonl").write_text(requests())
    minutes = 12
    barrier = Barrier(2)

    def lead() -> None:
        with opened(database_url, tmp_path) as stack:
            # Under the same epoch, so that it is the keys that are tried and not the guard.
            firings = FiringRepository(stack.database, epoch=night.leadership.epoch)
            for minute in range(1, minutes + 1):
                barrier.wait()
                firer = Firer(stack, firings, now=lambda now=START + timedelta(minutes=minute): now)  # type: ignore[misc] # bound now
                while firer.run_once():
                    pass

    with ThreadPoolExecutor(2) as threads:
        for done in [threads.submit(lead) for _ in range(2)]:
            done.result()

    history = night.history()
    assert [firing.scheduled_at for firing in history] == [START + timedelta(minutes=n) for n in range(1, minutes + 1)]
    assert outcomes(history) == [FiringOutcome.SUBMITTED] * minutes
    assert len({firing.batch_id for firing in history}) == night.batches() == minutes


def test_whoever_planned_on_an_older_look_plans_nothing(night: Night) -> None:
    night.create()
    ((view, waiting),) = night.firings.due(FIRST)
    planned = [(FIRST, None, None)]

    assert waiting == 0
    assert night.firings.advance(view, planned, next_at=FIRST + DAY)
    assert not night.firings.advance(view, [(FIRST + DAY, None, None)], next_at=FIRST + 2 * DAY)
    assert [firing.scheduled_at for firing in night.history()] == [FIRST]
    assert night.stack.recurring.get(DEFAULT_TENANT, NAME).next_at == FIRST + DAY


def test_an_instant_fires_once_even_where_the_next_one_was_set_back(night: Night) -> None:
    night.create()
    night.put("2026-03-21")
    (firing,) = night.fire(FIRST)
    night.execute("UPDATE recurring SET next_at = next_at - interval '1 day'")

    assert night.fire(FIRST) == [firing]
    assert night.batches() == 1


def test_a_deposed_scheduler_fires_nothing(night: Night) -> None:
    night.create()
    night.put("2026-03-21")
    night.execute("UPDATE leadership SET epoch = epoch + 1")

    with pytest.raises(NotLeaderError):
        night.fire(FIRST)

    assert (night.history(), night.batches()) == ([], 0)


def test_one_deposed_between_the_key_and_the_batch_leaves_it_to_the_next(
    night: Night, monkeypatch: pytest.MonkeyPatch
) -> None:
    night.create()
    night.put("2026-03-21")
    planned = FiringRepository.open

    def deposed(firings: FiringRepository, now: datetime) -> object:
        night.execute("UPDATE leadership SET epoch = epoch + 1")
        return planned(firings, now)

    with monkeypatch.context() as patched:
        patched.setattr(FiringRepository, "open", deposed)
        with pytest.raises(NotLeaderError):
            night.fire(FIRST)
    assert outcomes(night.history()) == [None]
    assert night.batches() == 0
    night.leadership.epoch += 1

    (firing,) = night.fire(FIRST + timedelta(minutes=3))

    assert firing.outcome is FiringOutcome.SUBMITTED
    assert night.batches() == 1


@pytest.mark.parametrize("is_committed", [True, False], ids=["after the batch", "before the batch"])
def test_a_crash_resumes_and_never_doubles(
    night: Night, monkeypatch: pytest.MonkeyPatch, *, is_committed: bool
) -> None:
    night.create()
    night.put("2026-03-21")
    submit: Callable[..., object] = FiringRepository.submit

    def crash(*arguments: object, **named: object) -> None:
        if is_committed:
            submit(*arguments, **named)
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(FiringRepository, "submit", crash)
        with pytest.raises(KeyboardInterrupt):
            night.fire(FIRST)
    assert night.batches() == int(is_committed)
    # The file may have changed since: it was read in full before, or not at all.
    (night.folder / "in-2026-03-21.jsonl").write_text(requests(3))
    (firing,) = night.fire(FIRST)

    assert firing.outcome is FiringOutcome.SUBMITTED
    assert night.batches() == 1


def test_a_firing_submitted_twice_has_the_batch_of_the_first(night: Night) -> None:
    night.create()
    night.put("2026-03-21")
    (firing,) = night.fire(FIRST)
    batch = night.stack.batches.get(str(firing.batch_id))
    submission = night.terms()
    again = night.firings.submit(
        replace(firing, outcome=None),
        # Whatever it is of: the firing is decided.
        _submission(submission, batch.input_file_id, firing_key(firing) + "again"),
        output_path="/other",
    )

    assert again == firing.batch_id
    assert night.batches() == 1
    assert night.history() == [firing]


def _submission(terms: RecurringTerms, file_id: object, key: str) -> object:
    from pipeline.ports.batches import Submission

    return Submission(
        tenant_id=terms.tenant_id,
        input_file_id=file_id,  # type: ignore[arg-type] # of a batch
        endpoint=Endpoint.CHAT_COMPLETIONS,
        completion_window="24h",
        tier=terms.tier,
        budget_micros=None,
        metadata=None,
        idempotency_key=key,
    )


def test_what_was_missed_is_made_up_for_as_the_policy_says(night: Night) -> None:
    night.create(catch_up=CatchUp.ALL, catch_up_max=2)
    night.put("2026-03-21", "2026-03-22", "2026-03-23")

    history = night.fire(FIRST + 2 * DAY + timedelta(hours=3))

    assert outcomes(history) == [FiringOutcome.SKIPPED_CATCH_UP, FiringOutcome.SUBMITTED, FiringOutcome.SUBMITTED]
    names = [night.stack.files.get(batch.input_file_id).filename for batch in night.stack.batches.list(limit=9)]
    assert sorted(names) == ["in-2026-03-22.jsonl", "in-2026-03-23.jsonl"]


def test_under_skip_a_firing_is_left_out_while_an_earlier_batch_runs(night: Night) -> None:
    night.create(overlap=Overlap.SKIP)
    night.put("2026-03-21", "2026-03-22", "2026-03-23")
    (first,) = night.fire(FIRST)

    history = night.fire(FIRST + DAY)
    assert outcomes(history) == [FiringOutcome.SUBMITTED, FiringOutcome.SKIPPED_OVERLAP]
    assert str(first.batch_id) in (history[-1].reason or "")
    night.end(first.batch_id)

    assert night.fire(FIRST + 2 * DAY)[-1].outcome is FiringOutcome.SUBMITTED


def test_under_queue_a_firing_waits_for_the_earlier_batch_and_keeps_its_date(night: Night) -> None:
    night.create(overlap=Overlap.QUEUE)
    night.put("2026-03-21", "2026-03-22", "2026-03-23")
    (first,) = night.fire(FIRST)
    night.fire(FIRST + DAY)
    assert outcomes(night.fire(FIRST + 2 * DAY)) == [FiringOutcome.SUBMITTED, None, None]

    night.end(first.batch_id)
    history = night.fire()

    assert outcomes(history) == [FiringOutcome.SUBMITTED, FiringOutcome.SUBMITTED, None]
    batch = night.stack.batches.get(str(history[1].batch_id))
    assert night.stack.files.get(batch.input_file_id).filename == "in-2026-03-22.jsonl"


def test_a_missing_input_is_tried_again_and_found(night: Night) -> None:
    night.create()

    (firing,) = night.fire(FIRST)
    assert (firing.outcome, firing.tries, firing.retry_at) == (None, 1, FIRST + timedelta(seconds=30))
    assert "in-2026-03-21.jsonl" in (firing.reason or "")
    assert night.fire(FIRST + timedelta(seconds=29))[0].tries == 1
    night.put("2026-03-21")
    (firing,) = night.fire(FIRST + timedelta(seconds=30))

    assert (firing.outcome, firing.reason) == (FiringOutcome.SUBMITTED, None)


def test_an_input_that_never_comes_fails_its_firing_and_no_other(night: Night) -> None:
    night.create()
    night.put("2026-03-22")
    now = FIRST
    while (firing := night.fire(now)[0]).outcome is None:
        assert firing.retry_at is not None
        now = firing.retry_at

    assert (firing.outcome, firing.tries) == (FiringOutcome.FAILED, FIRING_TRIES_MAX)
    assert "No such file" in (firing.reason or "")
    assert night.fire(FIRST + DAY)[-1].outcome is FiringOutcome.SUBMITTED


@pytest.mark.parametrize("kind", ["folder", "table", "empty"])
def test_an_input_that_is_no_file_of_requests_says_so(night: Night, kind: str) -> None:
    night.create()
    path = night.folder / "in-2026-03-21.jsonl"
    if kind == "folder":
        path.mkdir()
    else:
        path.write_text("a,b\n1,2\n" if kind == "table" else "")

    (firing,) = night.fire(FIRST)

    said = {"folder": "not a regular file", "table": "a table of values", "empty": "no requests"}
    assert said[kind] in (firing.reason or "")
    assert night.batches() == 0


def test_a_paused_one_fires_nothing_and_does_not_make_up_for_it(night: Night) -> None:
    night.create(catch_up=CatchUp.ALL)
    night.put("2026-03-21")
    night.stack.recurring.pause(DEFAULT_TENANT, NAME)
    assert night.fire(FIRST + DAY) == []

    view = night.stack.recurring.resume(DEFAULT_TENANT, NAME, next_at=FIRST + 2 * DAY)

    assert (view.paused_at, view.next_at) == (None, FIRST + 2 * DAY)
    assert night.fire(FIRST + DAY + timedelta(hours=1)) == []
    assert night.stack.recurring.resume(DEFAULT_TENANT, NAME, next_at=START).next_at == FIRST + 2 * DAY


def test_one_that_waits_while_paused_waits_on_and_a_manual_one_goes(night: Night) -> None:
    night.create(overlap=Overlap.SKIP)
    night.fire(FIRST)
    night.stack.recurring.pause(DEFAULT_TENANT, NAME)
    night.put("2026-03-21")
    at = FIRST + timedelta(minutes=9, microseconds=7)
    night.stack.recurring.add_manual(DEFAULT_TENANT, NAME, at=at)
    night.stack.recurring.add_manual(DEFAULT_TENANT, NAME, at=at)

    history = night.fire(at)

    assert [(firing.is_manual, firing.outcome) for firing in history] == [
        (False, None), (True, FiringOutcome.SUBMITTED),
    ]  # fmt: skip


def test_a_manual_firing_takes_no_scheduled_ones_place(night: Night) -> None:
    night.create()
    night.put("2026-03-21")

    night.stack.recurring.add_manual(DEFAULT_TENANT, NAME, at=manual_instant(FIRST))
    history = night.fire(FIRST + timedelta(seconds=1))

    assert [firing.is_manual for firing in history] == [False, True]
    assert outcomes(history) == [FiringOutcome.SUBMITTED] * 2
    assert night.batches() == 2


def test_a_removed_one_never_fires_and_its_name_is_free(night: Night) -> None:
    night.create()
    night.fire(FIRST)
    night.put("2026-03-21")
    night.stack.recurring.remove(DEFAULT_TENANT, NAME)

    (firing,) = night.fire(FIRST + timedelta(hours=1))

    assert firing.outcome is FiringOutcome.FAILED
    assert "removed" in (firing.reason or "")
    with pytest.raises(NotFoundError, match=NAME):
        night.stack.recurring.get(DEFAULT_TENANT, NAME)
    again = create_recurring(night.stack, night.terms())
    assert [view.recurring_id for view in night.stack.recurring.live(DEFAULT_TENANT)] == [again.recurring_id]


def test_a_name_is_taken_once(night: Night) -> None:
    create_recurring(night.stack, night.terms())

    with pytest.raises(ConflictError, match="already"):
        create_recurring(night.stack, night.terms(cron="0 3 * * *"))
    assert night.stack.recurring.get(DEFAULT_TENANT, NAME).terms == night.terms()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"output_template": "/out/{month}.jsonl"}, "would both write /out/"),
        ({"cron": "0 * * * *", "output_template": "/out/{date}.jsonl"}, "would both write"),
        ({"output_template": "/out/{date}.jsonl", "input_template": "/out/{date}.jsonl"}, "is the input, too"),
        ({"output_template": "/o/{date}.jsonl", "input_template": "/o/{date}.errors.jsonl"}, "is the input, too"),
        ({"catch_up": CatchUp.ALL, "overlap": Overlap.SKIP}, "leave out all but the first"),
        ({"cron": "0 2 31 2 *"}, "never comes"),
    ],
)
def test_terms_that_make_no_sense_together_are_refused(night: Night, changes: dict[str, object], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        create_recurring(night.stack, night.terms(**changes))

    assert night.stack.recurring.live(DEFAULT_TENANT) == []


def test_an_unknown_zone_holds_up_nobody_else(night: Night) -> None:
    night.create()
    night.put("2026-03-21")
    terms = night.terms(name="other", input_template=f"{night.folder}/in-2026-03-21.jsonl")
    night.stack.recurring.add(new_recurring_id(), terms, next_at=START)
    night.execute("UPDATE recurring SET zone = 'Mars/Olympus' WHERE name = 'other'")

    (firing,) = night.fire(FIRST)

    assert firing.outcome is FiringOutcome.SUBMITTED


def test_results_are_written_once_the_batch_has_ended_errors_beside(night: Night) -> None:
    night.create(output_template=f"{night.folder}/out/{{date:%Y/%m}}/{{date}}.jsonl")
    night.put("2026-03-21")
    (firing,) = night.fire(FIRST)
    assert night.deliver().delivered_at is None

    night.end(firing.batch_id)
    delivered = night.deliver()

    assert delivered.delivered_at is not None
    assert delivered.output_path == f"{night.folder}/out/2026/03/2026-03-21.jsonl"
    folder = night.folder / "out/2026/03"
    assert [path.name for path in folder.iterdir()] == ["2026-03-21.errors.jsonl"]
    errors = [json.loads(line) for line in (folder / "2026-03-21.errors.jsonl").read_text().splitlines()]
    assert [each["custom_id"] for each in errors] == ["0", "1"]


def test_a_delivery_that_crashed_after_writing_is_done_again_without_harm(night: Night) -> None:
    night.create(output_template=f"{night.folder}/{{date}}.jsonl")
    night.put("2026-03-21")
    (firing,) = night.fire(FIRST)
    night.end(firing.batch_id)
    night.deliver()
    before = (night.folder / "2026-03-21.errors.jsonl").stat()
    night.execute("UPDATE firings SET delivered_at = NULL")

    assert night.deliver().delivered_at is not None
    after = (night.folder / "2026-03-21.errors.jsonl").stat()
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


def test_what_stands_at_the_output_is_never_overwritten(night: Night) -> None:
    night.create(output_template=f"{night.folder}/{{date}}.jsonl")
    night.put("2026-03-21")
    (firing,) = night.fire(FIRST)
    night.end(firing.batch_id)
    theirs = night.folder / "2026-03-21.errors.jsonl"
    theirs.write_text("mine\n")
    for _ in range(DELIVERY_TRIES_MAX + 3):
        firing = night.deliver()
        night.now += timedelta(hours=1)

    assert theirs.read_text() == "mine\n"
    assert (firing.delivered_at, firing.delivery_tries) == (None, DELIVERY_TRIES_MAX)
    assert "exists already" in (firing.delivery_trouble or "")
    assert sorted(path.name for path in night.folder.iterdir()) == ["2026-03-21.errors.jsonl", "home", "in-2026-03-21.jsonl"]  # fmt: skip


def test_what_is_put_there_while_results_are_written_stays(night: Night, monkeypatch: pytest.MonkeyPatch) -> None:
    night.create(output_template=f"{night.folder}/{{date}}.jsonl")
    night.put("2026-03-21")
    (firing,) = night.fire(FIRST)
    night.end(firing.batch_id)
    theirs = night.folder / "2026-03-21.errors.jsonl"
    monkeypatch.setattr(delivery.os, "fsync", lambda _: theirs.write_text("mine\n"))

    firing = night.deliver()

    assert theirs.read_text() == "mine\n"
    assert (firing.delivered_at, firing.delivery_tries) == (None, 1)
