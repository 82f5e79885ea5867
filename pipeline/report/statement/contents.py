"""What a statement says, apart from how it looks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date

from pipeline.domain.figures import count, money
from pipeline.ports.cost_reports import Period, ReportLine

#: Batches, and rows of a table, that are listed one by one.
LISTED_MAX = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Bar:
    """One bar of a chart: what it is called, how long it is, and its figure as people read it."""

    name: str
    micros: int
    told: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Statement:
    """What one tenant was charged in one month, in one currency."""

    tenant_id: str
    tenant_name: str
    period: Period
    currency: str
    total: ReportLine
    by_day: Sequence[Bar]
    by_project: Sequence[Bar]
    by_model: Sequence[Bar]
    by_tier: Sequence[Bar]
    batches: Sequence[Bar]
    #: Batches beyond those that are listed, and what they were charged.
    batches_more: int
    batches_more_micros: int
    made_on: date

    @property
    def title(self) -> str:
        """Return what the page is called."""
        return f"Statement {self.period.first:%B %Y}"

    @property
    def facts(self) -> dict[str, str]:
        """Return the figures at its head."""
        per_million = _per(self.total.charged_micros * 1_000_000, self.total.tokens)
        return {
            "Charged": money(self.total.charged_micros, self.currency),
            "Requests": count(self.total.row_count),
            "Tokens": f"{count(self.total.input_tokens)} in, {count(self.total.output_tokens)} out",
            "Per million tokens": "-" if per_million is None else money(per_million, self.currency),
        }


def bars(lines: Sequence[ReportLine], *, nobodys: str = "-") -> list[Bar]:
    """Return what was charged under each key, the most first."""
    found = [
        Bar(name=line.key or nobodys, micros=line.charged_micros, told=money(line.charged_micros, line.currency))
        for line in lines
    ]
    return sorted(found, key=lambda bar: (-bar.micros, bar.name))


def days(lines: Sequence[ReportLine], period: Period, currency: str) -> list[Bar]:
    """Return what was charged on each day, those without charges too."""
    charged = {line.key: line.charged_micros for line in lines}
    return [
        Bar(
            name=f"{day:%d}",
            micros=charged.get(day.isoformat(), 0),
            told=money(charged.get(day.isoformat(), 0), currency),
        )
        for day in period.days()
    ]


def _per(micros: int, of: int) -> int | None:
    return None if not of else (2 * micros + of) // (2 * of)
