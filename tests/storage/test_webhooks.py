"""Webhooks on the real store: what is written when batches change, and how tries are claimed and recorded."""

from __future__ import annotations

import re
import threading
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import cast

import pytest
from sqlalchemy import text

from pipeline.domain.errors import ConflictError, NotFoundError
from pipeline.domain.ids import DEFAULT_PROJECT, DEFAULT_TENANT, BatchId, ProjectId, TenantId, WebhookId, new_webhook_id
from pipeline.domain.lifecycle import BATCH_EDGES, BatchState
from pipeline.domain.limits import WEBHOOK_SENDERS_PER_WEBHOOK, WEBHOOKS_PER_TENANT_MAX
from pipeline.domain.webhooks import ENDS, SUBSCRIBABLE, DeliveryState, DisabledReason, EventType, new_secret
from pipeline.ports.access import Scope
from pipeline.ports.webhooks import DueDelivery, TryOutcome, WebhookChange, WebhookDraft, WebhookView
from storage.webhook_deliveries import DeliveryRepository
from storage.webhooks import WebhookRepository
from tests.services import eventually
from tests.storage.world import World

SCOPE = Scope(tenant_id=DEFAULT_TENANT)
EDGES = [(source, target) for source, targets in BATCH_EDGES.items() for target in targets]
TOLD = {**ENDS, BatchState.IN_PROGRESS: EventType.BATCH_IN_PROGRESS}
OTHER = Scope(tenant_id=TenantId("tnt_other"))


def webhooks(world: World) -> WebhookRepository:
    return WebhookRepository(world.database)


def deliveries(world: World) -> DeliveryRepository:
    return DeliveryRepository(world.database)


def draft(*, tenant_id: TenantId = DEFAULT_TENANT, project_id: ProjectId | None = None) -> WebhookDraft:
    return WebhookDraft(
        webhook_id=new_webhook_id(),
        tenant_id=tenant_id,
        project_id=project_id,
        url="https://hooks.example/",
        description="",
        event_types=SUBSCRIBABLE,
        secret=new_secret(),
    )


def add(world: World, *kinds: EventType, project_id: ProjectId | None = None) -> WebhookView:
    made = draft(project_id=project_id)
    return webhooks(world).add(replace(made, event_types=kinds or SUBSCRIBABLE))


def now(world: World) -> datetime:
    (instant,) = world.scalars("SELECT clock_timestamp()")
    return cast("datetime", instant)


def told(world: World, webhook: WebhookView, batch_id: BatchId | None = None) -> list[str]:
    views = webhooks(world).deliveries(webhook.webhook_id, SCOPE, limit=100)
    return [view.event_type for view in reversed(views) if batch_id is None or view.batch_id == batch_id]


def claim(world: World, *, limit: int = 100, at: datetime | None = None, **busy: int) -> Sequence[DueDelivery]:
    counts = {WebhookId(name): count for name, count in busy.items()}
    return deliveries(world).claim(at or now(world), limit=limit, busy=counts)


def other_tenant(world: World) -> None:
    world.execute("INSERT INTO tenants (id, name) VALUES ('tnt_other', 'other')")
    world.execute(
        "INSERT INTO projects (id, tenant_id, name, is_default) VALUES ('proj_other', 'tnt_other', 'default', true)"
    )


def bring(world: World, batch_id: BatchId, state: BatchState) -> None:
    """Let a batch be in a state, as whatever statement did it would."""
    at = "" if state is BatchState.VALIDATING else f"{state}_at = now(),"
    world.execute(
        f"UPDATE batches SET {at} state = :state, errors = '[]', rows_completed = 0, rows_failed = rows_total"  # noqa: S608 -- our own words
        " WHERE id = :id",
        state=state,
        id=batch_id,
    )


@pytest.mark.parametrize(("source", "target"), EDGES)
def test_every_edge_to_a_state_that_is_told_writes_one_event(
    shared: World, source: BatchState, target: BatchState
) -> None:
    webhook = add(shared)
    batch_id = shared.submit().batch_id
    bring(shared, batch_id, source)
    before = told(shared, webhook, batch_id)

    bring(shared, batch_id, target)
    # Again, and other changes of the same row, are no news.
    bring(shared, batch_id, target)
    shared.execute("UPDATE batches SET priority = 5 WHERE id = :id", id=batch_id)

    new = told(shared, webhook, batch_id)[len(before) :]
    assert new == ([TOLD[target]] if target in TOLD else [])


def test_every_way_to_end_is_told() -> None:
    assert {target for _, target in EDGES if target.is_terminal} == set(ENDS)


def test_the_life_of_a_batch_is_told_in_order(shared: World) -> None:
    webhook = add(shared)
    worker = shared.worker()
    batch_id = shared.admit(4)
    shared.finish_rows(batch_id, worker)
    shared.advance()

    assert told(shared, webhook, batch_id) == ["batch.in_progress"]
    cancelled = shared.submit().batch_id
    shared.batches.cancel(cancelled)
    assert told(shared, webhook, cancelled) == []


def test_what_was_rolled_back_is_not_told(shared: World) -> None:
    webhook = add(shared)
    batch_id = shared.submit().batch_id

    with shared.database.engine.connect() as connection:
        connection.execute(
            text("UPDATE batches SET state = 'failed', failed_at = now(), errors = '[]' WHERE id = :id"),
            {"id": batch_id},
        )
        connection.rollback()

    assert told(shared, webhook, batch_id) == []


def test_nothing_is_written_where_nobody_wants_it(world: World) -> None:
    other_tenant(world)
    webhooks(world).add(draft(tenant_id=OTHER.tenant_id))
    add(world, EventType.BATCH_COMPLETED)
    world.execute("INSERT INTO projects (id, tenant_id, name) VALUES ('proj_b', 'tnt_default', 'b')")
    add(world, project_id=ProjectId("proj_b"))

    world.admit(1)

    assert world.scalars("SELECT count(*) FROM webhook_events") == [0]


def test_events_carry_ids_in_their_order_and_what_the_wire_wants(world: World) -> None:
    webhook = add(world, project_id=DEFAULT_PROJECT)
    batches = [world.admit(1) for _ in range(3)]

    due = sorted(claim(world), key=lambda delivery: delivery.event_id)

    assert [delivery.data for delivery in due] == [{"id": batch_id} for batch_id in batches]
    assert all(re.fullmatch(r"evt_[0-9a-f]{12}7[0-9a-f]{3}[89ab][0-9a-f]{15}", delivery.event_id) for delivery in due)
    assert {delivery.webhook_id for delivery in due} == {webhook.webhook_id}


def test_progress_is_told_once_a_step_and_only_the_highest_that_was_reached(world: World) -> None:
    webhook = add(world, EventType.BATCH_PROGRESS)
    batch_id = world.admit(8)
    (shard_id,) = world.shard_ids(batch_id)
    worker = world.worker()

    def finish(start: int, stop: int) -> None:
        world.pack((batch_id, shard_id, start, stop))
        lease = world.lease(worker)
        world.packs.commit(worker, world.work(worker, lease, (batch_id, shard_id, ((start, stop),), 1)))

    counts = []
    for start, stop in ((0, 1), (1, 2), (2, 7), (7, 8)):
        finish(start, stop)
        counts.append((deliveries(world).tell_progress(), deliveries(world).tell_progress()))

    assert counts == [(0, 0), (1, 0), (1, 0), (0, 0)]
    data = world.scalars("SELECT data FROM webhook_events ORDER BY id")
    assert data == [
        {"id": batch_id, "progress": 25, "request_counts": {"total": 8, "completed": 2, "failed": 0}},
        {"id": batch_id, "progress": 75, "request_counts": {"total": 8, "completed": 7, "failed": 0}},
    ]
    assert told(world, webhook) == ["batch.progress"] * 2


def test_a_claimed_try_is_due_again_when_nothing_is_heard_of_it(world: World) -> None:
    add(world)
    world.admit(1)

    (first,) = claim(world)
    assert claim(world) == []
    (second,) = claim(world, at=now(world) + timedelta(seconds=61))

    assert second.event_id == first.event_id
    failed = TryOutcome(at=now(world), status=500, error="500", next_at=now(world))
    assert not deliveries(world).record(first, failed)
    assert deliveries(world).record(second, failed)
    assert deliveries(world).record(second, failed)  # an ambiguous commit is repeated
    (third,) = claim(world)
    assert third.tries == 1


def test_two_that_claim_at_once_never_get_the_same(world: World) -> None:
    for _ in range(4):
        add(world)
    for _ in range(10):
        world.admit(1)
    claimed: list[DueDelivery] = []

    def look() -> None:
        while found := claim(world, limit=3):
            claimed.extend(found)

    threads = [threading.Thread(target=look) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(claimed) == len({(each.webhook_id, each.event_id) for each in claimed}) == 40


def test_one_webhook_never_takes_all_the_places(world: World) -> None:
    many, one = add(world), add(world, EventType.BATCH_CANCELLED)
    for _ in range(20):
        world.admit(1)
    bring(world, world.submit().batch_id, BatchState.CANCELLED)

    first = claim(world, **{many.webhook_id: 1})

    counts = {each: [due.webhook_id for due in first].count(each.webhook_id) for each in (many, one)}
    assert counts == {many: WEBHOOK_SENDERS_PER_WEBHOOK - 1, one: 1}
    assert claim(world, **{many.webhook_id: WEBHOOK_SENDERS_PER_WEBHOOK}) == []


def test_an_answer_that_disables_ends_all_that_was_to_be_told(world: World) -> None:
    webhook = add(world)
    for _ in range(3):
        world.admit(1)

    (due, *_) = claim(world)
    gone = TryOutcome(at=now(world), status=410, error="410", next_at=None, disable=DisabledReason.GONE)
    deliveries(world).record(due, gone)
    world.admit(1)

    assert claim(world, at=now(world) + timedelta(days=1)) == []
    view = webhooks(world).get(webhook.webhook_id, SCOPE)
    assert view.disabled_reason is DisabledReason.GONE
    states = {each.state for each in webhooks(world).deliveries(webhook.webhook_id, SCOPE, limit=10)}
    assert states == {DeliveryState.GAVE_UP}
    with pytest.raises(ConflictError, match="disabled"):
        webhooks(world).redeliver(webhook.webhook_id, SCOPE, due.event_id)

    webhooks(world).change(webhook.webhook_id, SCOPE, WebhookChange(is_enabled=True))
    # What happened meanwhile, too.
    assert webhooks(world).redeliver_since(webhook.webhook_id, SCOPE, now(world) - timedelta(hours=1)) == 4
    assert len(claim(world)) == 4


def test_what_arrived_is_told_again_only_by_its_id(world: World) -> None:
    webhook = add(world)
    world.admit(1)
    (due,) = claim(world)
    deliveries(world).record(due, TryOutcome(at=now(world), status=200, error=None, next_at=None))
    since = now(world) - timedelta(hours=1)

    assert webhooks(world).redeliver_since(webhook.webhook_id, SCOPE, since) == 0
    assert claim(world) == []
    assert webhooks(world).redeliver(webhook.webhook_id, SCOPE, due.event_id) == 1
    (again,) = claim(world)
    assert (again.event_id, again.tries) == (due.event_id, 0)
    with pytest.raises(NotFoundError, match="evt_unknown"):
        webhooks(world).redeliver(webhook.webhook_id, SCOPE, "evt_unknown")


def test_failing_is_counted_from_the_first_failure_since_something_arrived(world: World) -> None:
    webhook = add(world)
    for _ in range(3):
        world.admit(1)
    first, second, third = claim(world)
    at = now(world)

    def since() -> datetime | None:
        return webhooks(world).get(webhook.webhook_id, SCOPE).failing_since

    deliveries(world).record(first, TryOutcome(at=at, status=500, error="x", next_at=at))
    deliveries(world).record(second, TryOutcome(at=at + timedelta(hours=1), status=500, error="x", next_at=at))
    assert since() == at
    deliveries(world).record(third, TryOutcome(at=at, status=200, error=None, next_at=None))
    assert since() is None


def test_a_rotated_secret_signs_beside_the_new_one_until_its_time_is_over(world: World) -> None:
    made = draft()
    webhook = webhooks(world).add(made)
    world.admit(1)
    new = new_secret()

    def rotate() -> WebhookView:
        return webhooks(world).rotate(webhook.webhook_id, SCOPE, secret=new, overlap=timedelta(hours=1))

    # As an ambiguous commit is repeated.
    assert rotate().previous_secret_until == rotate().previous_secret_until

    assert claim(world)[0].secrets == (new, made.secret)
    assert claim(world, at=now(world) + timedelta(hours=2))[0].secrets == (new,)


def test_a_secret_is_in_nothing_that_is_logged(world: World) -> None:
    made = draft()
    view = webhooks(world).add(made)
    world.admit(1)

    for shown in (made, view, *claim(world)):
        assert made.secret not in repr(shown)


def test_removing_a_webhook_removes_its_history_and_what_is_under_way_is_late(world: World) -> None:
    webhook = add(world)
    batch_id = world.admit(1)
    (due,) = claim(world)

    webhooks(world).remove(webhook.webhook_id, SCOPE)

    assert not deliveries(world).record(due, TryOutcome(at=now(world), status=200, error=None, next_at=None))
    with pytest.raises(NotFoundError):
        webhooks(world).get(webhook.webhook_id, SCOPE)
    bring(world, batch_id, BatchState.CANCELLED)


def test_a_webhook_that_is_removed_this_moment_does_not_hold_up_a_batch(world: World) -> None:
    webhook = add(world)
    batch_id = world.submit().batch_id
    # Behind the removal, which is not committed yet.
    ended = threading.Thread(target=bring, args=(world, batch_id, BatchState.CANCELLED))
    with world.database.transaction() as connection:
        connection.execute(text("DELETE FROM webhooks WHERE id = :id"), {"id": webhook.webhook_id})
        ended.start()
        eventually(lambda: world.scalars("SELECT true FROM pg_locks WHERE NOT granted"))
    ended.join()

    assert world.batches.get(batch_id).state is BatchState.CANCELLED
    assert world.scalars("SELECT count(*) FROM webhook_events") == [0]


def test_what_is_anothers_does_not_exist(world: World) -> None:
    other_tenant(world)
    webhook = add(world)
    confined = Scope(tenant_id=DEFAULT_TENANT, project_id=DEFAULT_PROJECT)
    repository = webhooks(world)
    world.admit(1)
    (due,) = claim(world)

    # One for all projects is not a project's to see.
    for scope in (OTHER, confined):
        assert repository.page(scope, limit=10) == []
        for call in (
            lambda scope=scope: repository.get(webhook.webhook_id, scope),
            lambda scope=scope: repository.page(scope, limit=10, after=webhook.webhook_id),
            lambda scope=scope: repository.change(webhook.webhook_id, scope, WebhookChange(is_enabled=False)),
            lambda scope=scope: repository.rotate(
                webhook.webhook_id, scope, secret=new_secret(), overlap=timedelta(hours=1)
            ),
            lambda scope=scope: repository.test(webhook.webhook_id, scope),
            lambda scope=scope: repository.deliveries(webhook.webhook_id, scope, limit=10),
            lambda scope=scope: repository.redeliver(webhook.webhook_id, scope, due.event_id),
            lambda scope=scope: repository.redeliver_since(webhook.webhook_id, scope, due.created_at),
            lambda scope=scope: repository.remove(webhook.webhook_id, scope),
        ):
            with pytest.raises(NotFoundError):
                call()
    assert repository.get(webhook.webhook_id, SCOPE) == webhook


def test_a_tenant_has_so_many_webhooks_and_no_more(world: World) -> None:
    for _ in range(WEBHOOKS_PER_TENANT_MAX):
        webhooks(world).add(draft())

    with pytest.raises(ConflictError, match="as many as may be"):
        webhooks(world).add(draft())
    for unknown in (draft(tenant_id=TenantId("tnt_x")), draft(project_id=ProjectId("proj_x"))):
        with pytest.raises(NotFoundError):
            webhooks(world).add(unknown)


def test_pages_follow_one_another_by_age(world: World) -> None:
    made = [add(world).webhook_id for _ in range(5)]

    first = webhooks(world).page(SCOPE, limit=3)
    rest = webhooks(world).page(SCOPE, limit=3, after=first[-1].webhook_id)

    assert [view.webhook_id for view in (*first, *rest)] == made[::-1]


def test_what_was_told_long_ago_is_swept_a_few_at_a_time(world: World) -> None:
    webhook = add(world)
    for _ in range(3):
        world.admit(1)
    world.execute("UPDATE webhook_events SET created_at = created_at - interval '40 d'")
    world.admit(1)

    swept = [deliveries(world).sweep(kept_for=timedelta(days=30), limit=2) for _ in range(3)]

    assert swept == [2, 1, 0]
    assert len(told(world, webhook)) == 1
