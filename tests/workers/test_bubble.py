"""The runner's reckoning of time between packs, on a clock that moves only when something is done."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Final

import orjson

from pipeline.domain.endpoints import Endpoint
from pipeline.domain.ids import DEFAULT_TENANT, BatchId, PackId
from pipeline.domain.objects.shard import encode_row
from pipeline.ports.engine import EngineRequest, EngineResult
from pipeline.ports.meters import AttemptMeters
from pipeline.ports.packs import LeasedSlice, PackLease
from tests.workers.floor import ScriptedEngine, serving
from tests.workers.test_telemetry import FakeProcess, HandClock
from workers.apportioner import Apportioner
from workers.committer import Finish, Job
from workers.feed import Block, Closed, Fed, Opened
from workers.garage import Garage
from workers.meter import Meter
from workers.runner import Runner
from workers.telemetry.telemetry import Telemetry

STEP_US: Final = 1_000
ADD_US: Final = 10
LOAD_US: Final = 50_000
LOOK_US: Final = 100


class TimedEngine(ScriptedEngine):
    """A step answers one row and takes a millisecond; entering rows takes time too."""

    def __init__(self, clock: HandClock, model: str = "echo") -> None:
        super().__init__(model)
        self._clock = clock

    def add(self, requests: Sequence[EngineRequest]) -> None:
        self._clock.us += ADD_US
        super().add(requests)

    def step(self) -> Sequence[EngineResult]:
        self._clock.us += STEP_US
        row = self.rows.pop(0)
        return [EngineResult(row.key, 200, {}, 1, 1)]


class Hall:
    """A runner between a feed and a committer that do what the test says; the one for all of its collaborators."""

    failure = None

    def __init__(self) -> None:
        self.clock = HandClock()
        self.meter = Meter(self.clock)
        #: When each item may be taken, and the item.
        self.fed: deque[tuple[int, Fed]] = deque()
        self.ended: list[AttemptMeters] = []
        telemetry = Telemetry(process=FakeProcess(), open_device=lambda _: None)
        self.runner = Runner(
            feed=self,  # type: ignore[arg-type] # it takes, and ends
            committer=self,  # type: ignore[arg-type] # it is handed over to
            heart=self,  # type: ignore[arg-type] # it is asked what is lost
            meter=self.meter,
            catalogue=serving("echo", "other"),
            garage=Garage(self.load),
            apportioner=Apportioner(telemetry),
            enter=lambda _state: None,
            on_refused=lambda: None,
            commit_seconds=600.0,
            drain_seconds=0.0,
        )

    def load(self, model: str) -> TimedEngine:
        self.clock.us += LOAD_US
        return TimedEngine(self.clock, model)

    def pack(self, rows: int, *, waiting_since_us: int, arrives_us: int, model: str = "echo") -> None:
        part = LeasedSlice(
            tenant_id=DEFAULT_TENANT,
            batch_id=BatchId("batch_1"),
            shard_id=1,
            shard_no=0,
            object_key="shard",
            sha256="",
            ranges=((0, rows),),
        )
        lease = PackLease(
            pack_id=PackId(f"pck_{len(self.fed)}"),
            lease_token=1,
            model=model,
            variant=model,
            endpoint=Endpoint.CHAT_COMPLETIONS,
            slices=(part,),
        )
        content = b"".join(encode_row(n + 1, orjson.dumps({"n": n})) for n in range(rows))
        for fed in (Opened(lease, waiting_since_us), Block(part, content), Closed()):
            self.fed.append((arrives_us, fed))

    def bubbles(self) -> list[int]:
        packs = sum(isinstance(fed, Opened) for _, fed in self.fed)
        self.runner.run(lambda: len(self.ended) == packs)
        return [meters.bubble_us for meters in self.ended]

    # The feed.
    def take(self, timeout_seconds: float) -> Fed | None:
        if self.fed and self.fed[0][0] <= self.clock.us:
            return self.fed.popleft()[1]
        self.clock.us += LOOK_US if timeout_seconds > 0 else 0
        return None

    def stop(self) -> None:
        assert not self.fed

    def is_stopped(self) -> bool:
        return True

    def is_empty(self) -> bool:
        return True

    # The committer.
    def hand_over(self, job: Job) -> None:
        if isinstance(job, Finish):
            self.ended.append(job.meters)

    def has_given_up(self, _lease: PackLease) -> bool:
        return False

    # The heart.
    def is_lost(self, _pack_id: PackId, _lease_token: int) -> bool:
        return False

    def withdrawn(self) -> frozenset[BatchId]:
        return frozenset()


def test_a_pack_that_is_there_before_the_last_one_ends_leaves_no_bubble() -> None:
    hall = Hall()
    hall.pack(5, waiting_since_us=0, arrives_us=0)
    hall.pack(5, waiting_since_us=0, arrives_us=0)

    assert hall.bubbles() == [ADD_US, 0]


def test_time_without_a_pack_anywhere_is_idleness_and_no_bubble() -> None:
    hall = Hall()
    hall.pack(2, waiting_since_us=0, arrives_us=0)
    hall.pack(2, waiting_since_us=900_000, arrives_us=900_000)

    assert hall.bubbles()[1] <= LOOK_US + ADD_US


def test_a_pack_that_waits_while_the_engine_is_empty_is_a_bubble_from_when_it_came() -> None:
    hall = Hall()
    hall.pack(2, waiting_since_us=0, arrives_us=0)
    # Made at 300 ms, when the engine had long been empty; in the runner's hands at 400 ms.
    hall.pack(2, waiting_since_us=300_000, arrives_us=400_000)

    assert 100_000 <= hall.bubbles()[1] <= 100_000 + LOOK_US + ADD_US


def test_a_pack_that_waited_before_the_engine_was_empty_is_a_bubble_from_there_only() -> None:
    hall = Hall()
    hall.pack(2, waiting_since_us=0, arrives_us=0)
    hall.pack(2, waiting_since_us=-(10**9), arrives_us=400_000)

    first_ends_us = LOAD_US + ADD_US + 2 * STEP_US
    assert 400_000 - first_ends_us <= hall.bubbles()[1] <= 400_000 - first_ends_us + LOOK_US + ADD_US


def test_loading_a_model_is_overhead_of_its_own_and_no_bubble() -> None:
    hall = Hall()
    hall.pack(2, waiting_since_us=0, arrives_us=0)
    hall.pack(2, waiting_since_us=0, arrives_us=0, model="other")

    assert hall.bubbles() == [ADD_US, ADD_US]


def test_the_time_of_steps_is_shared_and_none_is_lost() -> None:
    hall = Hall()
    for _ in range(3):
        hall.pack(7, waiting_since_us=0, arrives_us=0)

    hall.bubbles()

    assert sum(meters.engine_us or 0 for meters in hall.ended) == 21 * STEP_US
