"""What costs are told as: periods, report lines, buckets of charges."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import date, timedelta
from enum import StrEnum
from typing import Final

_THOUSAND: Final = 1000
_SECONDS_PER_HOUR: Final = 3600


class ReportKey(StrEnum):
    """What a report sums up by."""

    TENANT = "tenant"
    PROJECT = "project"
    LABEL = "label"
    MODEL = "model"
    TIER = "tier"
    DAY = "day"
    BATCH = "batch"
    POOL = "pool"


class TenantGroup(StrEnum):
    """What a tenant's charges can be told apart by."""

    PROJECT = "project_id"
    MODEL = "model"
    TIER = "tier"
    BATCH = "batch_id"


@dataclass(frozen=True, slots=True, kw_only=True)
class Period:
    """Days, UTC: from `first` on, without `until`."""

    first: date
    until: date

    def days(self) -> Iterator[date]:
        """Yield each day."""
        for number in range((self.until - self.first).days):
            yield self.first + timedelta(days=number)


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportLine:
    """What was had under one key, in micro-units of its currency."""

    #: None: what belongs to none of its kind, such as overhead, which no tenant has.
    key: str | None
    currency: str
    list_micros: int
    contracted_micros: int
    effective_micros: int
    billed_micros: int
    on_demand_micros: int
    charged_micros: int
    #: Of `effective_micros`, what no batch had the use of.
    waste_micros: int
    #: What input tokens that were taken from a cache would have cost on top.
    cache_credit_micros: int
    row_count: int
    input_tokens: int
    output_tokens: int
    worker_us: int

    @property
    def saving_micros(self) -> int:
        """Return what is saved beside on-demand prices."""
        return self.on_demand_micros - self.effective_micros

    @property
    def tokens(self) -> int:
        """Return tokens of prompts and answers."""
        return self.input_tokens + self.output_tokens

    @property
    def micros_per_million_tokens(self) -> int | None:
        """Return what a million tokens cost, rounded; None without tokens."""
        return _ratio(self.effective_micros * 1_000_000, self.tokens)

    @property
    def micros_per_thousand_requests(self) -> int | None:
        """Return what a thousand requests cost, rounded; None without requests."""
        return _ratio(self.effective_micros * _THOUSAND, self.row_count)

    @property
    def micros_per_worker_hour(self) -> int | None:
        """Return what an hour of a worker cost, rounded; None without time."""
        return _ratio(self.effective_micros * _SECONDS_PER_HOUR * 1_000_000, self.worker_us)


#: The figures of a line that sum up.
SUMMED: Final = (
    "list_micros",
    "contracted_micros",
    "effective_micros",
    "billed_micros",
    "on_demand_micros",
    "charged_micros",
    "waste_micros",
    "cache_credit_micros",
    "row_count",
    "input_tokens",
    "output_tokens",
    "worker_us",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class UtilisationLine:
    """What time of workers went to one kind of use."""

    kind: str
    worker_us: int
    effective_micros: int
    currency: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CostGroup:
    """What was charged within one group."""

    keys: Mapping[TenantGroup, str | None]
    charged_micros: int
    requests: int
    input_tokens: int
    output_tokens: int
    currency: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CostBucket:
    """What was charged for one day."""

    day: date
    groups: tuple[CostGroup, ...]


def totals(lines: list[ReportLine]) -> list[ReportLine]:
    """Return a line for each currency, in which all lines of it are summed up; its key is None."""
    return [
        ReportLine(
            key=None,
            currency=currency,
            **{name: sum(getattr(line, name) for line in lines if line.currency == currency) for name in SUMMED},
        )
        for currency in sorted({line.currency for line in lines})
    ]


def _ratio(numerator: int, denominator: int) -> int | None:
    # To the nearest, halves away from zero.
    if not denominator:
        return None
    sign = -1 if (numerator < 0) != (denominator < 0) else 1
    numerator, denominator = abs(numerator), abs(denominator)
    return sign * ((2 * numerator + denominator) // (2 * denominator))
