"""Steering: what users change of a batch on its way."""

from __future__ import annotations

from typing import Final

import orjson
from sqlalchemy import Connection, text

from pipeline.domain.costs.charging import PAR_PPM
from pipeline.domain.errors import ConflictError
from pipeline.domain.ids import BatchId
from pipeline.domain.lifecycle import BatchState
from pipeline.domain.plans import BUILT_IN_BOOK, PlanBook
from pipeline.ports.batches import KEPT, BatchView, Kept, Steering
from storage.batch_statements import CANCEL, DECIDE
from storage.batch_views import view_of
from storage.pricing import Priced, price_of_tier
from storage.wakeups import send_wakeup

_STEER: Final = text("""
    UPDATE batches
       SET tier = coalesce(CAST(:tier AS text), tier),
           charge_multiplier_ppm = CASE WHEN :reprices THEN :multiplier_ppm ELSE charge_multiplier_ppm END,
           charge_factors = CASE WHEN :reprices THEN CAST(:factors AS jsonb) ELSE charge_factors END,
           input_token_price_picos = CASE WHEN :reprices THEN CAST(:input_picos AS bigint) ELSE input_token_price_picos END,
           output_token_price_picos = CASE WHEN :reprices THEN CAST(:output_picos AS bigint) ELSE output_token_price_picos END,
           deadline_at = coalesce(CAST(:deadline_at AS timestamptz), deadline_at),
           priority = coalesce(CAST(:priority AS integer), priority),
           budget_micros = CASE WHEN :changes_budget THEN CAST(:budget_micros AS bigint) ELSE budget_micros END,
           labels = CASE WHEN :changes_labels THEN CAST(:labels AS jsonb) ELSE labels END,
           metadata = CASE WHEN :changes_metadata THEN CAST(:metadata AS jsonb) ELSE metadata END,
           hold_until = CASE WHEN :changes_hold THEN CAST(:hold_until AS timestamptz) ELSE hold_until END,
           paused_at = CASE CAST(:is_paused AS boolean)
                         WHEN true THEN coalesce(paused_at, clock_timestamp()) WHEN false THEN NULL ELSE paused_at END,
           -- A nearer deadline is another promise; a later one keeps what was promised.
           promise = CASE WHEN CAST(:deadline_at AS timestamptz) < deadline_at OR promise <> 'made' THEN 'pending'
                          ELSE promise END,
           steered_at = clock_timestamp()
     WHERE id = :batch_id AND state IN ('validating', 'in_progress')
       AND (CAST(:deadline_at AS timestamptz) IS NULL OR CAST(:deadline_at AS timestamptz) > clock_timestamp())
""")

_SAY_PAUSED: Final = text("""
    UPDATE batches SET reason = 'user_paused', reason_at = clock_timestamp()
     WHERE id = :batch_id AND state = 'in_progress' AND reason IS DISTINCT FROM 'user_paused'
""")


def cancel(connection: Connection, batch_id: BatchId) -> BatchView:
    """Withdraw a batch; raises `NotFoundError`, and `ConflictError` when it has ended otherwise."""
    batch = {"batch_id": batch_id}
    if connection.execute(CANCEL, batch).rowcount:
        connection.execute(DECIDE, batch)
        send_wakeup(connection)
    view = view_of(connection, batch_id)
    if view.state not in {BatchState.CANCELLING, BatchState.CANCELLED}:
        raise ConflictError(f"Cannot cancel a batch with status '{view.state}'.")
    return view


def steer(connection: Connection, batch_id: BatchId, steering: Steering, book: PlanBook = BUILT_IN_BOOK) -> BatchView:
    """Change a batch on its way, all or nothing; packs that run already are not touched.

    In another tier it has another price: what is charged from now on is charged by today's terms.

    Raises `NotFoundError`, and `ConflictError` when the batch has ended or is about to, or the new deadline has passed.
    """
    priced = None if steering.tier is None else price_of_tier(connection, book, batch_id, steering.tier)
    arguments = {
        "batch_id": batch_id,
        **_price_arguments(priced),
        "tier": steering.tier,
        "deadline_at": steering.deadline_at,
        "changes_budget": steering.budget_micros is not KEPT,
        "budget_micros": None if steering.budget_micros is KEPT else steering.budget_micros,
        "changes_hold": steering.hold_until is not KEPT,
        "hold_until": None if steering.hold_until is KEPT else steering.hold_until,
        "is_paused": steering.is_paused,
        "priority": steering.priority,
        "changes_labels": steering.labels is not KEPT,
        "labels": _json(steering.labels),
        "changes_metadata": steering.metadata is not KEPT,
        "metadata": _json(steering.metadata),
    }
    is_changed = bool(connection.execute(_STEER, arguments).rowcount)
    # What else a change brings about, the next cycle says.
    if is_changed and steering.is_paused and connection.execute(_SAY_PAUSED, arguments).rowcount:
        connection.execute(DECIDE, arguments)
    view = view_of(connection, batch_id)
    if not is_changed:
        if view.state in {BatchState.VALIDATING, BatchState.IN_PROGRESS}:
            raise ConflictError(f"The deadline {steering.deadline_at:%Y-%m-%dT%H:%M:%SZ} has passed.")
        raise ConflictError(f"Cannot change a batch with status '{view.state}'.")
    send_wakeup(connection)
    return view


def _price_arguments(priced: Priced | None) -> dict[str, object]:
    return {
        "reprices": priced is not None,
        "multiplier_ppm": PAR_PPM if priced is None else priced.terms.multiplier_ppm,
        "factors": None if priced is None else orjson.dumps(priced.factors).decode(),
        "input_picos": None if priced is None else priced.terms.input_token_picos,
        "output_picos": None if priced is None else priced.terms.output_token_picos,
    }


def _json(pairs: dict[str, str] | Kept | None) -> str | None:
    return None if pairs is None or pairs is KEPT else orjson.dumps(pairs).decode()
