"""Promised deadlines: the demand-bound test by itself, and kept by the whole policy on a virtual clock."""

from __future__ import annotations

from random import Random

import numpy as np
import pytest

from pipeline.domain.ids import BatchId, TenantId
from pipeline.domain.promises import Promise
from pipeline.domain.tiers import Tier
from pipeline.ports.cycle import WorkSize
from scheduler.deadlines import Book, Capacity
from scheduler.policy import Policy
from scheduler.simulate.arrivals import Arrival
from scheduler.simulate.fleet import Fleet, Pool, Speed, Trouble, random_absences
from scheduler.simulate.record import Record
from scheduler.simulate.simulation import Simulation

SECOND = 1_000_000
CAPACITY = Capacity(now_us=0, workers=2, pack_seconds=1.0, margin_seconds=3.0)


def book_of(*claims: tuple[float, float], asked: float | None = None, capacity: Capacity = CAPACITY) -> Book:
    """Return a book of claims (due, seconds), with a place without a claim for one that is due when `asked`."""
    places = sorted([(due, 1, seconds) for due, seconds in claims] + ([] if asked is None else [(asked, 0, 0.0)]))
    book = Book(np.array([round(due * SECOND) for due, _, _ in places], dtype=np.int64), capacity)
    book.enter_all(
        np.array([kind == 1 for _, kind, _ in places], dtype=bool), np.array([each for _, _, each in places])
    )
    return book


def place_of(*claims: tuple[float, float], asked: float) -> int:
    return sum(due < asked for due, _ in claims)


def test_slack_is_what_the_workers_have_until_then_over_what_is_due_until_then() -> None:
    book = book_of((10, 4), (20, 6), (20, 1), asked=15)

    assert book.slacks().tolist() == [2 * 5 - 4, 2 * 15 - 11, 2 * 15 - 11]


def test_those_due_by_the_last_short_slack_press() -> None:
    assert book_of((100, 1), (105, 197.5), (500, 1)).pressing(short_seconds=2.0).tolist() == [0, 1]
    assert book_of((100, 1)).pressing(short_seconds=2.0).tolist() == []


def test_the_earliest_deadline_is_one_that_can_be_promised_and_none_before_it_can() -> None:
    random = Random(1)
    for _ in range(3000):
        capacity = Capacity(
            now_us=0,
            workers=random.choice([0, 0.7, 1, 3]),
            pack_seconds=random.choice([0, 0.5, 2]),
            margin_seconds=1.0,
            workers_later=random.choice([2, 5]),
            later_seconds=random.choice([0, 3, 10]),
        )
        claims = [(random.randint(1, 40), 8 * random.random()) for _ in range(random.randint(0, 5))]
        seconds = 6 * random.random()

        at_us = book_of(*claims, capacity=capacity).earliest(seconds)

        assert at_us is not None
        if (book_of(*claims, capacity=capacity).slacks() >= 0).all():
            for us, is_promised in ((at_us, True), (at_us - 2, False)):
                book = book_of(*claims, asked=us / SECOND, capacity=capacity)
                assert book.can_promise(place_of(*claims, asked=us / SECOND), seconds) is is_promised


def test_a_claim_that_is_entered_counts_as_if_it_had_been_there_and_one_that_is_struck_as_if_not() -> None:
    random = Random(2)
    for _ in range(500):
        claims = [(float(random.randint(1, 40)), 8 * random.random()) for _ in range(random.randint(1, 6))]
        due, seconds = claims.pop(random.randrange(len(claims)))
        book = book_of(*claims, asked=due)
        before = book.slacks()

        book.enter(place_of(*claims, asked=due), seconds)
        assert sorted(book.slacks()) == pytest.approx(sorted(book_of(*claims, (due, seconds)).slacks()))

        book.strike(place_of(*claims, asked=due))
        assert book.slacks() == pytest.approx(before)


def test_without_workers_nothing_is_promised() -> None:
    nobody = Capacity(now_us=0, workers=0, pack_seconds=1.0)

    assert book_of(capacity=nobody).earliest(1.0) is None
    assert not book_of(asked=1e6, capacity=nobody).can_promise(0, 0.0)


# --- the whole policy ------------------------------------------------------------------------

HOURS = 0.75
WORKERS = 4
SPEED = Speed(input_tokens_per_second=8000, output_tokens_per_second=900)


def overload(seed: int) -> tuple[Arrival, ...]:
    """Return 2.2 times the work that four workers can do, due within ten minutes to an hour."""
    random = Random(seed)
    row = WorkSize(rows=1, input_tokens=300, output_tokens=100)
    arrivals: list[Arrival] = []
    at_seconds = 0.0
    while (at_seconds := at_seconds + random.expovariate(2.2 * WORKERS / (1000 * SPEED.seconds(row)))) < HOURS * 3600:
        rows = max(50, round(random.lognormvariate(6.6, 0.7)))
        arrivals.append(
            Arrival(
                batch_id=BatchId(f"batch_{len(arrivals):05d}"),
                tenant_id=TenantId(f"tnt_{len(arrivals) % 7}"),
                tier=random.choice(list(Tier)),
                model="model",
                at_seconds=at_seconds,
                window_seconds=random.uniform(600, 3600),
                estimated=WorkSize(rows=rows, input_tokens=rows * 300, output_tokens=rows * 100),
                template=1,
            )
        )
    return tuple(arrivals)


def ran(seed: int) -> Record:
    """Run the overload: costs are off by up to 30 %, and one worker of the four is gone a fifth of the time."""
    absences = random_absences(workers=1, share=0.2, mean_seconds=600, hours=HOURS, seed=seed)
    pool = Pool.of_model("cpu", workers=WORKERS, model="model", speed=SPEED, absences=absences)
    fleet = Fleet(pools=(pool,), trouble=Trouble(even=0.3), lease_seconds=30)
    return Simulation(overload(seed), fleet, Policy(pack_seconds_target=20), seed=seed).run()


def broken(record: Record) -> int:
    return sum(batch.is_promise_broken for batch in record.batches)


def test_no_promise_is_broken_though_costs_are_off_and_a_worker_is_lost() -> None:
    record = ran(seed=0)

    promised = {batch.batch_id for batch in record.batches if batch.promise is Promise.MADE}
    of_promised = sum(seconds for pack in record.packs for _, batch, seconds in pack.shares if batch in promised)
    assert broken(record) == 0
    # Not because next to nothing was promised, nor because there was time for everything.
    assert of_promised / (WORKERS * record.seconds) >= 0.6
    assert any(batch.is_expired for batch in record.batches)
