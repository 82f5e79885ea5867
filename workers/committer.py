"""The committer: writes parts and commits them, in the order the runner handed them over.

One thread and one queue, so that a worker's spans reach the ledger in order while the engine goes on.
"""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Final

from pipeline.domain.errors import LeaseLostError, NightrateError
from pipeline.domain.ids import BatchId, PackId, TenantId, WorkerId, new_part_id
from pipeline.domain.lifecycle import AttemptOutcome, IntervalKind
from pipeline.domain.limits import PART_BYTES_MAX
from pipeline.domain.objects.keys import part_key
from pipeline.domain.objects.part import PartRow, encode_answer, encode_part
from pipeline.domain.ranges import ranges_of
from pipeline.domain.shadow import is_chosen
from pipeline.domain.sketches import LengthSketch
from pipeline.ports.engine import EngineResult
from pipeline.ports.meters import AttemptMeters
from pipeline.ports.objects import ObjectStore
from pipeline.ports.packs import (
    Interval,
    LeasedSlice,
    PackLease,
    PackStore,
    PartDraft,
    ShadowRow,
    ShardRows,
    WorkCommit,
    WorkerStore,
)

_LOG = logging.getLogger(__name__)

_OK: Final = 200
#: Characters kept of an error; a library's may be pages long.
_ERROR_CHARS_MAX: Final = 2000


@dataclass(frozen=True, slots=True)
class FinishedRow:
    """A row with its result, and where it belongs."""

    part: LeasedSlice
    position: int
    line: int
    result: EngineResult


@dataclass(frozen=True, slots=True)
class Work:
    """Rows to commit and the span they took."""

    lease: PackLease
    rows: list[FinishedRow]
    interval: Interval


@dataclass(frozen=True, slots=True)
class Overhead:
    """A span that no batch pays for."""

    interval: Interval


@dataclass(frozen=True, slots=True)
class Finish:
    """The end of an attempt."""

    lease: PackLease
    outcome: AttemptOutcome
    meters: AttemptMeters
    error: str | None = None
    #: The object store was out of reach before the pack's rows were read.
    is_store_failing: bool = False


Job = Work | Overhead | Finish


@dataclass(slots=True)
class _Attempt:
    parts: int = 0
    #: Set when nothing more of this attempt can be committed, with the cause.
    outcome: AttemptOutcome | None = None
    error: str | None = None


class _UnspeakableError(Exception):
    """A result cannot be written as JSON."""


class Committer:
    """A bounded queue of jobs and the thread that does them."""

    def __init__(
        self,
        worker_id: WorkerId,
        packs: PackStore,
        workers: WorkerStore,
        objects: ObjectStore,
        *,
        on_ended: Callable[[PackLease, bool], None],
        gate_keys: Callable[[], Mapping[str, str]] = dict,
        shadow_share: float = 0.0,
    ) -> None:
        """Call `on_ended` when an attempt is over, however it ended, and say whether the object store was at fault.

        Of the answers that a variant of `gate_keys` gave, have `shadow_share` judged by its reference.
        """
        self._worker_id = worker_id
        self._packs = packs
        self._workers = workers
        self._objects = objects
        self._on_ended = on_ended
        self._gate_keys = gate_keys
        self._shadow_share = shadow_share
        self._attempts: dict[tuple[PackId, int], _Attempt] = {}
        # Bounded: a slow store slows the engine down instead of filling the memory.
        self._queue: queue.Queue[Job | None] = queue.Queue(maxsize=4)
        self._thread = threading.Thread(target=self._run, name="committer", daemon=True)
        #: Set when the books could not be kept; the worker must end and be declared lost.
        self.failure: BaseException | None = None

    def start(self) -> None:
        """Start working the queue off."""
        self._thread.start()

    def hand_over(self, job: Job) -> None:
        """Queue a job; blocks while the queue is full."""
        while self.failure is None:
            try:
                self._queue.put(job, timeout=1.0)
            except queue.Full:
                continue
            return

    def has_given_up(self, lease: PackLease) -> bool:
        """Say whether further rows of this attempt would be computed for nothing."""
        attempt = self._attempts.get(_key(lease))
        return attempt is not None and attempt.outcome is not None

    def close(self) -> None:
        """Return when every job handed over is done, or the committer failed."""
        while self.failure is None and self._thread.is_alive():
            try:
                self._queue.put(None, timeout=1.0)
            except queue.Full:
                continue
            self._thread.join()

    def _run(self) -> None:
        try:
            while (job := self._queue.get()) is not None:
                self._do(job)
        except BaseException as error:  # noqa: BLE001 -- the runner's thread raises it again
            _LOG.exception("committer_failed")
            self.failure = error

    def _do(self, job: Job) -> None:
        if isinstance(job, Overhead):
            self._workers.meter(self._worker_id, job.interval)
        elif isinstance(job, Finish):
            self._finish(job)
        else:
            self._commit(job)

    def _commit(self, work: Work) -> None:
        attempt = self._attempts.setdefault(_key(work.lease), _Attempt())
        if attempt.outcome is None:
            self._try_commit(work, attempt)
        if attempt.outcome is not None:
            # A span that nobody will pay for.
            self._workers.meter(self._worker_id, replace(work.interval, kind=IntervalKind.LATE))

    def _try_commit(self, work: Work, attempt: _Attempt) -> None:
        noted = {"pack_id": work.lease.pack_id}
        try:
            commit = WorkCommit(
                pack_id=work.lease.pack_id,
                lease_token=work.lease.lease_token,
                parts=self._write_parts(work, attempt),
                interval=work.interval,
                gate_key=self._gate_key(work.lease),
            )
            self._packs.commit(self._worker_id, commit)
        except LeaseLostError as error:
            _LOG.warning("commit_refused", extra=noted)
            attempt.outcome, attempt.error = AttemptOutcome.LEASE_LOST, str(error)
        except _UnspeakableError as error:
            _LOG.exception("result_not_encoded", extra=noted)
            attempt.outcome, attempt.error = AttemptOutcome.FAILED, str(error)
        except NightrateError as error:
            # The object store refuses: nothing is committed without its part; hand the rows back.
            _LOG.warning("part_not_written", extra={**noted, "reason": error.code})
            attempt.outcome, attempt.error = AttemptOutcome.PREEMPTED, f"{error.code}: {error}"

    def _write_parts(self, work: Work, attempt: _Attempt) -> tuple[PartDraft, ...]:
        by_batch: dict[tuple[TenantId, BatchId], list[FinishedRow]] = {}
        for row in work.rows:
            by_batch.setdefault((row.part.tenant_id, row.part.batch_id), []).append(row)
        drafts = []
        for (tenant_id, batch_id), rows in by_batch.items():
            lines = _encode(batch_id, rows)
            for start, stop in _cuts(lines):
                key = part_key(tenant_id, batch_id, work.lease.pack_id, work.lease.lease_token, attempt.parts)
                attempt.parts += 1
                part = self._write_part(key, batch_id, rows[start:stop], lines[start:stop])
                chosen = self._shadow_rows(work.lease, batch_id, rows[start:stop])
                drafts.append(replace(part, shadow_rows=chosen))
        return tuple(drafts)

    def _gate_key(self, lease: PackLease) -> str:
        """Return the gate key of what ran; empty for a reference."""
        return self._gate_keys().get(lease.variant, "")

    def _shadow_rows(self, lease: PackLease, batch_id: BatchId, rows: list[FinishedRow]) -> tuple[ShadowRow, ...]:
        """Return which rows of a part the reference is to judge: none of its own, nor of a variant just removed."""
        if not self._gate_key(lease):
            return ()
        return tuple(
            ShadowRow(shard_id=row.part.shard_id, position=row.position, line_no=line_no)
            for line_no, row in enumerate(rows)
            if row.result.status_code == _OK
            and is_chosen(batch_id, row.part.shard_no, row.position, self._shadow_share)
        )

    def _write_part(self, key: str, batch_id: BatchId, rows: list[FinishedRow], lines: list[bytes]) -> PartDraft:
        heads = [PartRow(row.part.shard_no, row.position, row.result.status_code == _OK) for row in rows]
        stored = self._objects.put(key, encode_part(heads, lines))
        return PartDraft(
            part_id=new_part_id(),
            batch_id=batch_id,
            object_key=key,
            sha256=stored.sha256,
            size_bytes=stored.size_bytes,
            shards=_shard_rows(rows),
            input_tokens=sum(row.result.input_tokens for row in rows),
            output_tokens=sum(row.result.output_tokens for row in rows),
        )

    def _finish(self, finish: Finish) -> None:
        attempt = self._attempts.pop(_key(finish.lease), _Attempt())
        outcome, error = finish.outcome, finish.error
        if attempt.outcome is not None:
            outcome, error = attempt.outcome, attempt.error
        try:
            self._end(finish, outcome, _tellable(error))
        finally:
            self._on_ended(finish.lease, attempt.outcome is AttemptOutcome.PREEMPTED or finish.is_store_failing)
        _log(finish, outcome)

    def _end(self, finish: Finish, outcome: AttemptOutcome, error: str | None) -> None:
        pack_id, lease_token = _key(finish.lease)
        try:
            if outcome is not AttemptOutcome.LEASE_LOST:
                self._packs.finish(pack_id, lease_token, outcome, error, finish.meters)
                return
        except LeaseLostError:
            _LOG.warning("finish_refused", extra={"pack_id": pack_id})
        # Who lost a lease has no say any more, but did use what it used.
        self._packs.meter(pack_id, lease_token, finish.meters)


def _key(lease: PackLease) -> tuple[PackId, int]:
    return lease.pack_id, lease.lease_token


def _log(finish: Finish, outcome: AttemptOutcome) -> None:
    identity = finish.meters.identity
    figures = asdict(replace(finish.meters, identity=None))
    known = {name: figure for name, figure in figures.items() if figure is not None}
    named = {
        "pack_id": finish.lease.pack_id,
        "lease_token": finish.lease.lease_token,
        "model": finish.lease.model,
        "outcome": outcome,
        "fingerprint": identity and identity.fingerprint,
    }
    _LOG.info("pack_metered", extra=named | known)


def _tellable(error: str | None) -> str | None:
    """Return what Postgres can store of an error that may be anything."""
    if error is None:
        return None
    return error[:_ERROR_CHARS_MAX].replace("\0", "\ufffd").encode(errors="replace").decode()


def _encode(batch_id: BatchId, rows: list[FinishedRow]) -> list[bytes]:
    suffix = batch_id.removeprefix("batch_")
    try:
        return [encode_answer(row.result.status_code, f"req_{suffix}_{row.line}", row.result.body) for row in rows]
    except TypeError as error:
        raise _UnspeakableError(f"a result is not JSON: {error}") from error


def _cuts(lines: list[bytes]) -> Iterator[tuple[int, int]]:
    """Cut lines into half-open ranges of `PART_BYTES_MAX` at most, each at least one line."""
    start = size_bytes = 0
    for index, line in enumerate(lines):
        if index > start and size_bytes + len(line) > PART_BYTES_MAX:
            yield start, index
            start, size_bytes = index, 0
        size_bytes += len(line) + 1
    yield start, len(lines)


def _shard_rows(rows: list[FinishedRow]) -> tuple[ShardRows, ...]:
    by_shard: dict[int, list[FinishedRow]] = {}
    for row in rows:
        by_shard.setdefault(row.part.shard_id, []).append(row)
    found = []
    for shard_id, members in by_shard.items():
        answers = [row.result for row in members if row.result.status_code == _OK]
        found.append(
            ShardRows(
                shard_id=shard_id,
                ranges=ranges_of(row.position for row in members),
                rows_succeeded=len(answers),
                rows_errored=len(members) - len(answers),
                input_tokens=sum(row.result.input_tokens for row in members),
                output_tokens=sum(row.result.output_tokens for row in members),
                output_lengths=LengthSketch.of(answer.output_tokens for answer in answers).as_plain(),
            )
        )
    return tuple(found)
