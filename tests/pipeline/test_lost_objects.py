"""What becomes of a batch whose objects are lost: it is tried for a while, and then it ends and says why."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic import SecretStr
from sqlalchemy import text

from pipeline.app.batches import finalize_claimed, store_input, take_in_claimed
from pipeline.app.stack import Stack, open_stack
from pipeline.config import Settings
from pipeline.domain.endpoints import Endpoint
from pipeline.domain.errors import ObjectCorruptError, ObjectMissingError
from pipeline.domain.ids import DEFAULT_TENANT
from pipeline.domain.lifecycle import BatchState
from pipeline.domain.limits import CLAIM_FAILURES_MAX
from pipeline.domain.reasons import Reason
from pipeline.domain.tiers import Tier
from pipeline.ports.batches import BatchClaim, BatchView, Submission


@pytest.fixture
def stack(database_url: str, tmp_path: Path) -> Iterator[Stack]:
    settings = Settings(home=tmp_path / "home", database_url=SecretStr(database_url), redis_url=None)
    with open_stack(settings) as opened:
        yield opened


def submitted(stack: Stack, folder: Path) -> BatchView:
    """Make a batch of three echo requests and leave it to be taken in."""
    source = folder / "input.jsonl"
    with source.open("w") as file:
        for number in range(3):
            body = {"model": "echo", "messages": [{"role": "user", "content": f"say {number}"}]}
            line = {"custom_id": str(number), "method": "POST", "url": "/v1/chat/completions", "body": body}
            file.write(json.dumps(line) + "\n")
    return stack.batches.submit(
        Submission(
            tenant_id=DEFAULT_TENANT,
            input_file_id=store_input(stack, source),
            endpoint=Endpoint.CHAT_COMPLETIONS,
            completion_window="24h",
            tier=Tier.STANDARD,
            budget_micros=None,
            metadata=None,
            idempotency_key=None,
        )
    )


def claim(stack: Stack, view: BatchView, *, is_last: bool = False) -> BatchClaim:
    """Claim the batch now, as after its rest; with `is_last` as if it had failed until patience ran out."""
    failures = "claim_failures" if not is_last else str(CLAIM_FAILURES_MAX)
    update = text(f"UPDATE batches SET claim_expires_at = NULL, claim_failures = {failures} WHERE id = :id")  # noqa: S608 -- a number or a name of ours
    stack.database.run(lambda connection: connection.execute(update, {"id": view.batch_id}))
    found = stack.batches.claim([BatchState.VALIDATING, BatchState.CANCELLING], batch_id=view.batch_id)
    assert found is not None
    return found


def overwrite(path: Path, content: bytes) -> None:
    path.chmod(0o600)
    path.write_bytes(content)


@pytest.mark.parametrize("is_damaged", [True, False], ids=["damaged", "missing"])
def test_an_input_file_that_is_lost_fails_its_batch_once_patience_has_run_out(
    stack: Stack, tmp_path: Path, *, is_damaged: bool
) -> None:
    view = submitted(stack, tmp_path)
    first = claim(stack, view)
    path = tmp_path / "home" / "objects" / first.source.object_key
    if is_damaged:
        overwrite(path, path.read_bytes().replace(b"say 1", b"say 7"))
    else:
        path.unlink()

    with pytest.raises((ObjectMissingError, ObjectCorruptError)):
        take_in_claimed(stack, first)
    troubled = stack.batches.get(view.batch_id)
    assert troubled.state is BatchState.VALIDATING
    assert first.source.object_key in (troubled.trouble or "")
    take_in_claimed(stack, claim(stack, view, is_last=True))

    failed = stack.batches.get(view.batch_id)
    assert failed.state is BatchState.FAILED
    assert [error.code for error in failed.errors] == ["input_lost"]
    assert first.source.object_key in failed.errors[0].message


def test_a_batch_that_lost_its_rosters_ends_without_files_once_patience_has_run_out(
    stack: Stack, tmp_path: Path
) -> None:
    view = submitted(stack, tmp_path)
    take_in_claimed(stack, claim(stack, view))
    stack.batches.cancel(view.batch_id)
    (roster,) = (tmp_path / "home" / "objects").rglob("rosters/*")
    roster.unlink()

    with pytest.raises(ObjectMissingError):
        finalize_claimed(stack, claim(stack, view))
    assert stack.batches.get(view.batch_id).state is BatchState.CANCELLING
    finalize_claimed(stack, claim(stack, view, is_last=True))

    ended = stack.batches.get(view.batch_id)
    assert (ended.state, ended.reason) == (BatchState.CANCELLED, Reason.RESULTS_LOST)
    assert [error.code for error in ended.errors] == ["results_lost"]
