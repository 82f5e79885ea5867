"""Lives of machines as a simulation recorded them, span by span: what the journal is posted from."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from pipeline.domain.ids import BatchId, PackId
from pipeline.domain.lifecycle import IntervalKind
from scheduler.simulate.arrivals import Arrival
from scheduler.simulate.fleet import Fleet
from scheduler.simulate.record import PackRecord, Record

MICROSECONDS = 1_000_000
_DAY_US = 86_400 * MICROSECONDS
#: Of a machine's first minutes: until its worker runs, and until that has its model.
BOOT_SECONDS = 90
LOAD_SECONDS = 45
#: How long before it takes a machine its provider says so.
NOTICE_SECONDS = 120


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """What a batch had of a span."""

    #: None where it had ended before: nobody had the use of it.
    batch_id: BatchId | None
    weight_us: int
    rows: int = 0
    input_tokens: int = 0
    output_tokens: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """A time of a machine's life, counted from its start."""

    start_us: int
    stop_us: int
    kind: IntervalKind
    pack_id: PackId | None = None
    lease_token: int | None = None
    parts: tuple[Part, ...] = ()


@dataclass(slots=True, kw_only=True)
class Life:
    """One machine, from its launch until it was taken or the month was over."""

    pool: str
    worker: int
    #: Since the month began.
    started_us: int
    spans: list[Span] = field(default_factory=list)
    is_over: bool = False
    is_lost: bool = False

    @property
    def until_us(self) -> int:
        """Return the age that its spans reach."""
        return self.spans[-1].stop_us if self.spans else 0

    def day_of(self, span: Span) -> int:
        """Return the day of the month, from 0, in which a span began."""
        return (self.started_us + span.start_us) // _DAY_US

    def add(self, stop_us: int, kind: IntervalKind) -> None:
        """Let the next span reach an instant of the month, where there is one."""
        if stop_us - self.started_us > self.until_us:
            self.spans.append(Span(start_us=self.until_us, stop_us=stop_us - self.started_us, kind=kind))


def lives_of(
    record: Record, arrivals: Iterable[Arrival], fleet: Fleet, *, month_seconds: float, commit_seconds: float
) -> list[Life]:
    """Return the machines of every worker, pool by pool, each worker's in the order of their times."""
    books = _Books(record, arrivals, commit_seconds)
    packs: dict[tuple[str, int], list[PackRecord]] = {}
    for pack in record.packs:
        packs.setdefault((pack.pool, pack.worker), []).append(pack)
    found: list[Life] = []
    for pool in fleet.pools:
        for worker in range(pool.workers):
            gone = [each for each in pool.absences if each.worker == worker and each.from_seconds < month_seconds]
            ends = [*(each.from_seconds for each in gone[1:]), None]
            waiting = iter(packs.get((pool.name, worker), ()))
            following = next(waiting, None)
            for absence, end in zip(gone, ends, strict=True):
                its = []
                while following is not None and (end is None or following.from_seconds < end):
                    its.append(following)
                    following = next(waiting, None)
                if absence.to_seconds < month_seconds:
                    life = Life(
                        pool=pool.name,
                        worker=worker,
                        started_us=_us(absence.to_seconds) - _us(BOOT_SECONDS + LOAD_SECONDS),
                    )
                    _live(life, its, end, books, lease_seconds=fleet.lease_seconds)
                    found.append(life)
    return found


def _live(life: Life, packs: Sequence[PackRecord], end: float | None, books: _Books, *, lease_seconds: float) -> None:
    life.add(life.started_us + _us(BOOT_SECONDS), IntervalKind.BOOT)
    life.add(life.started_us + _us(BOOT_SECONDS + LOAD_SECONDS), IntervalKind.LOAD)
    for pack in packs:
        life.add(_us(pack.from_seconds), IntervalKind.IDLE)
        life.spans.extend(books.spans(pack, from_us=life.started_us, begin_us=life.until_us))
    if end is not None:
        life.is_over = True
        life.is_lost = bool(packs) and packs[-1].is_lost
        life.add(_us(end - NOTICE_SECONDS), IntervalKind.IDLE)
        life.add(_us(end), IntervalKind.DRAIN)
        if life.is_lost:
            # Its lease stood so long: nobody knew.
            life.add(_us(end + lease_seconds), IntervalKind.LOST)


class _Books:
    """What a pack's record says of each commit."""

    def __init__(self, record: Record, arrivals: Iterable[Arrival], commit_seconds: float) -> None:
        self._commit_us = _us(commit_seconds)
        self._arrivals = {each.batch_id: each for each in arrivals}
        self._expired = {each.batch_id: each.ended_at for each in record.batches if each.is_expired}
        self._attempts: dict[PackId, int] = {}

    def spans(self, pack: PackRecord, *, from_us: int, begin_us: int) -> Iterator[Span]:
        """Yield the spans of an attempt at a pack, a commit each.

        Batches follow one another, each for as long as it is charged for.
        """
        end_us = _us(pack.to_seconds) - from_us
        token = self._attempts[pack.pack_id] = self._attempts.get(pack.pack_id, 0) + 1
        if end_us <= begin_us:
            return
        if not pack.shares:
            yield Span(start_us=begin_us, stop_us=end_us, kind=IntervalKind.PREEMPTED)
            return
        commits = max(1, round((end_us - begin_us) / self._commit_us))
        cuts = [begin_us + (end_us - begin_us) * number // commits for number in range(commits + 1)]
        bounds, at = [begin_us], 0.0
        for _, _, seconds in pack.shares:
            at += seconds
            bounds.append(min(end_us, begin_us + _us(at)))
        bounds[-1] = end_us
        for start, stop in pairwise(cuts):
            parts = tuple(self._parts(pack, bounds, start, stop))
            is_wanted = any(part.batch_id is not None for part in parts)
            yield Span(
                start_us=start,
                stop_us=stop,
                kind=IntervalKind.WORK if is_wanted else IntervalKind.LATE,
                pack_id=pack.pack_id if is_wanted else None,
                lease_token=token if is_wanted else None,
                parts=parts if is_wanted else (),
            )

    def _parts(self, pack: PackRecord, bounds: Sequence[int], start: int, stop: int) -> Iterator[Part]:
        for (_, batch_id, _), rows, (low, high) in zip(pack.shares, pack.rows, pairwise(bounds), strict=True):
            begin, end = max(low, start), min(high, stop)
            if begin >= end:
                continue
            arrival = self._arrivals[batch_id]
            size, ratio = arrival.estimated, arrival.output_ratio
            before, after = rows * (begin - low) // (high - low), rows * (end - low) // (high - low)
            if (expired_at := self._expired.get(batch_id)) is not None and expired_at < pack.to_seconds:
                yield Part(batch_id=None, weight_us=end - begin)
            else:
                yield Part(
                    batch_id=batch_id,
                    weight_us=end - begin,
                    rows=after - before,
                    input_tokens=round((after - before) * size.input_tokens / size.rows),
                    output_tokens=round((after - before) * size.output_tokens * ratio / size.rows),
                )


def _us(seconds: float) -> int:
    return round(seconds * MICROSECONDS)
