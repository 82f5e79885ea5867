"""Advice from what this installation, or what somebody sees of it, used lately."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Final

from pipeline.app.stack import Stack
from pipeline.domain.money import amount
from pipeline.ports.access import Scope
from pipeline.ports.usage import Usage
from pipeline.report.advice.ranking import Suggestion, advise, spent_micros_per_month
from storage.overview import clock
from storage.usage import UsageRepository

DAYS_MAX: Final = 90
DAYS_BY_DEFAULT: Final = 30


@dataclass(frozen=True, slots=True, kw_only=True)
class Advice:
    """Suggestions, and what they are measured against."""

    usage: Usage
    spent_micros_per_month: int
    suggestions: tuple[Suggestion, ...]


def advice(stack: Stack, scope: Scope | None, *, days: int, reserved_discount_percent: float | None = None) -> Advice:
    """Return advice from the last `days`; without a scope, from all that the installation did, its workers included."""
    assert 1 <= days <= DAYS_MAX
    until = clock(stack.database)
    found = UsageRepository(stack.database).usage(
        scope, since=until - timedelta(days=days), until=until, currency=stack.settings.currency
    )
    usage = replace(found, reserved_discount_percent=reserved_discount_percent)
    return Advice(usage=usage, spent_micros_per_month=spent_micros_per_month(usage), suggestions=advise(usage))


def advice_document(found: Advice) -> dict[str, object]:
    """Return advice for programs: money as decimal text in `currency`, shares in percent."""
    return {
        "object": "organization.advice",
        "since": found.usage.since.isoformat(),
        "until": found.usage.until.isoformat(),
        "currency": found.usage.currency,
        "spent_per_month": amount(found.spent_micros_per_month),
        "saving_per_month": amount(sum(each.saving_micros_per_month for each in found.suggestions)),
        "data": [_document(each) for each in found.suggestions],
    }


def _document(each: Suggestion) -> dict[str, object]:
    evidence = {
        name.replace("_micros", ""): amount(value) if "_micros" in name and isinstance(value, int) else value
        for name, value in each.evidence.items()
    }
    return {
        "rank": each.rank,
        "kind": str(each.kind),
        "subject": each.subject,
        "sentence": each.sentence,
        "saving_per_month": amount(each.saving_micros_per_month),
        "saving_alone_per_month": amount(each.alone_micros_per_month),
        "confidence": str(each.confidence),
        "evidence": evidence,
        "command": each.command,
    }
