"""The worker's shop floor: batches with real shards, scripted engines, workers in threads."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson

from infra.clock import SystemClock
from pipeline.domain.endpoints import Endpoint
from pipeline.domain.errors import StoreUnavailableError
from pipeline.domain.ids import DEFAULT_TENANT, BatchId, PackId, WorkerId, new_pack_id, new_worker_id
from pipeline.domain.models import EngineKind, ModelSpec, split_variant
from pipeline.domain.objects.keys import shard_key
from pipeline.domain.objects.part import decode_header
from pipeline.domain.objects.shard import encode_row
from pipeline.domain.tiers import Tier
from pipeline.ports.batches import Admitted, ShardDraft
from pipeline.ports.cycle import CyclePlan, PackDraft, SliceDraft
from pipeline.ports.engine import Engine, EngineRequest, EngineResult
from pipeline.ports.meters import EngineIdentity, EngineMeters
from pipeline.ports.objects import StoredObject
from pipeline.ports.packs import PackStore, WorkerRegistration
from scheduler.convictor import Convictor
from storage.database import Database
from storage.objects.local import LocalStore
from storage.packs import PackRepository
from storage.workers import WorkerRepository
from tests.services import eventually
from tests.storage.world import LEASE, World
from workers.catalogue import Catalogue
from workers.garage import Garage
from workers.telemetry.process import OwnProcess
from workers.telemetry.telemetry import Telemetry
from workers.worker import Shadow, Worker, WorkerSettings

#: Longer than any of these tests: its heart beats when the test says so.
QUIET = WorkerSettings(lease_seconds=90.0, poll_seconds=0.05, commit_seconds=0.05, drain_seconds=0.0)


class ScriptedEngine:
    """Answers `n` with `n`, the last one first; raises when it meets a poison; waits at its gate."""

    name = "scripted"
    identity = EngineIdentity(engine="scripted", version="1", precision="none", revision="0123456789abcdef")
    endpoints = frozenset(Endpoint)

    def __init__(self, model: str = "echo", *, capacity: int = 64, poison: frozenset[int] = frozenset()) -> None:
        self.model = model
        self.capacity = capacity
        self.poison = poison
        #: Rows that may come back before the gate is shut.
        self.gate = threading.Semaphore(1_000_000)
        self.rows: list[EngineRequest] = []
        self.started: list[int] = []
        self.aborted: list[int] = []
        self.steps = self.busy = 0
        self.answer: Callable[[EngineRequest], Mapping[str, Any]] = lambda row: {"n": row.body["n"]}

    def shut(self, *, after: int = 0) -> None:
        self.gate = threading.Semaphore(after)

    def open(self) -> None:
        self.gate.release(1_000_000)

    def room(self) -> int:
        return self.capacity - len(self.rows)

    def add(self, requests: Sequence[EngineRequest]) -> None:
        self.rows += requests
        self.started += [row.body["n"] for row in requests]

    def step(self) -> Sequence[EngineResult]:
        if any(row.body["n"] in self.poison for row in self.rows):
            raise RuntimeError("poison\0ed")
        self.steps += 1
        self.busy += len(self.rows)
        results = []
        while self.rows and self.gate.acquire(timeout=0.01):
            row = self.rows.pop()
            results.append(EngineResult(row.key, 200, self.answer(row), 1, 2))
        return results

    def in_flight(self) -> int:
        return len(self.rows)

    def meters(self) -> EngineMeters:
        return EngineMeters(engine_steps=self.steps, slot_steps_busy=self.busy, slot_steps=self.steps * self.capacity)

    def abort(self, keys: Sequence[int]) -> None:
        self.aborted += keys
        self.rows = [row for row in self.rows if row.key not in keys]

    def close(self) -> None:
        self.rows.clear()


def serving(*models: str) -> Catalogue:
    """Return a catalogue of these variants, read as a worker reads it when it registers; references have no gate key."""
    named = [split_variant(model) for model in models]
    catalogue = Catalogue(
        lambda: [ModelSpec(name=name, label=label, source="", engine=EngineKind.ECHO) for name, label in named],
        lambda spec: "" if spec.is_reference else "key-1",
        now_seconds=lambda: 0.0,
        refresh_seconds=1.0,
    )
    catalogue.served()
    return catalogue


class RefusingStore(LocalStore):
    """Refuses the first `refusals` puts of parts."""

    refusals = 0

    def put(self, key: str, content: bytes | memoryview | Path) -> StoredObject:
        if "/parts/" in key and self.refusals:
            self.refusals -= 1
            raise StoreUnavailableError("the store is being moved")
        return super().put(key, content)


@dataclass(slots=True)
class Running:
    """A worker and its thread."""

    worker_id: WorkerId
    worker: Worker
    must_stop: threading.Event
    thread: threading.Thread
    errors: list[BaseException] = field(default_factory=list)

    def beat(self) -> None:
        self.worker._heart.beat()

    def stop(self) -> None:
        self.must_stop.set()
        self.join()

    def join(self) -> None:
        self.thread.join(timeout=30)
        assert not self.thread.is_alive(), "the worker hangs"


class Floor:
    """A world with shards that can be read."""

    def __init__(self, world: World, objects: RefusingStore) -> None:
        self.world = world
        self.objects = objects
        self.convictor = Convictor(world.packs, objects)

    def admit(
        self,
        *shard_rows: int,
        model: str = "echo",
        first: int = 0,
        is_stored: bool = True,
        more: Callable[[int], Mapping[str, object]] = lambda _n: {},
    ) -> BatchId:
        """Admit a batch whose rows ask for `first`, `first + 1`, …, each with what is in `more`, and write its shards."""
        claim = self.world.submit()
        shards = []
        for number, rows in enumerate(shard_rows):
            lines = [
                encode_row(n + 1, orjson.dumps({"model": model, "n": n, **more(n)})) for n in range(first, first + rows)
            ]
            first += rows
            key = shard_key(DEFAULT_TENANT, claim.batch_id, 1, number)
            stored = self.objects.put(key, b"".join(lines))
            if not is_stored:
                self.objects.delete(key)
            shards.append(
                ShardDraft(
                    shard_no=number,
                    model=model,
                    object_key=key,
                    sha256=stored.sha256,
                    size_bytes=stored.size_bytes,
                    rows=rows,
                    input_tokens=rows,
                    output_tokens=rows,
                )
            )
        admitted = Admitted(
            rows_total=sum(shard_rows),
            rows_duplicate=0,
            rows_refused=0,
            shards=tuple(shards),
            rosters=(),
            refusals=None,
        )
        self.world.batches.admit(claim, admitted)
        return claim.batch_id

    def dispatch(self, *slices: tuple[BatchId, int, int, int], model: str = "echo", ordinal: float = 0.0) -> PackId:
        """Dispatch one pack of (batch, shard number, start, stop) slices, to a model or to a variant of it."""
        pack = PackDraft(
            pack_id=new_pack_id(),
            pool="local",
            model=split_variant(model)[0],
            variant=model,
            endpoint=Endpoint.CHAT_COMPLETIONS,
            tier=Tier.STANDARD,
            ordinal=ordinal,
            predicted_seconds=1.0,
            slices=tuple(
                SliceDraft(batch_id=batch, shard_id=self.world.shard_ids(batch)[number], row_start=start, row_stop=stop)
                for batch, number, start, stop in slices
            ),
        )
        self.world.cycles.dispatch(self.world.leadership.epoch, CyclePlan(packs=(pack,), standings=()))
        return pack.pack_id

    def batch(self, rows: int, *, model: str = "echo", first: int = 0, ordinal: float = 0.0) -> tuple[BatchId, PackId]:
        """Admit a batch of one shard and dispatch it in one pack."""
        batch = self.admit(rows, model=model, first=first)
        return batch, self.dispatch((batch, 0, 0, rows), model=model, ordinal=ordinal)

    @contextmanager
    def working(
        self,
        *engines: ScriptedEngine,
        load: Callable[[str], Engine] | None = None,
        models: tuple[str, ...] | None = None,
        settings: WorkerSettings = QUIET,
        around: Callable[[PackStore], PackStore] = lambda packs: packs,
        telemetry: Telemetry | None = None,
        judging: Callable[[Database], Shadow] | None = None,
        was_interrupted: Callable[[], bool] = lambda: False,
    ) -> Iterator[Running]:
        """Run a worker with these engines until the block ends."""
        by_model: dict[str, Engine] = {engine.model: engine for engine in engines}
        served = models or tuple(by_model)
        catalogue = serving(*served)
        database = Database(self.world.database.url, away_seconds_max=5.0)
        store = WorkerRepository(database, lease_for=LEASE)
        worker_id = new_worker_id()
        worker = Worker(
            WorkerRegistration(
                worker_id=worker_id,
                pool="local",
                market="spot",
                host="here",
                pid=1,
                variants=catalogue.served(),
                rate_micros_per_hour=3_600_000_000,
                currency="USD",
            ),
            packs=around(PackRepository(database, lease_for=LEASE)),
            workers=store,
            heart_store=store,
            objects=self.objects,
            catalogue=catalogue,
            garage=Garage(load or by_model.__getitem__, engines_max=1),
            telemetry=telemetry or Telemetry(process=OwnProcess(), open_device=lambda _device: None),
            clock=SystemClock(),
            settings=settings,
            shadow=None if judging is None else judging(database),
        )
        errors: list[BaseException] = []
        must_stop = threading.Event()

        def live() -> None:
            try:
                worker.run(must_stop.is_set, was_interrupted)
            except BaseException as error:  # noqa: BLE001 -- the test looks at it
                errors.append(error)

        running = Running(worker_id, worker, must_stop, threading.Thread(target=live, daemon=True), errors)
        running.thread.start()
        try:
            yield running
        finally:
            for engine in engines:
                engine.open()
            running.stop()
            database.close()

    def rows_done(self) -> int:
        (done,) = self.world.scalars("SELECT coalesce(sum(rows_succeeded + rows_errored), 0)::int FROM shards")
        assert isinstance(done, int)
        return done

    def await_rows(self, rows: int) -> None:
        def are_done() -> bool:
            # A failed pack rests; nobody here has the time.
            self.world.execute("UPDATE packs SET available_at = now() WHERE state = 'retryable'")
            return self.rows_done() >= rows

        eventually(are_done)

    def await_packs(self) -> None:
        """Wait until every pack has ended."""
        eventually(lambda: not self.world.scalars("SELECT id FROM packs WHERE ended_at IS NULL"))

    def results(self, batch: BatchId) -> dict[tuple[int, int], Any]:
        """Return (shard, position) → result line of the committed parts, which must not repeat a row."""
        found: dict[tuple[int, int], Any] = {}
        seen: Counter[tuple[int, int]] = Counter()
        for key in self.world.scalars("SELECT object_key FROM parts WHERE batch_id = :id", id=batch):
            head, *lines = self.objects.read(str(key)).splitlines()
            for (shard_no, position, _), line in zip(decode_header(head), lines, strict=True):
                seen[shard_no, position] += 1
                found[shard_no, position] = orjson.loads(line)
        assert not [row for row, times in seen.items() if times != 1], "a row has two results"
        return found

    def answers(self, batch: BatchId) -> dict[tuple[int, int], int]:
        """Return (shard, position) → `n` of the rows that were answered."""
        return {row: line["response"]["body"]["n"] for row, line in self.results(batch).items() if line["response"]}

    def spans(self, worker_id: WorkerId) -> list[object]:
        return self.world.scalars(
            "SELECT kind FROM worker_intervals WHERE worker_id = :id ORDER BY start_us", id=worker_id
        )

    def check_books(self) -> None:
        """Every worker is stopped, and its entries sum to its life's price."""
        unbalanced = self.world.scalars("""
            SELECT id FROM workers
             WHERE state <> 'stopped' OR metered_until_us < uptime_us
                OR (SELECT sum(amount_micros) FROM accruals WHERE worker_id = id)
                   <> div(rate_micros_per_hour::numeric * metered_until_us, 3600000000)""")
        assert unbalanced == []
