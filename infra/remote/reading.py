"""What servers answer, as what the command line works with."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import fields
from datetime import UTC, datetime
from typing import Any, Final, TypeVar

from infra.remote.errors import InputRefusedError, ServerAnswerError
from pipeline.domain.costs.charging import AT_COST, ChargeTerms
from pipeline.domain.endpoints import Endpoint
from pipeline.domain.errors import UsageError
from pipeline.domain.ids import BatchId, FileId, ProjectId, TenantId
from pipeline.domain.lifecycle import BatchState
from pipeline.domain.money import MICROS_PER_UNIT
from pipeline.domain.promises import Promise
from pipeline.domain.reasons import Reason
from pipeline.domain.tiers import Tier
from pipeline.ports.batches import BatchView, LineError, Rejected, ShardEstimate, Survey
from pipeline.ports.desk import FileFacts
from pipeline.ports.explain import Change, Explained, Explanation, Past, Subject
from pipeline.ports.meters import BatchMeters
from pipeline.ports.quotes import ExpectedTokens, FileQuote, TierQuote

Document = Mapping[str, Any]
_Read = TypeVar("_Read")

_REJECTED: Final = re.compile(r"(?:Line (?P<line>\d+): )?(?P<message>.*?)(?: \((?P<more>[\d,]+) more\))?", re.DOTALL)


def text_in(document: object, name: str) -> str:
    """Return a text of a document, or raise `ServerAnswerError`."""
    value = document.get(name) if isinstance(document, Mapping) else None
    if not isinstance(value, str) or not value:
        raise ServerAnswerError(f"the server's answer has no {name!r}", hint="is it a server of Nightrate? see --url")
    return value


def read(what: str, reader: Callable[[Document], _Read], document: Document) -> _Read:
    """Return what `reader` makes of a document, or raise `ServerAnswerError` where it is none."""
    try:
        return reader(document)
    except (LookupError, TypeError, ValueError, AttributeError, OverflowError, UsageError) as error:
        raise ServerAnswerError(
            f"the server answered what is no {what} here ({type(error).__name__}: {error})",
            hint="is it a server of Nightrate, of this release? see --url",
        ) from error


def batch_view(document: Document) -> BatchView:
    """Read a batch."""
    rows = document["rows"]
    usage = document["usage"] or {"input_tokens": 0, "output_tokens": 0}
    entered = {state: _at(document.get(f"{state}_at")) for state in BatchState}
    entered[BatchState.VALIDATING] = _at(document["created_at"])
    reason = document["reason"]
    return BatchView(
        batch_id=BatchId(str(document["id"])),
        tenant_id=TenantId(str(document["tenant_id"])),
        project_id=ProjectId(str(document["project_id"])),
        state=BatchState(document["status"]),
        reason=None if reason is None else Reason(reason["code"]),
        endpoint=Endpoint(document["endpoint"]),
        completion_window=str(document["completion_window"]),
        tier=Tier(document["tier"]),
        metadata=document["metadata"],
        labels=document["labels"],
        priority=int(document["priority"]),
        retry_of=document["retry_of"],
        budget_micros=None if document["max_cost"] is None else _micros(document["max_cost"]),
        input_file_id=FileId(str(document["input_file_id"])),
        output_file_id=document["output_file_id"],
        error_file_id=document["error_file_id"],
        errors=tuple(_line_error(each) for each in (document["errors"] or {"data": ()})["data"]),
        errors_total=int(document["errors_total"]),
        trouble=document["trouble"],
        rows_total=int(rows["total"]),
        rows_duplicate=int(rows["duplicate"]),
        rows_refused=int(rows["refused"]),
        rows_succeeded=int(rows["succeeded"]),
        rows_errored=int(rows["errored"]),
        rows_completed=None if rows["completed"] is None else int(rows["completed"]),
        rows_failed=None if rows["failed"] is None else int(rows["failed"]),
        input_tokens=int(usage["input_tokens"]),
        output_tokens=int(usage["output_tokens"]),
        cost_micros=_micros(document["cost"]["amount"]),
        currency=str(document["cost"]["currency"]),
        models=tuple(map(str, document["models"])),
        created_at=_instant(document["created_at"]),
        deadline_at=_instant(document["expires_at"]),
        promise=Promise(document["promise"]),
        hold_until=_at(document["hold_until"]),
        paused_at=_at(document["paused_at"]),
        steered_at=_at(document["steered_at"]),
        entered_at={state: at for state, at in entered.items() if at is not None},
        terms=_terms(document.get("price")),
        charge_factors=_factors(document.get("price")),
    )


def _terms(price: Document | None) -> ChargeTerms:
    # A server of an older release tells none.
    if price is None:
        return AT_COST
    inputs, outputs = price["input_per_million"], price["output_per_million"]
    return ChargeTerms(
        multiplier_ppm=_micros(price["multiplier"]),
        input_token_picos=None if inputs is None else _micros(inputs),
        output_token_picos=None if outputs is None else _micros(outputs),
    )


def _factors(price: Document | None) -> dict[str, int]:
    return {} if price is None else {str(name): _micros(factor) for name, factor in price["factors"].items()}


def file_facts(document: Document) -> FileFacts:
    """Read a file."""
    return FileFacts(file_id=str(document["id"]), size_bytes=int(document["bytes"]), sha256=str(document["sha256"]))


def batch_meters(document: Document) -> BatchMeters:
    """Read meters; what the server does not tell nothing measured."""
    told = {field.name: document.get(field.name) for field in fields(BatchMeters)}
    for name in ("fingerprints", "energy_sources"):
        told[name] = tuple(map(str, document[name]))
    told |= {name: int(document[name]) for name in ("attempts", "tokens")}
    return BatchMeters(**told)  # type: ignore[arg-type]  # numbers or None, as the API declares them


def explained(document: Document) -> Explained:
    """Read an explanation."""
    told = Explanation(
        subject=Subject.BATCH,
        subject_id=str(document["id"]),
        state=str(document["state"]),
        reason=str(document["reason"]),
        sentence=str(document["sentence"]),
        since=_iso(document["since"]),
        changes=tuple(Change(sentence=str(each["sentence"])) for each in document["changes"]),
        notes={str(name): str(note) for name, note in document["notes"].items()},
        figures=dict(document["figures"]),
    )
    history = tuple(
        Past(
            what=str(past["what"]),
            sentence=str(past["sentence"]),
            since=datetime.fromisoformat(past["since"]),
            until=_iso(past["until"]),
        )
        for past in document["history"]
    )
    return Explained(now=datetime.fromisoformat(document["now"]), explanation=told, history=history)


def file_quote(document: Document, *, windows: Mapping[str, float]) -> FileQuote:
    """Read a quote; `windows` by how they are written, in seconds."""
    rows, tokens = document["rows"], document["tokens"]
    distinct = int(rows["total"]) - int(rows["duplicate"]) - int(rows["refused"])
    size = ShardEstimate(
        rows=distinct, input_tokens=int(tokens["input"]), output_tokens=int(tokens["output_most"]), template=0
    )
    return FileQuote(
        survey=Survey(
            model=str(document["model"]),
            rows_total=int(rows["total"]),
            rows_duplicate=int(rows["duplicate"]),
            rows_refused=int(rows["refused"]),
            shards=(size,) if distinct > 0 else (),
        ),
        # From how many answers this was learned servers do not tell: they are others', too.
        tokens=ExpectedTokens(
            input_tokens=float(tokens["input"]),
            output_tokens=float(tokens["output_expected"]),
            answers_known=0.0,
            answer_tokens=None,
        ),
        tiers=tuple(_tier_quote(each, windows) for each in document["tiers"]),
    )


def rejected(error: InputRefusedError) -> Rejected:
    """Return what is wrong with a file that no quote was made of."""
    found = _REJECTED.fullmatch(error.message)
    assert found is not None, "it matches whatever is said"
    line = found["line"]
    first = LineError(
        code=error.wire_code or error.code,
        message=found["message"],
        param=error.param,
        line=None if line is None else int(line),
    )
    more = int((found["more"] or "0").replace(",", ""))
    return Rejected(errors=(first,), errors_total=1 + more, rows_total=0)


def _tier_quote(document: Document, windows: Mapping[str, float]) -> TierQuote:
    cost, finish, shortest = document["cost"], document["finish_seconds"], document["shortest_window_seconds"]
    return TierQuote(
        tier=Tier(document["tier"]),
        variant=document["variant"],
        cost_micros=None if cost is None else (_micros(cost["low"]), _micros(cost["high"])),
        currency="USD" if cost is None else str(cost["currency"]),
        finish_seconds=None
        if finish is None
        else (float(finish["low"]), float(finish["median"]), float(finish["high"])),
        chances={
            seconds: float(document["chances"][text])
            for text, seconds in windows.items()
            if text in document["chances"]
        },
        can_promise=bool(document["can_promise"]),
        promise_seconds=None if shortest is None else float(shortest),
        is_measured=bool(document["is_measured"]),
    )


def _line_error(document: Document) -> LineError:
    line = document["line"]
    return LineError(
        code=str(document["code"]),
        message=str(document["message"]),
        param=document["param"],
        line=None if line is None else int(line),
    )


def _micros(amount: str) -> int:
    """Return the micro-units of an amount as servers write it, which may be nothing or less."""
    sign = -1 if amount.startswith("-") else 1
    units, _, fraction = amount.removeprefix("-").partition(".")
    return sign * (int(units) * MICROS_PER_UNIT + int(f"{fraction:0<6}"[:6]))


def _instant(seconds: object) -> datetime:
    if not isinstance(seconds, int):
        raise TypeError(f"{seconds!r} is no instant")
    return datetime.fromtimestamp(seconds, UTC)


def _at(seconds: object) -> datetime | None:
    return None if seconds is None else _instant(seconds)


def _iso(written: str | None) -> datetime | None:
    return None if written is None else datetime.fromisoformat(written)
