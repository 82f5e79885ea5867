"""What happens to a pack after an attempt ended without finishing it: pure decisions.

A crash is blamed on the rows only when it repeats. The first failure is retried whole (a machine
may die of anything), the second bisects, and a bisected half that fails once more is bisected at
once, so a poison request among n rows is alone after at most log2(n) + 3 attempts.

A shard that cannot be read is no crash: its rows are tried again for minutes, since a disk may come
back, then separated from those of other shards, and given up together.
"""

from __future__ import annotations

from enum import StrEnum

from pipeline.domain.lifecycle import AttemptOutcome
from pipeline.domain.limits import PACK_FAILURES_BEFORE_BISECT, PACK_UNREAD_BEFORE_CONVICTED


class Verdict(StrEnum):
    """What to do with the rows an attempt left."""

    #: Nothing is left: the pack is committed.
    DONE = "done"
    #: Lease it again as it is.
    RETRY = "retry"
    #: Split the rows that are left over two new packs.
    BISECT = "bisect"
    #: What is left cannot be had: one row that brings every attempt down, or a lost shard's. Error it with its cause.
    CONVICT = "convict"


def judge(*, outcome: AttemptOutcome, rows_left: int, failures: int, is_suspect: bool, shards_left: int = 1) -> Verdict:
    """Return what to do with `rows_left` rows after `failures` attempts that failed this way, this one included.

    For a single row only attempts that asked for nothing else count: what failed in company proves
    nothing against it. Where the outcome is `unread`, the attempts that ended so count.

    `is_suspect` marks a pack made by bisection: its rows have already failed together.
    """
    if rows_left == 0:
        return Verdict.DONE
    if outcome is AttemptOutcome.UNREAD:
        return _judge_unread(failures, shards_left)
    if outcome not in {AttemptOutcome.FAILED, AttemptOutcome.LEASE_LOST}:
        return Verdict.RETRY
    if rows_left == 1:
        return Verdict.CONVICT if failures >= PACK_FAILURES_BEFORE_BISECT else Verdict.RETRY
    if is_suspect or failures >= PACK_FAILURES_BEFORE_BISECT:
        return Verdict.BISECT
    return Verdict.RETRY


def _judge_unread(unreads: int, shards_left: int) -> Verdict:
    if unreads < PACK_UNREAD_BEFORE_CONVICTED:
        return Verdict.RETRY
    return Verdict.CONVICT if shards_left == 1 else Verdict.BISECT
