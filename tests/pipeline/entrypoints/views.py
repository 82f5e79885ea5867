"""Batches as the commands see them, made up."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

from pipeline.domain.endpoints import Endpoint
from pipeline.domain.ids import DEFAULT_PROJECT, DEFAULT_TENANT, BatchId, FileId
from pipeline.domain.lifecycle import BatchState
from pipeline.domain.promises import Promise
from pipeline.domain.reasons import Reason
from pipeline.domain.tiers import Tier
from pipeline.ports.batches import BatchView

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)

RUNNING = BatchView(
    batch_id=BatchId("batch_1"),
    tenant_id=DEFAULT_TENANT,
    project_id=DEFAULT_PROJECT,
    state=BatchState.IN_PROGRESS,
    reason=Reason.RUNNING,
    endpoint=Endpoint.CHAT_COMPLETIONS,
    completion_window="24h",
    tier=Tier.STANDARD,
    metadata=None,
    labels=None,
    priority=0,
    retry_of=None,
    budget_micros=None,
    input_file_id=FileId("file_1"),
    output_file_id=None,
    error_file_id=None,
    errors=(),
    trouble=None,
    errors_total=0,
    rows_total=100,
    rows_duplicate=0,
    rows_refused=0,
    rows_succeeded=0,
    rows_errored=0,
    rows_completed=None,
    rows_failed=None,
    input_tokens=0,
    output_tokens=0,
    cost_micros=0,
    currency="USD",
    models=("echo",),
    created_at=NOW,
    deadline_at=NOW + timedelta(days=1),
    promise=Promise.PENDING,
    hold_until=None,
    paused_at=None,
    steered_at=None,
    entered_at={BatchState.VALIDATING: NOW, BatchState.IN_PROGRESS: NOW},
)


def ended(state: BatchState, *, completed: int | None, failed: int | None) -> BatchView:
    """Return a batch that ended so."""
    return replace(RUNNING, state=state, rows_completed=completed, rows_failed=failed, entered_at={state: NOW})


def running(*, succeeded: int, output_tokens: int = 0) -> BatchView:
    """Return a batch that got so far."""
    return replace(RUNNING, rows_succeeded=succeeded, output_tokens=output_tokens)
