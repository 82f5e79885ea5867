"""Draws one operation after another, does it on both sides, and compares."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, TypeVar

from pipeline.domain.errors import LeaseLostError
from pipeline.domain.ids import PackId, WorkerId
from pipeline.domain.lifecycle import AttemptOutcome, IntervalKind, WorkerState
from pipeline.ports.packs import Interval, PackLease, WorkCommit, WorkerRegistration
from tests.simulation.drafts import draft, lease_seen, pieces, work_commit
from tests.simulation.model_world import ModelWorld
from tests.simulation.worlds import Observation, Setup, World

_T = TypeVar("_T")
_POOLS: Final = ("pool", "other_pool")
_MODELS: Final = ("model", "other_model")


class DisagreementError(AssertionError):
    """The two implementations differ; the message has the seed and the operations up to there."""


@dataclass(slots=True)
class _Held:
    """A lease as each side gave it, and what was done under it."""

    worker_id: WorkerId
    leases: tuple[PackLease, PackLease]
    #: (batch name, shard number, row) still to commit, in order.
    rows: list[tuple[str, int, int]]
    last: tuple[WorkCommit, WorkCommit] | None = None


class Driver:
    """Draws operations and compares what comes back."""

    def __init__(self, seed: int, rng: random.Random, setup: Setup, model: ModelWorld, other: World) -> None:
        self._seed = seed
        self._rng = rng
        self._setup = setup
        self._model = model
        self._sides: tuple[World, World] = (model, other)
        self._log: list[str] = []
        self._workers: list[WorkerId] = []
        self._metered: dict[WorkerId, int] = {}
        self._held: list[_Held] = []
        self._ids = 0

    def run(self, operations: int) -> None:
        self._register()
        self._dispatch()
        draws: dict[Callable[[], None], int] = {
            self._lease: 5, self._commit: 8, self._replay: 2, self._double: 1, self._gap: 1, self._meter: 2,
            self._renew: 2, self._finish: 5, self._expire: 3, self._silence: 1, self._withdraw: 1,
            self._convict: 2, self._register: 1, self._enter: 1,
        }  # fmt: skip
        for draw in self._rng.choices(list(draws), list(draws.values()), k=operations):
            draw()

    # --- comparing -----------------------------------------------------------------------------

    def _both(self, name: str, call: Callable[[World, int], _T]) -> tuple[_T | None, _T | None]:
        """Do it on both sides, the other one first, and compare how it ended and what it left."""
        self._log.append(name)
        other, other_ended = _outcome(call, self._sides[1], 1)
        model, model_ended = _outcome(call, self._sides[0], 0)
        self._compare("ended", model_ended, other_ended)
        seen = self._sides[0].observe(), self._sides[1].observe()
        for part in Observation.__slots__:
            self._compare(part, getattr(seen[0], part), getattr(seen[1], part))
        return model, other

    def _compare(self, what: str, model: object, other: object) -> None:
        if model != other:
            steps = "\n  ".join(self._log)
            raise DisagreementError(f"seed {self._seed}, {what}:\n model {model}\n other {other}\n after\n  {steps}")

    # --- operations ----------------------------------------------------------------------------

    def _register(self) -> None:
        self._ids += 1
        worker_id = WorkerId(f"wrk_{self._seed}_{self._ids}")
        registration = WorkerRegistration(
            worker_id=worker_id, pool=_POOLS[0], market="spot", host="host", pid=1, variants=dict.fromkeys(_MODELS, ""),
            rate_micros_per_hour=self._rng.choice((333_333_333, 2_500_000_007)), currency="USD",
        )  # fmt: skip
        for _ in range(2):
            self._both(f"register {worker_id}", lambda world, _: world.workers.register(registration))
        self._both(f"ready {worker_id}", lambda world, _: world.workers.enter(worker_id, WorkerState.READY))
        self._workers.append(worker_id)
        self._metered[worker_id] = 0

    def _dispatch(self) -> None:
        rows = [
            (name, shard_no, row)
            for name, shards in self._setup.batches.items()
            for shard_no, total in enumerate(shards)
            for row in range(total)
        ]
        while rows:
            taken = rows[: self._rng.randrange(1, 9)]
            del rows[: len(taken)]
            self._ids += 1
            pool = self._rng.choice(_POOLS + _POOLS[:1] * 3)
            model = self._rng.choice(_MODELS + _MODELS[:1] * 3)
            ordinal = self._ids * 7 % 11 + self._ids / 100
            pack_id = PackId(f"pack_{self._seed}_{self._ids:02d}")
            self._both(
                f"dispatch {pack_id} {taken}",
                lambda world, _: world.dispatch([draft(world, pack_id, pool, model, ordinal, taken)]),  # noqa: B023 -- called at once
            )

    def _lease(self) -> None:
        worker_id = self._rng.choice(self._workers)
        pool = self._rng.choice(_POOLS)
        variants = self._rng.choice((_MODELS, _MODELS[:1], ()))

        def lease(world: World, side: int) -> PackLease | None:
            try:
                found = world.packs.lease(worker_id, pool=pool, variants=variants)
            except LeaseLostError:
                found = None
            if side == 1:
                self._model.prefer(None if found is None else pieces(world, found))
            return found

        model, other = self._both(f"lease {worker_id} {pool} {variants}", lease)
        self._compare(
            "leased", model and lease_seen(self._sides[0], model), other and lease_seen(self._sides[1], other)
        )
        if model is not None and other is not None:
            rows = [
                (name, shard_no, row)
                for name, shard_no, ranges in pieces(self._sides[0], model)
                for start, stop in ranges
                for row in range(start, stop)
            ]
            self._held.append(_Held(worker_id, (model, other), rows))

    def _pick(self) -> _Held | None:
        return self._rng.choice(self._held[-4:]) if self._held else None

    def _commit(self) -> None:
        held = self._pick()
        if held is None or not held.rows:
            return
        taken = held.rows[: self._rng.randrange(1, 4)]
        span = self._span(held.worker_id, IntervalKind.WORK)
        commits = self._draft_commits(held, taken, span)
        if self._try_commit("commit", held, commits):
            del held.rows[: len(taken)]
            held.last = commits
            self._metered[held.worker_id] = span.stop_us

    def _replay(self) -> None:
        held = self._pick()
        if held is not None and held.last is not None:
            self._try_commit("replay", held, held.last)

    def _double(self) -> None:
        """Commit rows again under new part ids."""
        held = self._pick()
        if held is None or held.last is None:
            return
        names = [
            (world_name, shard_no, ranges[0][0])
            for world_name, shard_no, ranges in pieces(self._sides[0], held.leases[0])
        ][:1]
        self._try_commit(
            "double", held, self._draft_commits(held, names, self._span(held.worker_id, IntervalKind.WORK))
        )

    def _gap(self) -> None:
        """Commit with a span that does not follow the last one."""
        held = self._pick()
        if held is None or not held.rows:
            return
        start_us = self._metered[held.worker_id] + 7
        span = Interval(kind=IntervalKind.WORK, start_us=start_us, stop_us=start_us + 9)
        self._try_commit("gap", held, self._draft_commits(held, held.rows[:1], span))

    def _try_commit(self, name: str, held: _Held, commits: tuple[WorkCommit, WorkCommit]) -> bool:
        def commit(world: World, side: int) -> bool:
            world.packs.commit(held.worker_id, commits[side])
            return True

        shown = f"{name} {held.worker_id} {commits[0].pack_id} {commits[0].lease_token} {commits[0].interval}"
        return bool(self._both(shown, commit)[0])

    def _meter(self) -> None:
        worker_id = self._rng.choice(self._workers)
        span = self._span(worker_id, self._rng.choice((IntervalKind.IDLE, IntervalKind.LATE, IntervalKind.LATE)))

        def meter(world: World, _: int) -> bool:
            world.workers.meter(worker_id, span)
            return True

        for _ in range(2):
            if self._both(f"meter {worker_id} {span}", meter)[0]:
                self._metered[worker_id] = span.stop_us

    def _span(self, worker_id: WorkerId, kind: IntervalKind) -> Interval:
        start_us = self._metered[worker_id]
        return Interval(kind=kind, start_us=start_us, stop_us=start_us + self._rng.randrange(1, 5_000))

    def _renew(self) -> None:
        held = self._pick()
        if held is None:
            return
        uptime_us = self._metered[held.worker_id] + self._rng.randrange(3_000)

        def renew(world: World, side: int) -> tuple[bool, list[str], bool]:
            lease = held.leases[side]
            renewal = world.workers.renew(held.worker_id, {lease.pack_id: lease.lease_token}, uptime_us=uptime_us)
            names = {name for name, _, _ in pieces(world, lease)}
            withdrawn = sorted(names & {world.batch_name(batch_id) for batch_id in renewal.withdrawn})
            # Of a lease that is gone nobody need know what was withdrawn.
            return bool(renewal.lost), [] if renewal.lost else withdrawn, renewal.must_stop

        model, other = self._both(f"renew {held.worker_id} {uptime_us}", renew)
        self._compare("renewal", model, other)

    def _finish(self) -> None:
        held = self._pick()
        if held is None:
            return
        # Mostly failures, or nothing would ever be bisected.
        outcome = self._rng.choice((*AttemptOutcome, *[AttemptOutcome.FAILED] * 5))
        model, other = self._both(
            f"finish {held.leases[0].pack_id} {held.leases[0].lease_token} {outcome}",
            lambda world, side: world.packs.finish(held.leases[side].pack_id, held.leases[side].lease_token, outcome),
        )
        self._compare("verdict", model, other)

    def _expire(self) -> None:
        held = self._pick()
        if held is not None:
            token = held.leases[0].lease_token
            if any(seen[3] == token and seen[1] == "leased" for seen in self._sides[0].observe().packs):
                self._both(
                    f"expire {held.leases[0].pack_id}", lambda world, side: world.expire(held.leases[side].pack_id)
                )
        self._both("rescue", lambda world, _: world.rescue())

    def _silence(self) -> None:
        worker_id = self._rng.choice(self._workers)
        self._both(f"silence {worker_id}", lambda world, _: world.silence(worker_id))
        self._both("rescue", lambda world, _: world.rescue())

    def _withdraw(self) -> None:
        if self._rng.random() < 0.4:
            name = self._rng.choice(list(self._setup.batches))
            self._both(f"withdraw {name}", lambda world, _: world.withdraw(world.batch_id(name)))

    def _convict(self) -> None:
        self._both("convict", lambda world, _: world.convict())

    def _enter(self) -> None:
        worker_id = self._rng.choice(self._workers)
        state = self._rng.choice((WorkerState.READY, WorkerState.LOADING))
        self._both(f"enter {worker_id} {state}", lambda world, _: world.workers.enter(worker_id, state))

    def _draft_commits(
        self, held: _Held, rows: Sequence[tuple[str, int, int]], span: Interval
    ) -> tuple[WorkCommit, WorkCommit]:
        self._ids += 1
        model, other = (
            work_commit(world, lease, rows, span, f"{self._seed}_{self._ids}")
            for world, lease in zip(self._sides, held.leases, strict=True)
        )
        return model, other


def _outcome(call: Callable[[World, int], _T], world: World, side: int) -> tuple[_T | None, str]:
    try:
        return call(world, side), "done"
    except LeaseLostError:
        return None, "lease_lost"
    except Exception:  # noqa: BLE001 -- which other exception refuses is the implementation's own affair
        return None, "refused"
