from __future__ import annotations

import json

import pytest

from pipeline.domain.lifecycle import BatchState
from pipeline.domain.reasons import SENTENCES, Reason
from pipeline.entrypoints.cli.documents import batch_document, batch_facts, error_lines, why
from pipeline.entrypoints.cli.exits import ExitCode, exit_code_of
from pipeline.ports.batches import LineError
from tests.pipeline.entrypoints.views import RUNNING, ended

COMPLETED, EXPIRED, CANCELLED, FAILED = (
    BatchState.COMPLETED,
    BatchState.EXPIRED,
    BatchState.CANCELLED,
    BatchState.FAILED,
)


@pytest.mark.parametrize(
    ("state", "completed", "failed", "code"),
    [
        (COMPLETED, 10, 0, ExitCode.OK),
        (COMPLETED, 9, 1, ExitCode.PARTIAL),
        (COMPLETED, 0, 10, ExitCode.FAILED),
        (EXPIRED, 9, 1, ExitCode.PARTIAL),
        (EXPIRED, 0, 10, ExitCode.FAILED),
        (CANCELLED, 9, 1, ExitCode.PARTIAL),
        (CANCELLED, 0, 0, ExitCode.FAILED),
        (FAILED, None, None, ExitCode.FAILED),
    ],
)
def test_the_exit_code_says_how_the_rows_fared(
    state: BatchState, completed: int | None, failed: int | None, code: ExitCode
) -> None:
    assert exit_code_of(ended(state, completed=completed, failed=failed)) is code


def test_every_state_and_reason_has_a_sentence() -> None:
    for state in BatchState:
        assert why(ended(state, completed=None, failed=None)).endswith(".")
    assert why(RUNNING) == SENTENCES[Reason.RUNNING]


def test_a_batch_is_a_json_document_with_exact_money() -> None:
    document = json.loads(json.dumps(batch_document(RUNNING)))

    assert document["id"] == "batch_1"
    assert document["state"] == "in_progress"
    assert document["reason_sentence"] == SENTENCES[Reason.RUNNING]
    assert document["cost_micros"] == 0
    assert document["rows"]["total"] == 100
    assert document["created_at"] == "2026-01-02T03:04:05+00:00"


def test_people_see_the_bad_lines_and_how_many_more_there_are() -> None:
    from dataclasses import replace

    error = LineError(code="invalid_json", message="This line is not JSON.", param=None, line=3)
    whole = LineError(code="empty_file", message="The file is empty.", param="body.model", line=None)
    view = replace(ended(FAILED, completed=None, failed=None), errors=(error, whole), errors_total=1002)

    assert error_lines(view) == [
        "  line 3: This line is not JSON.",
        "  file: The file is empty. (body.model)",
        "  and 1,000 more",
    ]
    assert batch_facts(view)["charged"] == "$0.00"
