"""Files, batches and models as JSON: OpenAI's fields first, then what goes beyond them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Final

import orjson
from fastapi.responses import Response

from pipeline.domain.costs.tariffs import price_document
from pipeline.domain.lifecycle import BatchState
from pipeline.domain.money import amount
from pipeline.domain.reasons import SENTENCES
from pipeline.ports.batches import BatchView
from pipeline.ports.files import FileView
from scheduler.explain.tenants import Eta

Document = dict[str, object]

_ENDED_AT: Final = (
    BatchState.IN_PROGRESS,
    BatchState.FINALIZING,
    BatchState.COMPLETED,
    BatchState.FAILED,
    BatchState.EXPIRED,
    BatchState.CANCELLING,
    BatchState.CANCELLED,
)


def answer(document: object, *, status: int = 200) -> Response:
    """Return a document as a response."""
    return Response(orjson.dumps(document), status_code=status, media_type="application/json")


def seconds(at: datetime | None) -> int | None:
    """Return an instant in whole Unix seconds."""
    return None if at is None else int(at.timestamp())


def file_document(view: FileView) -> Document:
    """Return a file object."""
    return {
        "id": view.file_id,
        "object": "file",
        "bytes": view.size_bytes,
        "created_at": seconds(view.created_at),
        "expires_at": seconds(view.expires_at),
        "filename": view.filename,
        "purpose": str(view.purpose),
        "status": "processed",
        "status_details": None,
        "sha256": view.sha256,
    }


def batch_document(view: BatchView) -> Document:
    """Return a batch object."""
    return {
        "id": view.batch_id,
        "object": "batch",
        "endpoint": str(view.endpoint),
        "model": view.models[0] if view.models else None,
        "errors": _errors(view),
        "input_file_id": view.input_file_id,
        "completion_window": view.completion_window,
        "status": str(view.state),
        "output_file_id": view.output_file_id,
        "error_file_id": view.error_file_id,
        "created_at": seconds(view.created_at),
        "expires_at": seconds(view.deadline_at),
        **{f"{state}_at": seconds(view.entered_at.get(state)) for state in _ENDED_AT},
        "request_counts": _counts(view),
        "usage": _usage(view),
        "metadata": view.metadata,
        **_beyond(view),
    }


def eta_document(eta: Eta | None) -> Document | None:
    """Return when a batch is likely to end."""
    if eta is None:
        return None
    return {"earliest": seconds(eta.earliest), "likely": seconds(eta.likely), "latest": seconds(eta.latest)}


def list_document(items: Iterable[Document], *, limit: int) -> Document:
    """Return a page of a list; `items` has one more than `limit` where there is another page."""
    found = list(items)
    data = found[:limit]
    return {
        "object": "list",
        "data": data,
        "first_id": data[0]["id"] if data else None,
        "last_id": data[-1]["id"] if data else None,
        "has_more": len(found) > limit,
    }


def models_document(models: Sequence[tuple[str, Sequence[str]]]) -> Document:
    """Return the list of models (name, endpoints)."""
    return {"object": "list", "data": [model_document(name, endpoints) for name, endpoints in models]}


def model_document(name: str, endpoints: Sequence[str]) -> Document:
    """Return one model."""
    return {"id": name, "object": "model", "created": 0, "owned_by": "nightrate", "endpoints": list(endpoints)}


def _errors(view: BatchView) -> Document | None:
    if not view.errors:
        return None
    data = [
        {"code": error.code, "message": error.message, "param": error.param, "line": error.line}
        for error in view.errors
    ]
    return {"object": "list", "data": data}


def _counts(view: BatchView) -> Document:
    if view.rows_completed is not None and view.rows_failed is not None:
        return {"total": view.rows_total, "completed": view.rows_completed, "failed": view.rows_failed}
    # Duplicates count once their leaders' results are written for them.
    failed = view.rows_errored + view.rows_refused
    return {"total": view.rows_total, "completed": view.rows_succeeded, "failed": failed}


def _usage(view: BatchView) -> Document | None:
    if BatchState.IN_PROGRESS not in view.entered_at:
        return None
    return {
        "input_tokens": view.input_tokens,
        "input_tokens_details": {"cached_tokens": 0},
        "output_tokens": view.output_tokens,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": view.input_tokens + view.output_tokens,
    }


def _beyond(view: BatchView) -> Document:
    return {
        "tier": str(view.tier),
        "priority": view.priority,
        "labels": view.labels,
        "project_id": view.project_id,
        "max_cost": None if view.budget_micros is None else amount(view.budget_micros),
        "charged": {"amount": amount(view.cost_micros), "currency": view.currency},
        "cost": {"amount": amount(view.cost_micros), "currency": view.currency},
        "price": price_document(view.terms, view.charge_factors),
        "reason": None if view.reason is None else {"code": str(view.reason), "message": SENTENCES[view.reason]},
        "promise": str(view.promise),
        "retry_of": view.retry_of,
        "hold_until": seconds(view.hold_until),
        "paused_at": seconds(view.paused_at),
        "errors_total": view.errors_total,
        "tenant_id": view.tenant_id,
        "models": list(view.models),
        "rows": _rows(view),
        # Why is between the installation and whoever runs it.
        "trouble": None if view.trouble is None else "the last try at it failed",
        "steered_at": seconds(view.steered_at),
    }


def _rows(view: BatchView) -> Document:
    return {
        "total": view.rows_total,
        "duplicate": view.rows_duplicate,
        "refused": view.rows_refused,
        "succeeded": view.rows_succeeded,
        "errored": view.rows_errored,
        "completed": view.rows_completed,
        "failed": view.rows_failed,
    }
