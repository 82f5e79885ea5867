"""Reasons: why a thing is where it is, each with a sentence a person can act on."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType
from typing import Final


class Reason(StrEnum):
    """Why a batch stands where it stands."""

    QUEUED = "queued"
    RUNNING = "running"
    NO_WORKER = "no_worker"
    WORKER_COMING = "worker_coming"
    USER_PAUSED = "user_paused"
    HELD = "held"
    BUDGET_REACHED = "budget_reached"
    PROJECT_BUDGET_REACHED = "project_budget_reached"
    TENANT_BUDGET_REACHED = "tenant_budget_reached"
    ALL_PACKED = "all_packed"
    BAD_INPUT = "bad_input"
    QUOTA_REACHED = "quota_reached"
    DEADLINE_PASSED = "deadline_passed"
    USER_CANCELLED = "user_cancelled"
    ALL_COMMITTED = "all_committed"
    RESULTS_LOST = "results_lost"
    PROMISE_DECLINED = "promise_declined"


SENTENCES: Final[Mapping[Reason, str]] = MappingProxyType(
    {
        Reason.QUEUED: "The batch waits for its turn; others may have a better claim on the next worker.",
        Reason.RUNNING: "Packs of this batch are running or about to.",
        Reason.NO_WORKER: "No live worker serves this model; start one with `nightrate up`.",
        Reason.WORKER_COMING: "No worker serves this model now; the fleet starts some when that pays, and in time for the deadline.",
        Reason.USER_PAUSED: "The batch is paused; `nightrate resume` lets it go on.",
        Reason.HELD: "The batch is held back until the time it names, or until waiting longer would risk its deadline.",
        Reason.BUDGET_REACHED: "The batch's budget is spent, or what is left may not pay for another row; raise it to go on.",
        Reason.PROJECT_BUDGET_REACHED: "Its project's budget pays for no other row in its tier; it goes on when that is raised or begins anew.",
        Reason.TENANT_BUDGET_REACHED: "Its tenant's budget pays for no other row in its tier; it goes on when that is raised or begins anew.",
        Reason.ALL_PACKED: "Every row is in a pack; the last ones are running.",
        Reason.BAD_INPUT: "The input file has errors, listed by line.",
        Reason.QUOTA_REACHED: "What is left of the tenant's plan has no room for the batch; the errors say of what.",
        Reason.DEADLINE_PASSED: "The completion window ended before the last row ran.",
        Reason.USER_CANCELLED: "The batch was cancelled.",
        Reason.ALL_COMMITTED: "Every row has a result.",
        Reason.RESULTS_LOST: "The object store lost what the result files are made from; the errors name it.",
        Reason.PROMISE_DECLINED: "Its deadline was to be promised or the batch refused, and it could not be promised.",
    }
)

assert set(SENTENCES) == set(Reason)


class PackReason(StrEnum):
    """Why a pack stands where it stands; told from what is stored when somebody asks, and stored nowhere."""

    NEXT = "next"
    IN_LINE = "in_line"
    RESTING = "resting"
    NO_WORKER = "no_worker"
    PAUSED = "paused"
    WITHDRAWN = "withdrawn"
    CONVICTED = "convicted"
    RUNNING = "running"
    WORKER_SILENT = "worker_silent"
    COMMITTED = "committed"
    BISECTED = "bisected"
    DISCARDED = "discarded"


class PoolReason(StrEnum):
    """Why a pool runs what it runs, and no more; told from what is stored when somebody asks."""

    NO_WORKERS = "no_workers"
    STARTING = "starting"
    DRAINING = "draining"
    STRANDED = "stranded"
    BLOCKED = "blocked"
    FULL = "full"
    BUSY = "busy"
    FILLING = "filling"
    IDLE = "idle"
