"""What must be true when everything is over, told apart by name."""

from __future__ import annotations

from collections.abc import Iterator
from math import ceil, log2

from pipeline.domain.lifecycle import AttemptOutcome, IntervalKind, PackState, WorkerState
from pipeline.domain.limits import PACK_FAILURES_BEFORE_BISECT
from pipeline.domain.money import metered_cost_micros
from tests.simulation.metering import OVERHEAD
from tests.simulation.records import Attempt, Shard, WorkerRecord, count
from tests.simulation.world import World

_FAILED = frozenset({AttemptOutcome.FAILED, AttemptOutcome.LEASE_LOST})

#: Kind of violation, and the particulars.
Finding = tuple[str, str]


def check(world: World) -> Iterator[Finding]:
    """Yield all that is wrong with the final state."""
    yield from _check_results(world)
    yield from _check_packs(world)
    yield from _check_attempts(world)
    yield from _check_verdicts(world)
    yield from _check_lives(world)
    yield from _check_accounts(world)


def _check_results(world: World) -> Iterator[Finding]:
    """Each row of a batch that was not withdrawn has one result, and its object is there."""
    store = world.store
    seen = dict.fromkeys(store.shards, 0)
    for part in store.parts.values():
        if world.objects.get(part.object_key) != part.sha256:
            yield "object_missing", f"{part.part_id} names {part.object_key}"
        if part.was_stale:
            yield "stale_part", f"{part.part_id} came from a lost lease"
        if part.was_sealed:
            yield "sealed_part", f"{part.part_id} came after {part.batch_id} was sealed"
        for shard_id, mask in part.rows.items():
            if seen[shard_id] & mask:
                yield "doubled_row", f"shard {shard_id} rows {seen[shard_id] & mask:b}"
            seen[shard_id] |= mask
    for shard in store.shards.values():
        missing = (1 << shard.rows_total) - 1 & ~seen[shard.shard_id]
        if missing and not shard.batch.is_withdrawn:
            yield "lost_row", f"shard {shard.shard_id} rows {missing:b}"
        if seen[shard.shard_id].bit_count() != shard.rows_succeeded + shard.rows_errored:
            yield "count", f"shard {shard.shard_id} counts {shard.rows_succeeded} + {shard.rows_errored}"


def _check_packs(world: World) -> Iterator[Finding]:
    for pack in world.store.packs.values():
        if pack.state is PackState.LEASED:
            yield "leaked_lease", f"{pack.pack_id} is still leased"
        elif not pack.state.is_terminal:
            yield "open_pack", f"{pack.pack_id} is {pack.state}"
        if pack.state is PackState.COMMITTED and world.store.rows_left(pack.rows):
            yield "lost_row", f"{pack.pack_id} is committed with rows left"


def _check_attempts(world: World) -> Iterator[Finding]:
    """Each attempt has a token of its own, and lost its lease only by a fault."""
    tokens: set[tuple[str, int]] = set()
    failed = dict.fromkeys(world.store.packs, 0)
    for attempt in world.store.attempts:
        key = (attempt.pack_id, attempt.lease_token)
        if key in tokens:
            yield "token_twice", f"{attempt.pack_id} token {attempt.lease_token}"
        tokens.add(key)
        failed[attempt.pack_id] += attempt.outcome in _FAILED
        if attempt.outcome is AttemptOutcome.LEASE_LOST and key not in world.faulted:
            yield "unprovoked", f"{attempt.pack_id} token {attempt.lease_token} lost without a fault"
    for pack in world.store.packs.values():
        if pack.failures > failed[pack.pack_id]:
            yield "failure_count", f"{pack.pack_id} has {pack.failures}, {failed[pack.pack_id]} attempts failed"


def _check_verdicts(world: World) -> Iterator[Finding]:
    """Only poison is convicted, after few attempts, except a row whose lone attempts died of faults."""
    store, poison = world.store, world.plan.poison
    errored = {
        (shard_id, 1 << position)
        for part in store.parts.values()
        if part.rows_errored
        for shard_id, mask in part.rows.items()
        for position in range(mask.bit_length())
        if mask >> position & 1
    }
    for shard_id, row in errored:
        if not poison.get(shard_id, 0) & row:
            deaths = sum(
                attempt.asked == {shard_id: row}
                and attempt.outcome in _FAILED
                and (attempt.pack_id, attempt.lease_token) in world.faulted
                for attempt in store.attempts
            )
            if deaths < PACK_FAILURES_BEFORE_BISECT:
                yield "innocent", f"shard {shard_id} row {row:b} errored after {deaths} failures alone"
            else:
                world.note("innocent_by_faults", shard_id)
    for shard_id, mask in poison.items():
        shard = store.shards[shard_id]
        if mask & shard.done and any((shard_id, 1 << n) not in errored for n in _bits(mask & shard.done)):
            yield "poison_passed", f"shard {shard_id} poison {mask:b}"
        if world.plan.is_calm:
            yield from _check_attempts_per_poison(world, shard, mask)


def _check_attempts_per_poison(world: World, shard: Shard, mask: int) -> Iterator[Finding]:
    for position in _bits(mask):
        failed = [
            attempt
            for attempt in world.store.attempts
            if attempt.outcome in _FAILED and attempt.asked.get(shard.shard_id, 0) >> position & 1
        ]
        rows = max((_rows_of(world, attempt) for attempt in failed), default=1)
        if len(failed) > ceil(log2(rows)) + 3:
            yield "slow_conviction", f"shard {shard.shard_id} row {position}: {len(failed)} attempts of {rows} rows"


def _rows_of(world: World, attempt: Attempt) -> int:
    return count(world.store.packs[attempt.pack_id].rows)


def _bits(mask: int) -> list[int]:
    return [position for position in range(mask.bit_length()) if mask >> position & 1]


def _check_lives(world: World) -> Iterator[Finding]:
    """Each worker's life is metered without a gap, to the last uptime it told, and priced exactly."""
    charged = dict.fromkeys(world.store.workers, 0)
    for (worker_id, _, _, _), micros in world.store.ledger.items():
        charged[worker_id] += micros
    for worker in world.store.workers.values():
        price = metered_cost_micros(worker.rate_micros_per_hour, 0, worker.metered_until_us)
        if charged[worker.worker_id] != price:
            yield "ledger", f"{worker.worker_id} charged {charged[worker.worker_id]}, life costs {price}"
        yield from _check_life(worker)


def _check_life(worker: WorkerRecord) -> Iterator[Finding]:
    stop_us = 0
    for span in worker.spans:
        if span.start_us != stop_us:
            yield "span_gap", f"{worker.worker_id}: {span.kind} from {span.start_us} after {stop_us}"
        stop_us = span.stop_us
    if stop_us != worker.metered_until_us or stop_us < worker.uptime_us:
        yield "tail", f"{worker.worker_id} lived {worker.uptime_us}, metered {stop_us}"
    if not worker.state.is_terminal:
        yield "worker_left", f"{worker.worker_id} is {worker.state}"
    if worker.was_lost and worker.state is not WorkerState.LOST:
        yield "resurrected", f"{worker.worker_id} was lost and is {worker.state}"


def _check_accounts(world: World) -> Iterator[Finding]:
    """A batch pays only for spans whose parts it got; the rest is overhead, under its own kind."""
    store = world.store
    payers = {(part.worker_id, part.start_us, str(part.batch_id)) for part in store.parts.values()}
    kinds = {(worker.worker_id, span.start_us): span.kind for worker in store.workers.values() for span in worker.spans}
    for worker_id, start_us, account, _ in store.ledger:
        kind = kinds[worker_id, start_us]
        if account.startswith(OVERHEAD):
            if account != OVERHEAD + kind or kind is IntervalKind.WORK:
                yield "account", f"{worker_id} at {start_us}: {kind} booked as {account}"
        elif kind is not IntervalKind.WORK or (worker_id, start_us, account) not in payers:
            yield "charged_for_nothing", f"{account} pays {worker_id} from {start_us}"
