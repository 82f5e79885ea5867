"""Prices of batches: fixed in the transaction that submits them, and again when their tier is changed."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

import orjson
from sqlalchemy import Connection, Row, text

from pipeline.domain.costs.charging import ChargeTerms
from pipeline.domain.costs.tariffs import multiplier_of
from pipeline.domain.ids import BatchId, TenantId
from pipeline.domain.plans import PlanBook
from pipeline.domain.tiers import Tier

_BATCH: Final = text("""
    SELECT batches.tenant_id, tier, plan, batches.created_at, clock_timestamp() AS now,
           (SELECT min(model) FROM shards WHERE batch_id = batches.id) AS model
      FROM batches JOIN tenants ON tenants.id = batches.tenant_id WHERE batches.id = :batch_id
""")
FREE_SHARE: Final = text("""
    SELECT count(*) AS workers, count(*) FILTER (WHERE NOT EXISTS (
               SELECT FROM packs WHERE state = 'leased' AND lease_worker_id = workers.id)) AS free
      FROM workers WHERE state NOT IN ('stopped', 'lost', 'draining', 'requested') AND NOT must_stop
""")
#: Once: what a batch was submitted at it keeps.
_FIX: Final = text("""
    UPDATE batches SET charge_multiplier_ppm = :multiplier_ppm, charge_factors = CAST(:factors AS jsonb)
     WHERE id = :batch_id AND charge_factors IS NULL
""")
_FIX_TOKENS: Final = text("""
    UPDATE batches SET input_token_price_picos = :input_picos, output_token_price_picos = :output_picos
     WHERE id = :batch_id AND input_token_price_picos IS NULL
    RETURNING id
""")
_FACTORS: Final = text("SELECT charge_factors FROM batches WHERE id = :batch_id")
_TENANT: Final = text("SELECT plan, clock_timestamp() AS now FROM tenants WHERE id = :tenant_id")


@dataclass(frozen=True, slots=True, kw_only=True)
class Priced:
    """What a batch is charged, and how that came about."""

    terms: ChargeTerms
    factors: dict[str, int]


def fix_price(connection: Connection, book: PlanBook, batch_id: BatchId) -> bool:
    """Fix what a batch is charged that was submitted just now; return whether that is anything but its cost."""
    if book.charges_cost:
        return False
    row = connection.execute(_BATCH, {"batch_id": batch_id}).one()
    factors = _factors(connection, book, row, tier=Tier(row.tier), at=row.created_at)
    if not factors:
        return False
    fixed = {"batch_id": batch_id, "multiplier_ppm": multiplier_of(factors), "factors": orjson.dumps(factors).decode()}
    connection.execute(_FIX, fixed)
    return True


def fix_token_prices(connection: Connection, book: PlanBook, batch_id: BatchId, model: str) -> None:
    """Fix the prices of its tokens, once its model is known and before any of it has run."""
    if model not in book.tariff.prices:
        return
    factors = connection.execute(_FACTORS, {"batch_id": batch_id}).scalar_one() or {}
    terms = book.tariff.terms(factors, model)
    picos = {"input_picos": terms.input_token_picos, "output_picos": terms.output_token_picos}
    connection.execute(_FIX_TOKENS, {"batch_id": batch_id, **picos})


def price_of_tier(connection: Connection, book: PlanBook, batch_id: BatchId, tier: Tier) -> Priced | None:
    """Return what a batch would be charged in another tier from now on; None where that is its tier, or it is gone."""
    row = connection.execute(_BATCH, {"batch_id": batch_id}).one_or_none()
    if row is None or row.tier == tier:
        return None
    factors = _factors(connection, book, row, tier=tier, at=row.now)
    return Priced(terms=book.tariff.terms(factors, row.model), factors=factors)


def terms_of_tiers(
    connection: Connection, book: PlanBook, tenant_id: TenantId, model: str
) -> dict[Tier, tuple[ChargeTerms, dict[str, int]]]:
    """Return what a tenant would be charged in each tier for a batch of a model that it submitted now."""
    row = connection.execute(_TENANT, {"tenant_id": tenant_id}).one_or_none()
    if row is None:
        return {}
    plan_ppm = book.plan_of(tenant_id, row.plan).price_ppm
    free = _free_share(connection, book)
    found = {tier: book.tariff.factors(tier=tier, plan_ppm=plan_ppm, at=row.now, free_share=free) for tier in Tier}
    return {tier: (book.tariff.terms(factors, model), factors) for tier, factors in found.items()}


def _factors(connection: Connection, book: PlanBook, row: Row[Any], *, tier: Tier, at: datetime) -> dict[str, int]:
    plan = book.plan_of(TenantId(row.tenant_id), row.plan)
    return book.tariff.factors(tier=tier, plan_ppm=plan.price_ppm, at=at, free_share=_free_share(connection, book))


def _free_share(connection: Connection, book: PlanBook) -> float:
    if book.tariff.elasticity is None:
        return 1.0
    fleet = connection.execute(FREE_SHARE).one()
    # Without a worker nothing is free.
    return float(fleet.free / fleet.workers) if fleet.workers else 0.0
