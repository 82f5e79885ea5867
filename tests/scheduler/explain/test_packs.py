from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from pipeline.domain.ids import PackId, WorkerId
from pipeline.domain.lifecycle import AttemptOutcome, PackState
from pipeline.domain.reasons import PackReason
from pipeline.ports.explain import AttemptFacts, PackFacts, Waiting
from scheduler.explain.packs import explain_pack
from tests.scheduler.explain.facts import BATCH, NOW, pack, pool, scheduling, worker

PAUSED = (replace(pack().shares[0], is_paused=True),)
ENDED = (replace(pack().shares[0], is_live=False),)
SINCE = NOW - timedelta(seconds=20)


def attempt(outcome: AttemptOutcome | None = None, error: str | None = None) -> AttemptFacts:
    return AttemptFacts(
        lease_token=1,
        worker_id=WorkerId("wrk_1"),
        host="host-1",
        started_at=SINCE,
        ended_at=None if outcome is None else NOW - timedelta(seconds=5),
        outcome=outcome,
        error=error,
        rows_asked=128,
    )


RUNS = {"worker_id": WorkerId("wrk_1"), "attempts": (attempt(),), "lease_expires_at": NOW + timedelta(seconds=10)}
CASES: dict[PackReason, PackFacts] = {
    PackReason.NEXT: pack(),
    PackReason.IN_LINE: pack(ahead=Waiting(packs=3, seconds=30.0)),
    PackReason.RESTING: pack(PackState.RETRYABLE, available_at=NOW + timedelta(seconds=9)),
    PackReason.NO_WORKER: pack(variant="model-z"),
    PackReason.PAUSED: pack(shares=PAUSED),
    PackReason.WITHDRAWN: pack(shares=ENDED),
    PackReason.CONVICTED: pack(PackState.RETRYABLE, is_convicted=True),
    PackReason.RUNNING: pack(PackState.LEASED, **RUNS),
    PackReason.WORKER_SILENT: pack(PackState.LEASED, **RUNS),
    PackReason.COMMITTED: pack(PackState.COMMITTED, attempts=(attempt(AttemptOutcome.SUCCEEDED),), ended_at=NOW),
    PackReason.BISECTED: pack(PackState.DISCARDED, children=(PackId("pack_2"), PackId("pack_3")), ended_at=NOW),
    PackReason.DISCARDED: pack(PackState.DISCARDED, ended_at=NOW),
}


@pytest.mark.parametrize("reason", PackReason)
def test_every_reason_is_told_of_the_pack_that_has_it(reason: PackReason) -> None:
    silent = 40.0 if reason is PackReason.WORKER_SILENT else 1.0
    seen = scheduling(pools=[pool(workers=(worker(silent_seconds=silent, packs=1),))])

    explanation = explain_pack(CASES[reason], seen)

    assert explanation.reason == str(reason)
    assert explanation.sentence.endswith(".")
    assert "None" not in explanation.sentence
    assert explanation.since is not None


def test_a_pack_in_line_tells_what_goes_first_and_on_whom_it_waits() -> None:
    explanation = explain_pack(CASES[PackReason.IN_LINE], scheduling())

    assert explanation.sentence == (
        "It waits in line behind 3 packs (30 s of work) for the 2 workers of pool cpu that serve model-a."
    )


def test_a_running_pack_tells_on_whom_and_how_far() -> None:
    explanation = explain_pack(CASES[PackReason.RUNNING], scheduling())

    assert explanation.sentence == "It has run on wrk_1 (pool cpu, host host-1) for 20 s of a predicted 12 s."


def test_a_pack_that_was_tried_again_tells_why_and_what_another_failure_brings() -> None:
    failed = pack(PackState.RETRYABLE, failures=1, attempts=(attempt(AttemptOutcome.FAILED, "out of memory"),))

    note = explain_pack(failed, scheduling()).notes["retried"]

    assert note == (
        "attempt 1 of 1 failed: out of memory; failing once more, it is split in two to find the request at fault"
    )


def test_a_paused_pack_tells_how_to_let_it_go_on() -> None:
    (change,) = explain_pack(CASES[PackReason.PAUSED], scheduling()).changes

    assert change.command == f"nightrate resume {BATCH}"


def test_a_split_pack_tells_where_its_halves_are_explained() -> None:
    explanation = explain_pack(CASES[PackReason.BISECTED], scheduling())

    assert [change.command for change in explanation.changes] == [
        "nightrate explain pack_2",
        "nightrate explain pack_3",
    ]


def test_a_pack_of_a_pool_that_is_gone_is_told_so() -> None:
    assert explain_pack(pack(), scheduling(pools=[])).sentence == "Pool cpu has no live worker."
