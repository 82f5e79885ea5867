"""The plan of a run: what is killed, and at which point of its progress. A pure function of the seed."""

from __future__ import annotations

import random
from dataclasses import dataclass
from enum import StrEnum

#: Faults strike between these fractions of the rows: at the end there must be something left to disturb.
_FIRST, _LAST = 0.02, 0.92
#: Where every submitter comes by, also one that finds its batch made and taken in.
_EVERY_TRY = ("put:1", "stored", "submitted", "admitted")


class Fault(StrEnum):
    """What happens to whom. Without another word it is SIGKILL."""

    WORKER = "worker"
    SCHEDULER = "scheduler"
    REDIS = "redis"
    REDIS_FLUSHED = "redis_flushed"
    SUBMITTER = "submitter"
    POSTGRES = "postgres"
    #: A worker stands still until its lease is over, and then goes on.
    WORKER_PAUSED = "worker_paused"
    #: Two workers in a row die holding the same pack, which is then bisected.
    WORKER_TWICE = "worker_twice"


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """One fault, due once this fraction of the rows is done."""

    at: float
    fault: Fault
    #: Whether the victim is only struck once it works; otherwise it may be anywhere, its start-up included.
    is_settled: bool = True
    #: Where a submitter dies.
    point: str = ""
    #: Chooses among several victims.
    choice: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """All of a run's faults."""

    #: Where submitters of the batch die, one after the other, before one gets through.
    submit_points: tuple[str, ...]
    events: tuple[Event, ...]

    def kills(self) -> dict[str, int]:
        """Return how often each kind of process is to be killed."""
        faults = [event.fault for event in self.events]
        return {
            "worker": faults.count(Fault.WORKER) + 2 * faults.count(Fault.WORKER_TWICE),
            "scheduler": faults.count(Fault.SCHEDULER),
            "redis": faults.count(Fault.REDIS) + faults.count(Fault.REDIS_FLUSHED),
            "submitter": len(self.submit_points) + faults.count(Fault.SUBMITTER),
            "postgres": faults.count(Fault.POSTGRES),
        }


def make_plan(seed: int, *, kills: int, postgres_kills: int, twice: int = 1, pauses: int = 1) -> Plan:
    """Return a plan with at least `kills` of each kind; the same arguments give the same plan."""
    assert kills >= 1
    chance = random.Random(seed)
    submits_first = min(3, (kills + 1) // 2)
    wanted = {
        Fault.WORKER: max(0, kills - 2 * twice),
        Fault.SCHEDULER: kills,
        Fault.REDIS: kills // 2,
        Fault.REDIS_FLUSHED: kills - kills // 2,
        Fault.SUBMITTER: kills - submits_first,
        Fault.POSTGRES: postgres_kills,
        Fault.WORKER_PAUSED: pauses,
        Fault.WORKER_TWICE: twice,
    }
    events = [
        Event(
            at=round(_FIRST + (_LAST - _FIRST) * (number + chance.random()) / count, 4),
            fault=fault,
            is_settled=chance.random() < 0.8,
            point=_side_point(chance) if fault is Fault.SUBMITTER else "",
            choice=chance.randrange(1 << 16),
        )
        for fault, count in wanted.items()
        for number in range(count)
    ]
    # The first dies in the middle of intake; the later ones where any retry comes by, whoever has taken the batch in.
    points = ["put:3", *(chance.choice(_EVERY_TRY) for _ in range(submits_first - 1))]
    return Plan(submit_points=tuple(points), events=tuple(sorted(events, key=lambda event: (event.at, event.fault))))


def _side_point(chance: random.Random) -> str:
    # A small batch's objects: the input, one shard, one roster.
    return chance.choice([*_EVERY_TRY, "put:2", "put:3"])
