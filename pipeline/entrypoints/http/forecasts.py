"""Forecasts over the API: quotes before a batch is made, and explanations of one that is there."""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Final

from anyio import to_thread
from fastapi import APIRouter, Query, Request
from fastapi.responses import Response

from pipeline.app.explaining import explain_to_tenant
from pipeline.app.quoting import quote_stored
from pipeline.domain.files import FilePurpose
from pipeline.domain.money import amount
from pipeline.domain.windows import parse_window
from pipeline.entrypoints.http import forecast_schemas, schemas
from pipeline.entrypoints.http.batches import FORECASTS_AT_ONCE, Reading, Submitting, looked_up
from pipeline.entrypoints.http.documents import Document, answer
from pipeline.entrypoints.http.errors import ApiError
from pipeline.entrypoints.http.service import service_of
from pipeline.ports.batches import Rejected
from pipeline.ports.explain import Explained
from pipeline.ports.files import FileView
from pipeline.ports.quotes import FileQuote, TierQuote

router = APIRouter(tags=["Batches"])

#: Told of besides the window that is asked for.
_WINDOWS: Final = ("1h", "6h", "24h")
#: A quote reads all of the file while its client waits.
_QUOTED_BYTES_MAX: Final = 200 * 1024 * 1024


@router.post(
    "/v1/batches/quote",
    response_model=forecast_schemas.Quote,
    responses=schemas.errors(400, 404, 413),
    summary="Quote a batch",
)
async def quote_batch(request: Request, caller: Submitting, asked: schemas.CreateBatch) -> Response:
    """Say what a batch would cost and when it would be done, without making it: its file is read and checked now."""
    stack = service_of(request).stack
    file = await to_thread.run_sync(stack.files.get, asked.input_file_id, caller.scope)
    _refuse_unquotable(file)
    windows = {text: parse_window(text).total_seconds() for text in (asked.completion_window, *_WINDOWS)}
    found = await to_thread.run_sync(
        lambda: quote_stored(stack, file, asked.endpoint, windows=list(windows.values())), limiter=FORECASTS_AT_ONCE
    )
    if isinstance(found, Rejected):
        first = found.errors[0]
        where = "" if first.line is None else f"Line {first.line}: "
        more = f" ({found.errors_total - 1:,} more)" if found.errors_total > 1 else ""
        raise ApiError(400, f"{where}{first.message}{more}", code=first.code, param=first.param)
    return answer(_quote_document(asked, found, windows))


@router.get(
    "/v1/batches/{batch_id}/explain",
    response_model=forecast_schemas.Explanation,
    responses=schemas.errors(400, 404),
    summary="Explain a batch",
)
async def explain_batch(
    request: Request,
    caller: Reading,
    batch_id: str,
    *,
    history: Annotated[bool, Query(description="Every reason that it had, and how long.")] = False,
) -> Response:
    """Say why a batch stands where it stands, since when, and what would change it."""
    stack = service_of(request).stack
    view = await looked_up(request, caller, batch_id)
    told = await to_thread.run_sync(
        lambda: explain_to_tenant(stack, view.batch_id, with_history=history), limiter=FORECASTS_AT_ONCE
    )
    return answer(_explanation_document(told))


def _refuse_unquotable(file: FileView) -> None:
    if file.purpose is not FilePurpose.BATCH:
        message = f"File {file.file_id} has the purpose '{file.purpose}'; a batch needs one with the purpose 'batch'."
        raise ApiError(400, message, code="invalid_request", param="input_file_id")
    if file.size_bytes > _QUOTED_BYTES_MAX:
        raise ApiError(413, f"A quote reads files of up to {_QUOTED_BYTES_MAX:,} bytes.", code="file_too_large")


def _quote_document(asked: schemas.CreateBatch, found: FileQuote, windows: Mapping[str, float]) -> Document:
    survey = found.survey
    return {
        "object": "batch.quote",
        "input_file_id": asked.input_file_id,
        "endpoint": str(asked.endpoint),
        "completion_window": asked.completion_window,
        "model": survey.model,
        "rows": {"total": survey.rows_total, "duplicate": survey.rows_duplicate, "refused": survey.rows_refused},
        # How many answers this was learned from is not told: others asked for them.
        "tokens": {
            "input": round(found.tokens.input_tokens),
            "output_expected": round(found.tokens.output_tokens),
            "output_most": round(survey.size.output_tokens),
        },
        "tiers": [_offer_document(each, windows) for each in found.tiers],
    }


def _offer_document(offer: TierQuote, windows: Mapping[str, float]) -> Document:
    charge, finish = offer.cost_micros, offer.finish_seconds
    charged = charge and {"low": amount(charge[0]), "high": amount(charge[1]), "currency": offer.currency}
    return {
        "tier": str(offer.tier),
        "variant": offer.variant,
        "charge": charged,
        # As it was called before.
        "cost": charged,
        "finish_seconds": finish
        and dict(zip(("low", "median", "high"), (round(each, 1) for each in finish), strict=True)),
        "chances": {text: offer.chances[seconds] for text, seconds in windows.items() if seconds in offer.chances},
        "can_promise": offer.can_promise,
        "shortest_window_seconds": None if offer.promise_seconds is None else math.ceil(offer.promise_seconds),
        "is_measured": offer.is_measured,
    }


def _explanation_document(explained: Explained) -> Document:
    told, now = explained.explanation, explained.now
    return {
        "object": "batch.explanation",
        "id": told.subject_id,
        "now": now.isoformat(),
        "state": told.state,
        "reason": told.reason,
        "sentence": told.sentence,
        "since": _iso(told.since),
        "for_seconds": None if told.since is None else round(max(0.0, (now - told.since).total_seconds()), 3),
        "changes": [{"sentence": change.sentence} for change in told.changes],
        "notes": dict(told.notes),
        "figures": {
            name: _iso(value) if isinstance(value, datetime) else value for name, value in told.figures.items()
        },
        "history": [
            {"what": past.what, "sentence": past.sentence, "since": _iso(past.since), "until": _iso(past.until)}
            for past in explained.history
        ],
    }


def _iso(at: datetime | None) -> str | None:
    return None if at is None else at.isoformat()
