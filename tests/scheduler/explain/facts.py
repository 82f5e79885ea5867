"""Facts for explanations: one pool of two workers that serve model-a, and changes to that."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from pipeline.domain.endpoints import Endpoint
from pipeline.domain.ids import DEFAULT_PROJECT, BatchId, FileId, PackId, TenantId, WorkerId
from pipeline.domain.lifecycle import BatchState, PackState, WorkerState
from pipeline.domain.promises import Promise
from pipeline.domain.reasons import Reason
from pipeline.domain.tiers import Tier
from pipeline.ports.batches import BatchView
from pipeline.ports.cycle import Backlog
from pipeline.ports.explain import BatchFacts, PackFacts, PackShare, PoolFacts, Scheduling, Waiting, WorkerFacts
from tests.scheduler.world import NOW_US, snapshot

NOW = datetime.fromtimestamp(NOW_US / 1e6, tz=UTC)
BATCH = BatchId("batch_1")


def worker(name: str = "wrk_1", **changes: object) -> WorkerFacts:
    plain = WorkerFacts(
        worker_id=WorkerId(name),
        pool="cpu",
        host=f"host-{name[-1]}",
        state=WorkerState.READY,
        must_stop=False,
        variants=frozenset({"model-a"}),
        started_at=NOW - timedelta(hours=1),
        silent_seconds=1.0,
        packs=0,
        busy_since=None,
    )
    return replace(plain, **changes)  # type: ignore[arg-type]


def pool(**changes: object) -> PoolFacts:
    plain = PoolFacts(
        pool="cpu",
        workers=(worker("wrk_1"), worker("wrk_2")),
        waiting=Waiting(),
        stranded=Waiting(),
        paused=Waiting(),
        leased=Waiting(),
        stranded_variants=(),
        last_pack_at=NOW - timedelta(minutes=5),
        last_worker_at=None,
    )
    return replace(plain, **changes)  # type: ignore[arg-type]


def scheduling(*backlogs: Backlog, pools: Iterable[PoolFacts] | None = None, **changes: object) -> Scheduling:
    plain = Scheduling(
        now=NOW,
        has_leader=True,
        leader="here:1",
        snapshot=snapshot(backlogs),
        learned=(),
        pools=(pool(),) if pools is None else tuple(pools),
    )
    return replace(plain, **changes)  # type: ignore[arg-type]


def view(
    state: BatchState = BatchState.IN_PROGRESS, reason: Reason | None = Reason.QUEUED, **changes: object
) -> BatchView:
    plain = BatchView(
        batch_id=BATCH,
        tenant_id=TenantId("tnt_a"),
        project_id=DEFAULT_PROJECT,
        state=state,
        reason=reason,
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
        errors_total=0,
        trouble=None,
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
        models=("model-a",),
        created_at=NOW - timedelta(hours=1),
        deadline_at=NOW + timedelta(hours=24),
        promise=Promise.MADE,
        hold_until=None,
        paused_at=None,
        steered_at=None,
        entered_at={BatchState.VALIDATING: NOW - timedelta(hours=1), state: NOW - timedelta(minutes=3)},
    )
    return replace(plain, **changes)  # type: ignore[arg-type]


def batch(seen_as: BatchView | None = None, **changes: object) -> BatchFacts:
    plain = BatchFacts(
        view=seen_as or view(),
        reason_at=NOW - timedelta(minutes=2),
        waiting=Waiting(),
        leased=Waiting(),
        hosts=(),
        failed_packs=0,
        last_error=None,
        candidates=(),
    )
    return replace(plain, **changes)  # type: ignore[arg-type]


def pack(state: PackState = PackState.READY, **changes: object) -> PackFacts:
    plain = PackFacts(
        pack_id=PackId("pack_1"),
        pool="cpu",
        model="model-a",
        variant="model-a",
        tier=Tier.STANDARD,
        state=state,
        predicted_seconds=12.0,
        created_at=NOW - timedelta(minutes=1),
        available_at=NOW - timedelta(minutes=1),
        ended_at=None,
        lease_expires_at=None,
        worker_id=None,
        is_suspect=False,
        is_convicted=False,
        failures=0,
        unreads=0,
        parent_id=None,
        children=(),
        shares=(PackShare(batch_id=BATCH, tenant_id=TenantId("tnt_a"), rows=128, is_paused=False, is_live=True),),
        rows_done=0,
        attempts=(),
        ahead=Waiting(),
    )
    return replace(plain, **changes)  # type: ignore[arg-type]
