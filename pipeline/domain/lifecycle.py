"""States and their edges, once, as data.

docs/state_machines.md is drawn from these tables, and a test compares them with the database.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType
from typing import Final, TypeVar

from pipeline.domain.errors import IllegalTransitionError


class BatchState(StrEnum):
    """OpenAI's eight batch statuses."""

    VALIDATING = "validating"
    FAILED = "failed"
    IN_PROGRESS = "in_progress"
    FINALIZING = "finalizing"
    COMPLETED = "completed"
    EXPIRED = "expired"
    CANCELLING = "cancelling"
    CANCELLED = "cancelled"

    @property
    def is_terminal(self) -> bool:
        """Say whether no edge leaves this state."""
        return not BATCH_EDGES[self]


class PackState(StrEnum):
    """Where a pack is between the scheduler and its last committed row."""

    READY = "ready"
    LEASED = "leased"
    RETRYABLE = "retryable"
    COMMITTED = "committed"
    DISCARDED = "discarded"

    @property
    def is_terminal(self) -> bool:
        """Say whether no edge leaves this state."""
        return not PACK_EDGES[self]


class AttemptOutcome(StrEnum):
    """How one lease's run of one pack ended. Preemption never counts against the retry limit."""

    SUCCEEDED = "succeeded"
    FAILED = "failed"
    PREEMPTED = "preempted"
    LEASE_LOST = "lease_lost"
    #: A shard is missing or damaged in the object store.
    UNREAD = "unread"
    CANCELLED = "cancelled"


class WorkerState(StrEnum):
    """Where a worker process is in its life."""

    REQUESTED = "requested"
    BOOTING = "booting"
    LOADING = "loading"
    READY = "ready"
    DRAINING = "draining"
    STOPPED = "stopped"
    LOST = "lost"

    @property
    def is_terminal(self) -> bool:
        """Say whether no edge leaves this state."""
        return not WORKER_EDGES[self]


class IntervalKind(StrEnum):
    """What a span of a worker's life was spent on; only `work` is charged to batches."""

    BOOT = "boot"
    LOAD = "load"
    WORK = "work"
    IDLE = "idle"
    DRAIN = "drain"
    #: Judging a variant's answers by its reference.
    SHADOW = "shadow"
    #: Work whose commit was refused by token, or that nobody wanted any more: waste, not the tenant's.
    LATE = "late"
    #: The tail between the last thing a worker reported and its death.
    LOST = "lost"
    #: Work on rows that were handed back unfinished, because the worker had to go.
    PREEMPTED = "preempted"
    #: Work on rows that an engine failed, and that run again.
    RETRIED = "retried"
    #: Finding out whether a machine can be had.
    PROBE = "probe"


class RentalState(StrEnum):
    """Where a machine that we asked for is, whether or not its worker was ever heard of."""

    REQUESTED = "requested"
    LAUNCHED = "launched"
    STOPPING = "stopping"
    GONE = "gone"
    REFUSED = "refused"

    @property
    def is_terminal(self) -> bool:
        """Say whether no edge leaves this state."""
        return not RENTAL_EDGES[self]


class WorkerEnd(StrEnum):
    """Who ended a worker; a provider may bill by it."""

    #: We did.
    STOPPED = "stopped"
    #: Its provider took the machine.
    INTERRUPTED = "interrupted"
    #: It went silent.
    LOST = "lost"


_State = TypeVar("_State", bound=StrEnum)
#: From each state, the states an edge leads to, each with the cause that labels the edge.
Edges = Mapping[_State, Mapping[_State, str]]


def _edges(table: dict[_State, dict[_State, str]]) -> Edges[_State]:
    return MappingProxyType({state: MappingProxyType(targets) for state, targets in table.items()})


BATCH_EDGES: Final[Edges[BatchState]] = _edges(
    {
        BatchState.VALIDATING: {
            BatchState.IN_PROGRESS: "every line accepted",
            BatchState.FAILED: "bad lines, or no input",
            BatchState.CANCELLING: "user cancels",
        },
        BatchState.IN_PROGRESS: {
            BatchState.FINALIZING: "last row committed, or deadline passed",
            BatchState.FAILED: "its promise was a condition, and was declined",
            BatchState.CANCELLING: "user cancels",
        },
        BatchState.FINALIZING: {
            BatchState.COMPLETED: "files written",
            BatchState.EXPIRED: "files written, rows were left at the deadline",
            BatchState.FAILED: "what the files are made from is lost",
        },
        BatchState.CANCELLING: {BatchState.CANCELLED: "in-flight rows ended, partial files written if they can be"},
        BatchState.COMPLETED: {},
        BatchState.FAILED: {},
        BatchState.EXPIRED: {},
        BatchState.CANCELLED: {},
    }
)

PACK_EDGES: Final[Edges[PackState]] = _edges(
    {
        PackState.READY: {PackState.LEASED: "worker leases", PackState.DISCARDED: "batch withdrawn"},
        PackState.LEASED: {
            PackState.COMMITTED: "last row committed",
            PackState.RETRYABLE: "handed back, failed, or lease expired",
            PackState.DISCARDED: "bisected, or batch withdrawn",
        },
        PackState.RETRYABLE: {
            PackState.LEASED: "worker leases",
            PackState.DISCARDED: "batch withdrawn",
        },
        PackState.COMMITTED: {},
        PackState.DISCARDED: {},
    }
)

WORKER_EDGES: Final[Edges[WorkerState]] = _edges(
    {
        WorkerState.REQUESTED: {
            WorkerState.BOOTING: "process starts",
            WorkerState.STOPPED: "not needed any more",
            WorkerState.LOST: "never appeared",
        },
        WorkerState.BOOTING: {
            WorkerState.READY: "registered",
            WorkerState.LOST: "heartbeat stopped",
            WorkerState.STOPPED: "told to stop",
        },
        WorkerState.READY: {
            WorkerState.LOADING: "a pack of another model",
            WorkerState.DRAINING: "told to stop",
            WorkerState.LOST: "heartbeat stopped",
        },
        WorkerState.LOADING: {
            WorkerState.READY: "model loaded, or refused",
            WorkerState.DRAINING: "told to stop",
            WorkerState.LOST: "heartbeat stopped",
        },
        WorkerState.DRAINING: {WorkerState.STOPPED: "leases handed back", WorkerState.LOST: "heartbeat stopped"},
        WorkerState.STOPPED: {},
        WorkerState.LOST: {},
    }
)

RENTAL_EDGES: Final[Edges[RentalState]] = _edges(
    {
        RentalState.REQUESTED: {
            RentalState.LAUNCHED: "provider started it",
            RentalState.REFUSED: "provider refused",
            RentalState.GONE: "not needed any more",
        },
        RentalState.LAUNCHED: {
            RentalState.STOPPING: "its worker ended, or never appeared",
            RentalState.GONE: "provider has it no more",
        },
        RentalState.STOPPING: {RentalState.GONE: "provider has it no more"},
        RentalState.GONE: {},
        RentalState.REFUSED: {},
    }
)

assert set(BATCH_EDGES) == set(BatchState)
assert set(PACK_EDGES) == set(PackState)
assert set(WORKER_EDGES) == set(WorkerState)
assert set(RENTAL_EDGES) == set(RentalState)


def advance(edges: Edges[_State], current: _State, target: _State) -> _State:
    """Return `target`, or raise if no edge leads there from `current`."""
    if target not in edges[current]:
        raise IllegalTransitionError(f"{type(current).__name__} cannot go from {current!s} to {target!s}")
    return target


def sources(edges: Edges[_State], target: _State) -> tuple[_State, ...]:
    """Return the states with an edge to `target`: the WHERE of a conditional write."""
    return tuple(state for state, targets in edges.items() if target in targets)


def to_mermaid(edges: Edges[_State]) -> str:
    """Draw the edges as a Mermaid state diagram."""
    lines = ["stateDiagram-v2", f"    [*] --> {next(iter(edges))}"]
    for state, targets in edges.items():
        lines += [f"    {state} --> {target}: {cause}" for target, cause in targets.items()]
        if not targets:
            lines.append(f"    {state} --> [*]")
    return "\n".join(lines) + "\n"
