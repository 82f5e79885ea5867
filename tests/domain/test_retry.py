from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.domain.lifecycle import AttemptOutcome
from pipeline.domain.limits import PACK_FAILURES_BEFORE_BISECT, PACK_UNREAD_BEFORE_CONVICTED
from pipeline.domain.retry import Verdict, judge

FAILURES = (AttemptOutcome.FAILED, AttemptOutcome.LEASE_LOST)
INNOCENT = tuple(outcome for outcome in AttemptOutcome if outcome not in {*FAILURES, AttemptOutcome.UNREAD})


@given(st.sampled_from(AttemptOutcome), st.integers(0, 9), st.booleans())
def test_a_pack_without_rows_left_is_done_however_the_attempt_ended(
    outcome: AttemptOutcome,
    failures: int,
    is_suspect: bool,  # noqa: FBT001 -- drawn by hypothesis
) -> None:
    assert judge(outcome=outcome, rows_left=0, failures=failures, is_suspect=is_suspect) is Verdict.DONE


@given(st.sampled_from(INNOCENT), st.integers(1, 9), st.integers(0, 9), st.booleans())
def test_only_a_failure_is_ever_blamed_on_the_rows(
    outcome: AttemptOutcome,
    rows_left: int,
    failures: int,
    is_suspect: bool,  # noqa: FBT001 -- drawn by hypothesis
) -> None:
    assert judge(outcome=outcome, rows_left=rows_left, failures=failures, is_suspect=is_suspect) is Verdict.RETRY


@pytest.mark.parametrize("outcome", FAILURES)
@pytest.mark.parametrize(
    ("rows_left", "failures", "is_suspect", "verdict"),
    [
        (8, 1, False, Verdict.RETRY),
        (8, 2, False, Verdict.BISECT),
        (8, 1, True, Verdict.BISECT),
        (2, 1, True, Verdict.BISECT),
        (1, 1, False, Verdict.RETRY),
        (1, 1, True, Verdict.RETRY),
        (1, 2, False, Verdict.CONVICT),
        (1, 2, True, Verdict.CONVICT),
    ],
)
def test_a_failure_that_repeats_narrows_down_to_the_row(
    outcome: AttemptOutcome, rows_left: int, failures: int, *, is_suspect: bool, verdict: Verdict
) -> None:
    assert judge(outcome=outcome, rows_left=rows_left, failures=failures, is_suspect=is_suspect) is verdict


@pytest.mark.parametrize(
    ("rows_left", "unreads", "shards_left", "verdict"),
    [
        (9, 1, 1, Verdict.RETRY),
        (1, PACK_UNREAD_BEFORE_CONVICTED - 1, 1, Verdict.RETRY),
        (9, PACK_UNREAD_BEFORE_CONVICTED, 2, Verdict.BISECT),
        (9, PACK_UNREAD_BEFORE_CONVICTED, 1, Verdict.CONVICT),
        (1, PACK_UNREAD_BEFORE_CONVICTED, 1, Verdict.CONVICT),
    ],
)
def test_a_lost_shard_gets_time_to_come_back_before_its_rows_are_given_up(
    rows_left: int, unreads: int, shards_left: int, verdict: Verdict
) -> None:
    found = judge(
        outcome=AttemptOutcome.UNREAD,
        rows_left=rows_left,
        failures=unreads,
        is_suspect=False,
        shards_left=shards_left,
    )

    assert found is verdict


@given(st.integers(1, 65_536))
def test_a_poison_row_is_convicted_within_log2_n_plus_3_attempts(rows: int) -> None:
    left, failures, is_suspect, attempts, verdict = rows, 0, False, 0, Verdict.RETRY

    while verdict is not Verdict.CONVICT:
        attempts += 1
        failures += 1
        verdict = judge(outcome=AttemptOutcome.LEASE_LOST, rows_left=left, failures=failures, is_suspect=is_suspect)
        if verdict is Verdict.BISECT:
            left, failures, is_suspect = (left + 1) // 2, 0, True

    assert left == 1
    assert attempts <= math.ceil(math.log2(rows)) + PACK_FAILURES_BEFORE_BISECT + 1
