"""Quotas: what is admitted fits, and what ends gives back, whoever comes in between."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from datetime import timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import text

from pipeline.domain.endpoints import Endpoint
from pipeline.domain.errors import BatchLimitError, LeaseLostError, NotFoundError, TierNotAllowedError, UsageError
from pipeline.domain.ids import DEFAULT_TENANT, BatchId, ProjectId, TenantId, WorkerId
from pipeline.domain.lifecycle import AttemptOutcome, BatchState
from pipeline.domain.plans import BUILT_IN, Plan, PlanBook
from pipeline.domain.reasons import Reason
from pipeline.domain.tiers import Tier
from pipeline.ports.access import Scope
from pipeline.ports.batches import Assembled, BatchClaim, LineError, Rejected, ResultFile, Steering, Submission
from storage.batches import BatchRepository
from storage.quotas import QuotaRepository
from storage.scoped_batches import ScopedBatches
from tests.services import eventually
from tests.storage.world import LEASE, SHA, World, admitted

#: `admitted` expects twenty tokens a row.
TOKENS_A_ROW = 20
SMALL = Plan(
    name="small",
    requests_per_month=100,
    tokens_per_month=100 * TOKENS_A_ROW,
    tier_ceiling=Tier.STANDARD,
    enqueued_tokens_max=60 * TOKENS_A_ROW,
    batches_live_max=3,
    rows_max=50,
)


@dataclass(slots=True)
class Tenant:
    """A tenant of a test's own, with a plan of its own."""

    world: World
    plan: Plan = SMALL
    tenant_id: TenantId = field(default_factory=lambda: TenantId(f"tnt_{uuid.uuid4().hex}"))

    def __post_init__(self) -> None:
        self.world.execute("INSERT INTO tenants (id, name, plan) VALUES (:id, 'x', 'small')", id=self.tenant_id)
        self.world.execute(
            "INSERT INTO projects (id, tenant_id, name, is_default) VALUES (:project, :id, 'x', true)",
            project=self.project_id,
            id=self.tenant_id,
        )

    @property
    def project_id(self) -> ProjectId:
        return ProjectId(f"proj_{self.tenant_id}")

    @property
    def book(self) -> PlanBook:
        return PlanBook(plans={**BUILT_IN, "small": self.plan})

    @property
    def batches(self) -> BatchRepository:
        return BatchRepository(self.world.database, claim_for=LEASE, plans=self.book)

    @property
    def scoped(self) -> ScopedBatches:
        return ScopedBatches(self.world.database, self.book)

    @property
    def quotas(self) -> QuotaRepository:
        return QuotaRepository(self.world.database, self.book)

    def submission(self, *, tier: Tier = Tier.STANDARD, key: str | None = None) -> Submission:
        return Submission(
            tenant_id=self.tenant_id,
            project_id=self.project_id,
            input_file_id="file_x",
            endpoint=Endpoint.CHAT_COMPLETIONS,
            completion_window="24h",
            tier=tier,
            budget_micros=None,
            metadata=None,
            idempotency_key=key,
            may_lack_file=True,
        )

    def submit(self) -> BatchClaim:
        claim = self.batches.first_claim(self.batches.submit(self.submission()))
        assert claim is not None
        return claim

    def admit(self, rows: int, *, model: str = "echo") -> BatchId | None:
        """Submit a batch of so many rows; None where there was no room for it."""
        claim = self.submit()
        state = self.batches.admit(claim, admitted(claim.batch_id, rows, model=model))
        return claim.batch_id if state is BatchState.IN_PROGRESS else None

    def error(self, rows: int, *, model: str = "echo") -> LineError:
        """Submit a batch for which there is no room, and return why."""
        claim = self.submit()
        assert self.batches.admit(claim, admitted(claim.batch_id, rows, model=model)) is BatchState.FAILED
        view = self.batches.get(claim.batch_id)
        assert (view.state, view.reason) == (BatchState.FAILED, Reason.QUOTA_REACHED)
        (error,) = view.errors
        return error

    def run(self, batch_id: BatchId, rows: int, tokens: int, worker_id: WorkerId) -> None:
        """Run the batch's first rows."""
        (shard_id,) = self.world.shard_ids(batch_id)
        self.world.pack((batch_id, shard_id, 0, rows))
        lease = self.world.lease(worker_id)
        self.world.packs.commit(
            worker_id, self.world.work(worker_id, lease, (batch_id, shard_id, ((0, rows),), tokens))
        )
        self.world.packs.finish(lease.pack_id, lease.lease_token, AttemptOutcome.SUCCEEDED)

    def cancel(self, batch_id: BatchId) -> None:
        """Cancel a batch, and let it end."""
        self.batches.cancel(batch_id)
        self.end(batch_id, BatchState.CANCELLING)

    def end(self, batch_id: BatchId, state: BatchState) -> None:
        claim = self.batches.claim([state], batch_id=batch_id)
        assert claim is not None
        view = self.batches.get(batch_id)
        missing = view.rows_total - view.rows_succeeded
        assembled = Assembled(
            output=result(f"output/{batch_id}", view.rows_succeeded),
            error=result(f"error/{batch_id}", missing),
            rows_missing=missing,
        )
        for _ in range(2):  # an answer may be lost on the way back
            self.batches.publish(claim, assembled, rows_total=view.rows_total)

    def sums(self) -> tuple[int, int, int]:
        """Return what is used: requests and tokens of the month, enqueued tokens."""
        view = self.quotas.see(self.tenant_id)
        return view.requests, view.tokens, sum(tokens for _, tokens in view.enqueued_tokens)


def result(key: str, rows: int) -> ResultFile | None:
    return ResultFile(object_key=key, sha256=SHA, size_bytes=rows, rows=rows) if rows else None


@pytest.fixture
def tenant(shared: World) -> Tenant:
    return Tenant(shared)


# --- admission --------------------------------------------------------------------------------


def test_a_month_takes_its_last_request_and_not_one_more(shared: World) -> None:
    tenant = Tenant(shared, replace(SMALL, enqueued_tokens_max=None, tokens_per_month=None))

    assert tenant.admit(50)
    assert tenant.admit(50)
    error = tenant.error(1)

    assert error.code == "monthly_request_limit_exceeded"
    assert "the batch needs 1 requests, 0 of 100 are left" in error.message
    assert tenant.sums() == (100, 2000, 2000)


def test_a_month_takes_its_last_token_and_not_one_more(shared: World) -> None:
    tenant = Tenant(shared, replace(SMALL, enqueued_tokens_max=None, requests_per_month=None))

    assert tenant.admit(50)
    assert tenant.error(51).code == "too_many_requests_in_batch"
    assert tenant.admit(50)

    assert tenant.error(1).code == "monthly_token_limit_exceeded"


def test_the_tokens_enqueued_of_a_model_are_bounded_each_model_apart(tenant: Tenant) -> None:
    assert tenant.admit(40)
    assert tenant.error(21).code == "token_limit_exceeded"
    assert tenant.admit(20, model="chat")
    assert tenant.admit(20)
    # All three live batches that the plan allows are there; the refused one is none of them.
    assert dict(tenant.quotas.see(tenant.tenant_id).enqueued_tokens) == {"chat": 400, "echo": 1200}


def test_a_refused_batch_has_no_shards_and_reserves_nothing(tenant: Tenant) -> None:
    claim = tenant.submit()
    tenant.batches.admit(claim, admitted(claim.batch_id, 51))

    view = tenant.batches.get(claim.batch_id)
    assert (view.rows_total, view.errors_total) == (51, 1)
    assert tenant.world.shard_ids(claim.batch_id) == []
    assert tenant.sums() == (0, 0, 0)
    # As after any end, whoever held the claim is late.
    with pytest.raises(LeaseLostError):
        tenant.batches.admit(claim, admitted(claim.batch_id, 51))


def test_admitting_twice_reserves_once(tenant: Tenant) -> None:
    claim = tenant.submit()

    for _ in range(2):
        assert tenant.batches.admit(claim, admitted(claim.batch_id, 30)) is BatchState.IN_PROGRESS

    assert tenant.sums() == (30, 600, 600)


def test_a_batch_of_which_nothing_can_run_takes_nothing(tenant: Tenant) -> None:
    claim = tenant.submit()

    assert tenant.batches.admit(claim, admitted(claim.batch_id, rows_refused=5)) is BatchState.IN_PROGRESS

    assert tenant.sums() == (0, 0, 0)


def test_a_month_that_has_turned_starts_at_nothing_and_what_is_enqueued_stays(tenant: Tenant) -> None:
    assert tenant.admit(40)
    tenant.world.execute(
        "UPDATE quota_reservations SET month = month - interval '1 month' WHERE tenant_id = :id", id=tenant.tenant_id
    )

    assert tenant.sums() == (0, 0, 800)
    assert tenant.error(21).code == "token_limit_exceeded"


def test_the_ceiling_is_looked_at_again_when_a_batch_is_taken_in(tenant: Tenant) -> None:
    claim = tenant.submit()
    tenant.plan = replace(SMALL, tier_ceiling=Tier.BULK)

    tenant.batches.admit(claim, admitted(claim.batch_id, 1))

    (error,) = tenant.batches.get(claim.batch_id).errors
    assert error.code == "tier_not_allowed"


def test_another_plan_holds_for_the_next_batch_and_counts_what_was_taken_under_the_old_one(tenant: Tenant) -> None:
    tenant.quotas.set_plan(tenant.tenant_id, "unlimited")
    assert tenant.admit(90)
    assert tenant.admit(90)

    tenant.quotas.set_plan(tenant.tenant_id, "small")

    assert tenant.sums()[0] == 180
    assert tenant.error(1).code == "token_limit_exceeded"
    with pytest.raises(UsageError, match="there is no plan 'gold'"):
        tenant.quotas.set_plan(tenant.tenant_id, "gold")
    with pytest.raises(NotFoundError):
        tenant.quotas.set_plan(TenantId("tnt_nobody"), "free")


def test_tenants_are_on_the_free_plan_unless_said_and_the_default_one_has_no_limits(shared: World) -> None:
    shared.execute("INSERT INTO tenants (id, name) VALUES ('tnt_new', 'new')")
    quotas = QuotaRepository(shared.database)

    assert quotas.see(TenantId("tnt_new")).plan == BUILT_IN["free"]
    assert quotas.see(DEFAULT_TENANT).plan == BUILT_IN["unlimited"]


# --- making a batch ---------------------------------------------------------------------------


def test_a_batch_more_than_may_be_live_is_not_made(tenant: Tenant) -> None:
    made = [tenant.scoped.submit(tenant.submission(key=f"key {number}")) for number in range(3)]

    with pytest.raises(BatchLimitError, match="allows 3 batches"):
        tenant.scoped.submit(tenant.submission())
    with pytest.raises(BatchLimitError):
        tenant.batches.submit(tenant.submission())

    # What was made before is returned, whatever there is room for.
    assert tenant.scoped.submit(tenant.submission(key="key 2")).batch_id == made[2].batch_id
    assert tenant.quotas.see(tenant.tenant_id).batches_live == 3
    tenant.cancel(made[0].batch_id)
    assert tenant.scoped.submit(tenant.submission()).state is BatchState.VALIDATING


def test_of_many_that_are_made_at_once_no_more_are_live_than_may_be(tenant: Tenant) -> None:
    def make(_: int) -> bool:
        try:
            tenant.scoped.submit(tenant.submission())
        except BatchLimitError:
            return False
        return True

    with ThreadPoolExecutor(6) as threads:
        assert sum(threads.map(make, range(12))) == 3


def test_a_tier_above_the_ceiling_is_neither_made_nor_steered_to(tenant: Tenant) -> None:
    with pytest.raises(TierNotAllowedError, match="Allowed values: 'standard', 'bulk', 'nightly'"):
        tenant.scoped.submit(tenant.submission(tier=Tier.URGENT))
    assert tenant.quotas.see(tenant.tenant_id).batches_live == 0
    made = tenant.scoped.submit(tenant.submission(tier=Tier.NIGHTLY))
    scope = Scope(tenant_id=tenant.tenant_id)

    assert tenant.scoped.steer(made.batch_id, scope, Steering(tier=Tier.STANDARD)).tier is Tier.STANDARD
    with pytest.raises(TierNotAllowedError):
        tenant.scoped.steer(made.batch_id, scope, Steering(tier=Tier.URGENT))
    with pytest.raises(NotFoundError):
        tenant.scoped.steer(made.batch_id, Scope(tenant_id=DEFAULT_TENANT), Steering(tier=Tier.URGENT))


# --- giving back ------------------------------------------------------------------------------


def test_a_batch_that_ends_keeps_what_ran_and_gives_back_the_rest(tenant: Tenant) -> None:
    batch_id = tenant.admit(40)
    assert batch_id is not None
    tenant.run(batch_id, 10, 70, tenant.world.worker())
    # Until it ends, all of it is taken.
    assert tenant.sums() == (40, 800, 800)

    tenant.cancel(batch_id)

    assert tenant.sums() == (10, 70, 0)


def test_measured_tokens_count_where_there_are_more_than_were_estimated(tenant: Tenant) -> None:
    batch_id = tenant.admit(2)
    assert batch_id is not None
    tenant.run(batch_id, 2, 3000, tenant.world.worker())
    tenant.world.advance()

    tenant.end(batch_id, BatchState.FINALIZING)

    assert tenant.sums() == (2, 3000, 0)
    assert tenant.error(1).code == "monthly_token_limit_exceeded"


def test_every_end_gives_back(tenant: Tenant) -> None:
    tenant.plan = replace(SMALL, batches_live_max=None)
    lost, refused, cancelled, expired = (tenant.admit(10) for _ in range(4))
    assert lost is not None
    assert refused is not None
    assert cancelled is not None
    assert expired is not None

    tenant.batches.cancel(lost)
    claim = tenant.batches.claim([BatchState.CANCELLING], batch_id=lost)
    assert claim is not None
    tenant.batches.give_up(claim, LineError(code="results_lost", message="x", param=None, line=None))
    tenant.world.execute(
        "UPDATE batches SET state = 'failed', failed_at = now(), errors = '[]' WHERE id = :id", id=refused
    )
    tenant.cancel(cancelled)
    tenant.world.overdue(expired)
    tenant.world.advance()
    tenant.end(expired, BatchState.FINALIZING)

    assert tenant.batches.get(expired).state is BatchState.EXPIRED
    assert tenant.sums() == (0, 0, 0)
    assert tenant.world.scalars(
        "SELECT count(*) FROM quota_reservations WHERE tenant_id = :id AND settled_at IS NULL", id=tenant.tenant_id
    ) == [0]


def test_bad_input_takes_nothing(tenant: Tenant) -> None:
    claim = tenant.submit()

    tenant.batches.reject(claim, Rejected(errors=(), errors_total=1, rows_total=9))

    assert tenant.sums() == (0, 0, 0)


def test_an_end_that_is_rolled_back_gives_nothing_back(tenant: Tenant) -> None:
    batch_id = tenant.admit(10)
    statement = text("UPDATE batches SET state = 'failed', failed_at = now(), errors = '[]' WHERE id = :id")

    with tenant.world.database.engine.connect() as connection:
        connection.execute(statement, {"id": batch_id})
        connection.rollback()

    assert tenant.sums() == (10, 200, 200)


# --- at once ----------------------------------------------------------------------------------


def test_of_batches_that_are_admitted_at_once_no_more_fit_than_there_is_room_for(tenant: Tenant) -> None:
    tenant.plan = replace(SMALL, batches_live_max=None, enqueued_tokens_max=None)
    claims = [tenant.submit() for _ in range(8)]

    def admit(claim: BatchClaim) -> BatchState:
        return tenant.batches.admit(claim, admitted(claim.batch_id, 30))

    with ThreadPoolExecutor(6) as threads:
        states = list(threads.map(admit, claims))

    assert states.count(BatchState.IN_PROGRESS) == 3
    assert tenant.sums() == (90, 1800, 1800)


def test_a_batch_waits_for_one_that_is_being_admitted_and_then_sees_what_it_took(tenant: Tenant) -> None:
    first, second = tenant.submit(), tenant.submit()
    waiting = text(
        "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
    )
    with ThreadPoolExecutor(1) as threads, tenant.world.database.engine.connect() as connection:
        # As `admit` does it, in a transaction that is still open.
        connection.execute(text("SELECT FROM tenants WHERE id = :id FOR NO KEY UPDATE"), {"id": tenant.tenant_id})
        connection.execute(
            text("""
                INSERT INTO quota_reservations
                       (batch_id, tenant_id, month, model, rows, tokens, rows_reserved, tokens_reserved)
                VALUES (:batch_id, :id, date_trunc('month', now()), 'echo', 40, 800, 40, 800)
            """),
            {"batch_id": first.batch_id, "id": tenant.tenant_id},
        )
        admission = threads.submit(tenant.batches.admit, second, admitted(second.batch_id, 30))
        with tenant.world.database.engine.connect() as other:
            alone = other.execution_options(isolation_level="AUTOCOMMIT")
            eventually(lambda: alone.execute(waiting).scalar_one() == 1)
        assert not admission.done()
        connection.commit()

        assert admission.result() is BatchState.FAILED


def test_another_tenant_does_not_wait(shared: World) -> None:
    busy, other = Tenant(shared), Tenant(shared)

    with shared.database.engine.connect() as connection:
        connection.execute(text("SELECT FROM tenants WHERE id = :id FOR NO KEY UPDATE"), {"id": busy.tenant_id})

        assert other.admit(10)


ACTIONS = st.lists(
    st.one_of(
        st.tuples(st.just("admit"), st.integers(1, 50), st.just(0)),
        st.tuples(st.just("run"), st.integers(0, 9), st.integers(0, 900)),
        st.tuples(st.just("cancel"), st.integers(0, 9), st.just(0)),
        st.tuples(st.just("complete"), st.integers(0, 9), st.integers(0, 900)),
    ),
    max_size=12,
)


@dataclass(slots=True)
class Expected:
    """What one batch should be counted as."""

    rows: int
    ran: int = 0
    tokens: int = 0
    has_ended: bool = False


@given(actions=ACTIONS)
@settings(max_examples=25, deadline=None, derandomize=True)
def test_whatever_is_admitted_run_and_ended_in_between_the_sums_are_those_of_the_batches(
    shared: World, actions: Sequence[tuple[str, int, int]]
) -> None:
    tenant = Tenant(shared, replace(SMALL, batches_live_max=None, rows_max=None))
    worker_id = shared.worker()
    batches: dict[BatchId, Expected] = {}
    for action, number, tokens in actions:
        before = tenant.sums()
        open_ones = [batch_id for batch_id, each in batches.items() if not each.has_ended]
        if action == "admit":
            made = tenant.admit(number)
            fits = (
                before[0] + number <= 100
                and before[1] + TOKENS_A_ROW * number <= 2000
                and before[2] + TOKENS_A_ROW * number <= 1200
            )
            assert (made is not None) == fits
            if made is not None:
                batches[made] = Expected(number)
        elif open_ones:
            batch_id = open_ones[number % len(open_ones)]
            act(tenant, action, batch_id, batches[batch_id], tokens, worker_id)
        assert tenant.sums() == sums_of(batches.values())
        # Rows that run are never more than what was reserved for them.
        assert tenant.sums()[0] <= 100
        assert tenant.sums()[2] <= 1200


def act(tenant: Tenant, action: str, batch_id: BatchId, expected: Expected, tokens: int, worker_id: WorkerId) -> None:
    if action in {"run", "complete"} and expected.ran == 0:
        rows = expected.rows if action == "complete" else -(-expected.rows // 2)
        tenant.run(batch_id, rows, tokens, worker_id)
        expected.ran, expected.tokens = rows, tokens
    if action == "complete" and expected.ran == expected.rows:
        tenant.world.advance()
        tenant.end(batch_id, BatchState.FINALIZING)
        expected.has_ended = True
    elif action == "cancel":
        tenant.cancel(batch_id)
        expected.has_ended = True


def sums_of(batches: Iterable[Expected]) -> tuple[int, int, int]:
    known = list(batches)
    return (
        sum(each.ran if each.has_ended else each.rows for each in known),
        sum(each.tokens if each.has_ended else TOKENS_A_ROW * each.rows for each in known),
        sum(TOKENS_A_ROW * each.rows for each in known if not each.has_ended),
    )


def test_a_second_try_at_making_a_batch_is_counted_once(tenant: Tenant) -> None:
    for _ in range(3):
        tenant.scoped.submit(tenant.submission(key="same"), alike_within=timedelta(minutes=1))

    assert tenant.quotas.see(tenant.tenant_id).batches_live == 1
