"""A batch as JSON and as lines: the same facts, for programs and for people."""

from __future__ import annotations

from collections.abc import Sequence

from pipeline.domain.costs.charging import AT_COST
from pipeline.domain.costs.tariffs import price_document, price_sentence
from pipeline.domain.lifecycle import BatchState
from pipeline.domain.promises import PROMISES
from pipeline.domain.reasons import SENTENCES
from pipeline.entrypoints.cli.figures import count, moment, money
from pipeline.ports.batches import BatchView, LineError

Document = dict[str, object]


def batch_document(view: BatchView) -> Document:
    """Return all that is known of a batch; money in micro-units, instants in ISO 8601."""
    return {
        "id": view.batch_id,
        "state": str(view.state),
        "reason": view.reason and str(view.reason),
        "reason_sentence": view.reason and SENTENCES[view.reason],
        "endpoint": str(view.endpoint),
        "tier": str(view.tier),
        "priority": view.priority,
        "completion_window": view.completion_window,
        "models": list(view.models),
        "metadata": view.metadata,
        "labels": view.labels,
        "rows": {
            "total": view.rows_total,
            "duplicate": view.rows_duplicate,
            "refused": view.rows_refused,
            "succeeded": view.rows_succeeded,
            "errored": view.rows_errored,
            "completed": view.rows_completed,
            "failed": view.rows_failed,
        },
        "tokens": {"input": view.input_tokens, "output": view.output_tokens},
        "charged_micros": view.cost_micros,
        # As it was called before; what it cost us is `nightrate cost report --by batch`.
        "cost_micros": view.cost_micros,
        "budget_micros": view.budget_micros,
        "price": price_document(view.terms, view.charge_factors),
        "currency": view.currency,
        "files": {"input": view.input_file_id, "output": view.output_file_id, "error": view.error_file_id},
        "errors": [line_error_document(error) for error in view.errors],
        "errors_total": view.errors_total,
        "trouble": view.trouble,
        "created_at": view.created_at.isoformat(),
        "deadline_at": view.deadline_at.isoformat(),
        "promise": str(view.promise),
        "hold_until": view.hold_until and view.hold_until.isoformat(),
        "paused_at": view.paused_at and view.paused_at.isoformat(),
        "entered_at": {str(state): at.isoformat() for state, at in view.entered_at.items()},
    }


def why(view: BatchView) -> str:
    """Return where the batch stands and why, in one sentence."""
    if view.state in {BatchState.COMPLETED, BatchState.VALIDATING, BatchState.FINALIZING} or view.reason is None:
        return _STATE_SENTENCES[view.state]
    return SENTENCES[view.reason]


def rows_done(view: BatchView) -> int:
    """Return how many lines of the input have their result, duplicates of finished rows not yet counted."""
    if view.rows_completed is not None and view.rows_failed is not None:
        return view.rows_completed + view.rows_failed
    return view.rows_succeeded + view.rows_errored + view.rows_refused


def batch_facts(view: BatchView) -> dict[str, str]:
    """Return the batch as names and values for people."""
    facts = {
        "batch": view.batch_id,
        "state": f"{view.state}: {why(view)}",
        "endpoint": str(view.endpoint),
        "models": ", ".join(view.models) or "-",
        "tier, window": f"{view.tier}, {view.completion_window}"
        + (f", priority {view.priority}" if view.priority else ""),
        "rows": _rows(view),
        "tokens": f"{count(view.input_tokens)} in, {count(view.output_tokens)} out",
        "charged": money(view.cost_micros, view.currency),
    }
    if view.trouble is not None:
        facts["trouble"] = f"{view.trouble}; it is tried again"
    if view.budget_micros is not None:
        facts["budget"] = money(view.budget_micros, view.currency)
    if view.terms != AT_COST:
        facts["price"] = price_sentence(view.terms, view.charge_factors, view.currency)
    facts |= {f"label {key}": value for key, value in (view.labels or {}).items()}
    facts |= {f"note {key}": value for key, value in (view.metadata or {}).items()}
    is_open = view.state is BatchState.IN_PROGRESS
    facts["deadline"] = moment(view.deadline_at) + (f", {PROMISES[view.promise]}" if is_open else "")
    if view.hold_until is not None:
        facts["not before"] = moment(view.hold_until)
    if view.paused_at is not None:
        facts["paused"] = moment(view.paused_at)
    facts["submitted"] = moment(view.created_at)
    facts |= {str(state): moment(at) for state, at in view.entered_at.items() if state is not BatchState.VALIDATING}
    files = {"input": view.input_file_id, "output": view.output_file_id, "error": view.error_file_id}
    return facts | {f"{name} file": str(file_id) for name, file_id in files.items() if file_id}


def error_lines(view: BatchView) -> list[str]:
    """Return what went wrong, a line each."""
    return line_error_texts(view.errors, view.errors_total)


def line_error_texts(errors: Sequence[LineError], total: int) -> list[str]:
    """Return what is wrong with a file, a line each; `total` counts those that are not listed too."""
    lines = []
    for error in errors:
        where = f"line {error.line}" if error.line else "file"
        field = f" ({error.param})" if error.param else ""
        lines.append(f"  {where}: {error.message}{field}")
    if total > len(errors):
        lines.append(f"  and {count(total - len(errors))} more")
    return lines


def line_error_document(error: LineError) -> Document:
    """Return one bad line."""
    return {"line": error.line, "code": error.code, "param": error.param, "message": error.message}


def _rows(view: BatchView) -> str:
    if view.rows_completed is not None and view.rows_failed is not None:
        parts = [f"{count(view.rows_completed)} ok", f"{count(view.rows_failed)} failed"]
    else:
        parts = [f"{count(view.rows_succeeded)} ok", f"{count(view.rows_errored + view.rows_refused)} failed so far"]
    parts.append(f"{count(view.rows_total)} in all")
    if view.rows_duplicate:
        parts.append(f"{count(view.rows_duplicate)} duplicates collapsed")
    return ", ".join(parts)


_STATE_SENTENCES = {
    BatchState.VALIDATING: "The input file is being read.",
    BatchState.FAILED: "The batch failed.",
    BatchState.IN_PROGRESS: "Rows are waiting or running.",
    BatchState.FINALIZING: "The output files are being written.",
    BatchState.COMPLETED: "Every row has its result.",
    BatchState.EXPIRED: "The completion window ended before the last row ran.",
    BatchState.CANCELLING: "The batch is being cancelled.",
    BatchState.CANCELLED: "The batch was cancelled.",
}
