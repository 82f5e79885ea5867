"""Lines of a provider's invoice, in words of our own, and what they sum to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime
from decimal import ROUND_HALF_EVEN, Decimal
from typing import Final

from pipeline.domain.costs.amounts import Amounts
from pipeline.domain.costs.splitting import split_amounts
from pipeline.domain.costs.transactions import CostCategory
from pipeline.domain.errors import NightrateError
from pipeline.domain.money import MICROS_PER_UNIT

_ONE: Final = Decimal(1)


class InvoiceFormatError(NightrateError):
    """The file is not an invoice as it is said to be."""

    code = "invoice_format"
    exit_code = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class InvoiceLine:
    """What a provider bills for one use of one thing; amounts are exact, in units of the currency."""

    #: Where it stands in the file, the first being 1; of a CSV file, below its header.
    number: int
    #: As the provider calls it, such as `SpotUsage` or `Tax`.
    kind: str
    category: CostCategory
    #: In words: what the use was of.
    name: str
    #: The machine or other resource by the provider's id; None: it is of none.
    resource_id: str | None
    #: The worker that a tag of the resource names.
    worker_id: str | None
    start: datetime
    stop: datetime
    currency: str
    billed: Decimal
    effective: Decimal
    #: At the provider's published price for that market; None: the invoice does not say.
    listed: Decimal | None
    #: At the on-demand price; None: the invoice does not say.
    on_demand: Decimal | None


@dataclass(slots=True)
class InvoiceSum:
    """Lines summed up, exactly."""

    lines: int = 0
    billed: Decimal = Decimal(0)
    effective: Decimal = Decimal(0)
    #: None once a line did not say.
    listed: Decimal | None = Decimal(0)
    on_demand: Decimal | None = Decimal(0)

    def add(self, line: InvoiceLine) -> None:
        """Count one more."""
        self.lines += 1
        self.billed += line.billed
        self.effective += line.effective
        self.listed = None if self.listed is None or line.listed is None else self.listed + line.listed
        self.on_demand = None if self.on_demand is None or line.on_demand is None else self.on_demand + line.on_demand

    def merge(self, other: InvoiceSum) -> None:
        """Count the other's lines too."""
        self.lines += other.lines
        self.billed += other.billed
        self.effective += other.effective
        self.listed = None if self.listed is None or other.listed is None else self.listed + other.listed
        self.on_demand = None if self.on_demand is None or other.on_demand is None else self.on_demand + other.on_demand

    def split(self, shares: Sequence[Amounts]) -> list[InvoiceSum]:
        """Split it by what each share costs, to the micro-unit."""
        parts = split_amounts(self.amounts(Amounts()), shares)
        return [
            InvoiceSum(
                lines=self.lines,
                billed=_units(part.billed_micros),
                effective=_units(part.effective_micros),
                listed=None if self.listed is None else _units(part.list_micros),
                on_demand=None if self.on_demand is None else _units(part.on_demand_micros),
            )
            for part in parts
        ]

    def amounts(self, unsaid: Amounts) -> Amounts:
        """Return it in micro-units, with what invoices do not say from `unsaid`: contracted costs, and maybe list prices."""
        return Amounts(
            list_micros=unsaid.list_micros if self.listed is None else micros(self.listed),
            contracted_micros=unsaid.contracted_micros,
            effective_micros=micros(self.effective),
            billed_micros=micros(self.billed),
            on_demand_micros=unsaid.on_demand_micros if self.on_demand is None else micros(self.on_demand),
        )


#: A worker or machine by its id, the day (UTC), and what of it.
ThingDay = tuple[str, date, CostCategory]


@dataclass(slots=True)
class InvoiceDigest:
    """An invoice summed up: by worker, by machine, by kind of line, and what is neither a worker's nor a machine's."""

    currency: str
    workers: dict[ThingDay, InvoiceSum] = field(default_factory=dict)
    machines: dict[ThingDay, InvoiceSum] = field(default_factory=dict)
    #: By the first of the month and the name.
    others: dict[tuple[date, str], InvoiceSum] = field(default_factory=dict)
    kinds: dict[str, InvoiceSum] = field(default_factory=dict)
    start: datetime | None = None
    stop: datetime | None = None

    @property
    def total(self) -> InvoiceSum:
        """Return all of it."""
        whole = InvoiceSum()
        for each in self.kinds.values():
            whole.merge(each)
        return whole


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """What lines can be matched with."""

    worker_ids: frozenset[str]
    #: Workers by the machine they ran on.
    machines: Mapping[str, tuple[str, ...]]
    #: Where our objects are; None: where no provider bills for them by name.
    bucket: str | None = None


#: More names than these are no help to anybody.
NAMES_MAX: Final = 2000
OTHER_LINES: Final = "other lines"
#: What is billed for keeping objects and for requests, in our bucket; the journal has accruals of its own for it.
OBJECTS: Final = "objects in our bucket"


def add_line(digest: InvoiceDigest, line: InvoiceLine, known: Known) -> None:
    """Count a line where it belongs.

    Raises:
        InvoiceFormatError: It is in another currency, or of a machine of ours and of more than a day.
    """
    if line.currency != digest.currency:
        raise InvoiceFormatError(
            f"line {line.number} is in {line.currency or 'no currency'}, the journal in {digest.currency}",
            hint="invoices are compared in one currency",
        )
    digest.kinds.setdefault(line.kind, InvoiceSum()).add(line)
    digest.start = line.start if digest.start is None else min(digest.start, line.start)
    digest.stop = line.stop if digest.stop is None else max(digest.stop, line.stop)
    day = line.start.date()
    if line.worker_id in known.worker_ids and line.worker_id is not None:
        _check_day(line)
        digest.workers.setdefault((line.worker_id, day, line.category), InvoiceSum()).add(line)
    elif line.resource_id in known.machines and line.resource_id is not None:
        _check_day(line)
        digest.machines.setdefault((line.resource_id, day, line.category), InvoiceSum()).add(line)
    else:
        month = day.replace(day=1)
        is_ours = known.bucket is not None and line.resource_id == known.bucket
        name = OBJECTS if is_ours and line.category is CostCategory.STORAGE else f"{line.kind} {line.name}".strip()
        if name != OBJECTS and (month, name) not in digest.others and len(digest.others) >= NAMES_MAX:
            name = OTHER_LINES
        digest.others.setdefault((month, name), InvoiceSum()).add(line)


def micros(units: Decimal) -> int:
    """Return units of a currency in micro-units, halves to the even one."""
    return int((units * MICROS_PER_UNIT).quantize(_ONE, rounding=ROUND_HALF_EVEN))


def _units(whole_micros: int) -> Decimal:
    return Decimal(whole_micros) / MICROS_PER_UNIT


def _check_day(line: InvoiceLine) -> None:
    if (line.stop - line.start).total_seconds() > 86_400:  # noqa: PLR2004 -- a day
        raise InvoiceFormatError(
            f"line {line.number} is of a machine of ours from {line.start:%Y-%m-%d %H:%M} to {line.stop:%Y-%m-%d %H:%M}",
            hint="export the invoice by the hour or the day",
        )
