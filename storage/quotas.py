"""Quotas: batches are admitted into what is left of a plan, and give back what they did not use when they end.

Two batches of a tenant that has a limit take turns by a lock on the tenant's row, so that both cannot fit into what is left
for one. Ending needs no turn: it only gives back (a trigger settles the reservation, see the migration).
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Final

from sqlalchemy import Connection, text

from pipeline.domain.costs.charging import ChargeTerms
from pipeline.domain.errors import BatchLimitError, NotFoundError, TierNotAllowedError, UsageError
from pipeline.domain.ids import BatchId, TenantId
from pipeline.domain.plans import (
    BUILT_IN_BOOK,
    Plan,
    PlanBook,
    Used,
    Wanted,
    month_of,
    refuse_quota,
    refuse_terms,
    tier_sentence,
)
from pipeline.domain.tiers import Tier
from pipeline.ports.batches import Admitted, BatchClaim, BatchView, LineError, Submission
from pipeline.ports.quotas import QuotaView
from storage.batch_views import view_of
from storage.database import Database
from storage.pricing import fix_price, fix_token_prices, terms_of_tiers
from storage.submissions import add_batch

_STORED_PLAN: Final = text("SELECT plan FROM tenants WHERE id = :tenant_id")
_CLAIMED: Final = text("""
    SELECT tier, plan, clock_timestamp() AS now FROM batches JOIN tenants ON tenants.id = tenant_id
     WHERE batches.id = :batch_id
""")
#: Foreign keys to the tenant do not wait for it.
_TAKE_TURNS: Final = text("SELECT FROM tenants WHERE id = :tenant_id FOR NO KEY UPDATE")
USED_IN_MONTH: Final = text("""
    SELECT coalesce(sum(rows), 0) AS requests, coalesce(sum(tokens), 0) AS tokens
      FROM quota_reservations WHERE tenant_id = :tenant_id AND month = :month
""")
ENQUEUED: Final = text("""
    SELECT coalesce(sum(tokens_reserved), 0) FROM quota_reservations
     WHERE tenant_id = :tenant_id AND model = :model AND settled_at IS NULL
""")
ENQUEUED_BY_MODEL: Final = text("""
    SELECT model, sum(tokens_reserved) AS tokens FROM quota_reservations
     WHERE tenant_id = :tenant_id AND settled_at IS NULL GROUP BY model ORDER BY model
""")
LIVE: Final = text("""
    SELECT count(*) FROM batches
     WHERE tenant_id = :tenant_id AND state IN ('validating', 'in_progress', 'finalizing', 'cancelling')
""")
_RESERVE: Final = text("""
    INSERT INTO quota_reservations (batch_id, tenant_id, month, model, rows, tokens, rows_reserved, tokens_reserved)
    VALUES (:batch_id, :tenant_id, :month, :model, :rows, :tokens, :rows, :tokens)
""")
_SET_PLAN: Final = text("UPDATE tenants SET plan = :plan WHERE id = :tenant_id")
_NOW: Final = text("SELECT clock_timestamp()")


class QuotaRepository:
    """Which tenant has which plan, and what it has taken of it. Safe to share between threads."""

    def __init__(self, database: Database, book: PlanBook = BUILT_IN_BOOK) -> None:
        """Read plans of that price list."""
        self._database = database
        self._book = book

    def see(self, tenant_id: TenantId) -> QuotaView:
        """Return a tenant's plan and what is taken of it; raises `NotFoundError`."""

        def work(connection: Connection) -> QuotaView:
            plan = plan_within(connection, self._book, tenant_id)
            now: datetime = connection.execute(_NOW).scalar_one()
            tenant: dict[str, object] = {"tenant_id": tenant_id, "month": month_of(now)}
            used = connection.execute(USED_IN_MONTH, tenant).one()
            return QuotaView(
                tenant_id=tenant_id,
                plan=plan,
                now=now,
                requests=int(used.requests),
                tokens=int(used.tokens),
                batches_live=connection.execute(LIVE, tenant).scalar_one(),
                enqueued_tokens=tuple(
                    (row.model, int(row.tokens)) for row in connection.execute(ENQUEUED_BY_MODEL, tenant)
                ),
            )

        return self._database.run(work)

    def prices(self, tenant_id: TenantId, model: str) -> dict[Tier, ChargeTerms]:
        """Return what a tenant would be charged in each tier for a batch of a model that it submitted now."""

        def work(connection: Connection) -> dict[Tier, ChargeTerms]:
            return {
                tier: terms for tier, (terms, _) in terms_of_tiers(connection, self._book, tenant_id, model).items()
            }

        return self._database.run(work)

    def set_plan(self, tenant_id: TenantId, name: str) -> None:
        """Give a tenant another plan, for what comes from now on.

        Raises:
            UsageError: The price list has no such plan.
            NotFoundError: There is no such tenant.
        """
        if name not in self._book.plans:
            raise UsageError(f"there is no plan {name!r}", hint=f"there are {', '.join(self._book.plans)}")
        arguments = {"tenant_id": tenant_id, "plan": name}
        if not self._database.run(lambda connection: connection.execute(_SET_PLAN, arguments).rowcount):
            raise NotFoundError(f"there is no tenant {tenant_id}")


def plan_within(connection: Connection, book: PlanBook, tenant_id: TenantId) -> Plan:
    """Return a tenant's plan; raises `NotFoundError`."""
    stored = connection.execute(_STORED_PLAN, {"tenant_id": tenant_id}).scalar_one_or_none()
    if stored is None:
        raise NotFoundError(f"there is no tenant {tenant_id}")
    return book.plan_of(tenant_id, stored)


def check_tier(plan: Plan, tier: Tier | None) -> None:
    """Raise `TierNotAllowedError` where a tier is asked for that the plan does not have."""
    if tier is not None and tier not in plan.tiers:
        raise TierNotAllowedError(tier_sentence(plan, tier))


def add_batch_within(
    connection: Connection, book: PlanBook, submission: Submission, batch_id: BatchId, claim_for: timedelta
) -> BatchView:
    """Make the batch if its tenant's plan has room for one more; one that the same key made before needs none.

    Raises what `add_batch` raises, and `TierNotAllowedError` and `BatchLimitError`: then nothing is to be kept.
    """
    plan = plan_within(connection, book, submission.tenant_id)
    tenant = {"tenant_id": submission.tenant_id}
    if plan.batches_live_max is not None:
        connection.execute(_TAKE_TURNS, tenant)
    view = add_batch(connection, submission, batch_id, claim_for)
    if view.batch_id != batch_id:
        return view
    check_tier(plan, submission.tier)
    # It is counted itself: so a repetition of this very transaction finds what the first try found.
    if plan.batches_live_max is not None and connection.execute(LIVE, tenant).scalar_one() > plan.batches_live_max:
        raise BatchLimitError(
            f"The plan '{plan.name}' allows {plan.batches_live_max} batches that have not ended. "
            "Please try again once one has."
        )
    return view_of(connection, batch_id) if fix_price(connection, book, batch_id) else view


def reserve(connection: Connection, book: PlanBook, claim: BatchClaim, admitted: Admitted) -> LineError | None:
    """Reserve what a batch may need, or return why it does not fit; in the transaction that admits it."""
    claimed = connection.execute(_CLAIMED, {"batch_id": claim.batch_id}).one()
    plan = book.plan_of(claim.tenant_id, claimed.plan)
    wanted = Wanted(
        tenant_id=claim.tenant_id,
        tier=Tier(claimed.tier),
        # A file is of one model; without a shard nothing runs at all.
        model=admitted.shards[0].model if admitted.shards else "",
        rows_total=admitted.rows_total,
        requests=sum(shard.rows for shard in admitted.shards),
        tokens=sum(shard.input_tokens + shard.output_tokens for shard in admitted.shards),
    )
    refusal = refuse_terms(plan, wanted)
    arguments: dict[str, object] = {
        "batch_id": claim.batch_id,
        "tenant_id": claim.tenant_id,
        "month": month_of(claimed.now),
        "model": wanted.model,
        "rows": wanted.requests,
        "tokens": wanted.tokens,
    }
    if refusal is None and plan.has_quotas and admitted.shards:
        connection.execute(_TAKE_TURNS, arguments)
        # Each is a statement of its own, so that it sees what was reserved before our turn came.
        used = connection.execute(USED_IN_MONTH, arguments).one()
        enqueued = int(connection.execute(ENQUEUED, arguments).scalar_one())
        taken = Used(requests=int(used.requests), tokens=int(used.tokens), enqueued_tokens=enqueued)
        refusal = refuse_quota(plan, wanted, taken, now=claimed.now)
    if refusal is not None:
        return LineError(code=refusal.code, message=refusal.message, param=None, line=None)
    if admitted.shards:
        # Without limits, too: a plan may get some within the month.
        connection.execute(_RESERVE, arguments)
        fix_token_prices(connection, book, claim.batch_id, wanted.model)
    return None
