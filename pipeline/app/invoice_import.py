"""Importing a provider's invoice: matched to workers day by day, and posted as adjustments to what it says."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

from pipeline.app.settling import Settler
from pipeline.domain.costs.adjusting import (
    DAY,
    Agreement,
    NamedLine,
    WorkerDay,
    adjustment,
    agreement,
    expected_on,
    midnight,
    span_on,
    unexplained,
)
from pipeline.domain.costs.amounts import Amounts
from pipeline.domain.costs.bills import Bill, BillSource, WorkerLife
from pipeline.domain.costs.invoices import (
    OBJECTS,
    InvoiceDigest,
    InvoiceFormatError,
    InvoiceLine,
    InvoiceSum,
    ThingDay,
    add_line,
    micros,
)
from pipeline.domain.costs.transactions import CostCategory, Overhead, Transaction, of_overhead
from pipeline.domain.ids import WorkerId
from storage.database import Database
from storage.invoices import Adjusted, ImportedInvoice, InvoiceRepository
from storage.settlements import SettlementRepository

_ROUNDING: Final = "rounding of the bill's lines"  # in the journal by this name
_POSTED_AT_ONCE: Final = 200
_ACCOUNTS: Final[Mapping[str, Overhead]] = MappingProxyType({_ROUNDING: Overhead.ROUNDING, OBJECTS: Overhead.STORAGE})


@dataclass(frozen=True, slots=True, kw_only=True)
class InvoiceFile:
    """An invoice to be imported: its files, which are one invoice together, and how to read them."""

    paths: Sequence[Path]
    provider: str
    format: str
    lines: Callable[[Path, date | None], Iterator[InvoiceLine]]
    sha256: Callable[[Path], str]
    month: date | None = None

    @property
    def digest(self) -> str:
        """Return what tells this invoice from any other; the order of its files makes no difference."""
        digests = sorted(self.sha256(path) for path in self.paths)
        month = "" if self.month is None else self.month.isoformat()
        return hashlib.sha256("\n".join([*digests, month]).encode()).hexdigest()

    @property
    def name(self) -> str:
        """Return the invoice's name."""
        return ", ".join(path.name for path in self.paths)


@dataclass(frozen=True, slots=True, kw_only=True)
class Import:
    """What an invoice says beside what the journal did."""

    digest: str
    name: str
    currency: str
    start: datetime
    stop: datetime
    total: InvoiceSum
    kinds: dict[str, InvoiceSum]
    days: tuple[WorkerDay, ...]
    others: tuple[NamedLine, ...]
    #: Workers of that provider that the invoice does not name, with what they were expected to be billed.
    missing: tuple[tuple[WorkerLife, int], ...]
    within_percent: Decimal
    #: When it was imported before.
    imported_at: datetime | None
    #: Transactions posted.
    posted: int

    @property
    def objects(self) -> tuple[NamedLine, ...]:
        """Return what the invoice has of the objects in our bucket, by month."""
        return tuple(line for line in self.others if line.name == OBJECTS and line.invoiced)

    def objects_verdict(self, line: NamedLine) -> Agreement:
        """Return how what was accrued for them is to the invoice; requests and sizes are estimated."""
        return agreement(line.difference.billed_micros, line.invoiced.billed_micros, self.within_percent)

    @property
    def verdict(self) -> Agreement:
        """Return how the invoice's workers are to the journal's, all in all."""
        closed = [day for day in self.days if not day.is_open]
        kinds = {day.agreement(self.within_percent) for day in closed}
        if self.missing:
            return Agreement.OFF
        if kinds <= {Agreement.EXACT}:
            return Agreement.EXACT
        difference = sum(day.difference.billed_micros for day in closed)
        return agreement(difference, sum(day.invoiced.billed_micros for day in closed), self.within_percent)


class InvoiceImporter:
    """Compares invoices with the journal, and adjusts it to them. An import can be repeated, and be ended half way."""

    def __init__(self, database: Database, bills: BillSource, currency: str, *, bucket: str | None = None) -> None:
        """Compare with workers as `bills` has them, and with objects in that bucket."""
        self._bucket = bucket
        self._settlements = SettlementRepository(database)
        self._repository = InvoiceRepository(database)
        self._bills = bills
        self._currency = currency

    def run(self, file: InvoiceFile, *, within_percent: Decimal, is_dry: bool = False) -> Import:
        """Read the invoice, and post what brings the journal to it; with `is_dry` nothing is posted.

        Raises:
            InvoiceFormatError: It cannot be read, has no lines, or is in another currency.
            ConflictError: Another was imported meanwhile; doing it again goes on from there.
        """
        known = self._repository.known(self._bucket)
        read = InvoiceDigest(currency=self._currency)
        for path in file.paths:
            for line in file.lines(path, file.month):
                add_line(read, line, known)
        if read.start is None or read.stop is None:
            raise InvoiceFormatError(f"{file.name} has no lines" + (f" of {file.month:%Y-%m}" if file.month else ""))
        first = read.start.date().replace(day=1)
        stop = max(read.stop, read.start + DAY)
        adjusted = self._repository.adjusted(file.provider, midnight(first), stop)
        looked = _Look(self._settlements, self._bills, is_dry=is_dry)
        sums, unmatched = looked.by_worker(read, known.machines)
        for (month, name), amounts in unmatched.items():
            read.others.setdefault((month, name), InvoiceSum()).merge(amounts)
        days = looked.days(sums, adjusted)
        accrued = self._repository.accrued_objects(midnight(read.start.date()), stop)
        others = _named(read, days, adjusted, first, accrued)
        digest = file.digest
        imported = Import(
            digest=digest,
            name=file.name,
            currency=self._currency,
            start=read.start,
            stop=stop,
            total=read.total,
            kinds=read.kinds,
            days=days,
            others=others,
            missing=looked.missing(read.start, stop, {day.worker_id for day in days}, file.provider),
            within_percent=within_percent,
            imported_at=self._repository.imported_at(digest),
            posted=0 if is_dry else self._post(looked, days, others, file, digest, adjusted),
        )
        if not is_dry:
            self._repository.add(_kept(imported, file))
        return imported

    def _post(
        self,
        looked: _Look,
        days: Iterable[WorkerDay],
        others: Iterable[NamedLine],
        file: InvoiceFile,
        digest: str,
        beside: Adjusted,
    ) -> int:
        posted, taken = 0, beside.keys
        keys: list[str] = []
        waiting: list[Transaction] = []
        differing: list[WorkerDay | NamedLine] = [*days, *others]
        for each in differing:
            if not each.to_post:
                continue
            if isinstance(each, WorkerDay):
                suffix = "" if each.category is CostCategory.COMPUTE else f":{each.category}"
                key = _free(f"bill:{digest}:{each.worker_id}:{each.day}{suffix}", taken)
                waiting.append(
                    adjustment(
                        each,
                        looked.spans(each),
                        key=key,
                        provider=file.provider,
                        invoice_name=file.name,
                        currency=self._currency,
                    )
                )
            else:
                named = hashlib.sha256(each.name.encode()).hexdigest()[:16]
                key = _free(f"bill:{digest}:unexplained:{each.month:%Y-%m}:{named}", taken)
                waiting.append(
                    unexplained(each, key=key, provider=file.provider, invoice_name=file.name, currency=self._currency)
                )
            if len(waiting) == _POSTED_AT_ONCE:
                posted += self._repository.post(waiting, beside=beside, keys=keys)
                keys += [transaction.key for transaction in waiting]
                waiting = []
        return posted + self._repository.post(waiting, beside=beside, keys=keys)


class _Look:
    """The workers that an invoice is about, each looked up once."""

    def __init__(self, repository: SettlementRepository, bills: BillSource, *, is_dry: bool) -> None:
        self._repository = repository
        self._bills = bills
        self._is_dry = is_dry
        self._lives: dict[str, WorkerLife] = {}
        self._of: dict[str, Bill] = {}

    def by_worker(
        self,
        read: InvoiceDigest,
        machines: Any,  # noqa: ANN401 -- as `Known` has it
    ) -> tuple[dict[ThingDay, InvoiceSum], dict[tuple[date, str], InvoiceSum]]:
        """Return what each worker was invoiced by day, and what is of machines on days without a worker."""
        self._load(
            {worker for worker, _, _ in read.workers}
            | {worker for machine, _, _ in read.machines for worker in machines[machine]}
        )
        sums: dict[ThingDay, InvoiceSum] = defaultdict(InvoiceSum)
        unmatched: dict[tuple[date, str], InvoiceSum] = defaultdict(InvoiceSum)
        for thing, invoiced in read.workers.items():
            sums[thing].merge(invoiced)
        for (machine, day, category), invoiced in read.machines.items():
            here = [worker for worker in machines[machine] if self._was_there(worker, day)]
            if not here:
                unmatched[day.replace(day=1), f"machine {machine} on days without a worker"].merge(invoiced)
                continue
            shares = [expected_on(self._of[worker], self._lives[worker], day) for worker in here]
            parts = [invoiced] if len(here) == 1 else invoiced.split(shares)
            for worker, part in zip(here, parts, strict=True):
                sums[worker, day, category].merge(part)
        return dict(sums), dict(unmatched)

    def days(self, sums: dict[ThingDay, InvoiceSum], adjusted: Adjusted) -> tuple[WorkerDay, ...]:
        """Return the days of workers that the invoice has, and those that it had once and has no more."""
        gone = [thing for thing in adjusted.workers if thing not in sums]
        self._load({worker for worker, _, _ in gone})
        found = []
        for thing in sorted({*sums, *gone}):
            worker, day, category = thing
            life = self._lives[worker]
            is_compute = category is CostCategory.COMPUTE
            expected = expected_on(self._of[worker], life, day) if is_compute else Amounts()
            invoiced = sums[thing].amounts(expected) if thing in sums else expected
            found.append(
                WorkerDay(
                    worker_id=life.worker_id,
                    pool=life.pool,
                    day=day,
                    category=category,
                    expected=expected,
                    invoiced=invoiced,
                    adjusted=adjusted.workers.get((life.worker_id, day, category), Amounts()),
                    is_gone=thing not in sums,
                    is_open=is_compute and not life.is_over and life.stopped_at < midnight(day) + DAY,
                )
            )
        return tuple(found)

    def spans(self, worker_day: WorkerDay) -> Iterable[Any]:
        life = self._lives[worker_day.worker_id]
        start_us, stop_us = span_on(life, worker_day.day)
        return self._repository.spans(life, start_us=start_us, stop_us=stop_us)

    def missing(
        self, start: datetime, stop: datetime, named: set[WorkerId], provider: str
    ) -> tuple[tuple[WorkerLife, int], ...]:
        """Return workers of that provider that lived in that time and are not in the invoice."""
        found = []
        for life in self._repository.lives():
            if life.provider != provider or life.worker_id in named:
                continue
            if life.started_at >= stop or life.stopped_at <= start:
                continue
            bill = self._bills.bill(life)
            days = range((stop.date() - start.date()).days + 1)
            expected = sum(expected_on(bill, life, start.date() + DAY * day).billed_micros for day in days)
            if expected:
                found.append((life, expected))
        return tuple(found)

    def _load(self, worker_ids: set[str]) -> None:
        wanted = [WorkerId(worker) for worker in sorted(worker_ids - self._lives.keys())]
        settler = Settler(self._repository, self._bills)
        for life in self._repository.lives(wanted):
            if not self._is_dry:
                # What is compared is what the journal holds.
                settler.settle(life)
            self._lives[life.worker_id] = life
            self._of[life.worker_id] = self._bills.bill(life)

    def _was_there(self, worker: str, day: date) -> bool:
        life = self._lives[worker]
        return life.started_at < midnight(day) + DAY and life.stopped_at >= midnight(day)


def _named(
    read: InvoiceDigest, days: Iterable[WorkerDay], adjusted: Adjusted, first: date, accrued: Mapping[date, Amounts]
) -> tuple[NamedLine, ...]:
    invoiced: dict[tuple[date, str], Amounts] = {}
    for line, each in read.others.items():
        effective = Amounts.cost(micros(each.effective))
        invoiced[line] = each.amounts(effective)
    total = read.total
    rounded = Amounts.total([*invoiced.values(), *(day.invoiced for day in days if not day.is_gone)])
    # Each line above is rounded by itself; what that makes of the total is a line, too.
    rest = Amounts(
        effective_micros=micros(total.effective) - rounded.effective_micros,
        billed_micros=micros(total.billed) - rounded.billed_micros,
    )
    invoiced[first, _ROUNDING] = rest
    lines = sorted({*invoiced, *adjusted.lines})
    return tuple(
        NamedLine(
            month=month,
            name=name,
            invoiced=invoiced.get((month, name), Amounts()),
            adjusted=adjusted.lines.get((month, name), Amounts()),
            account=of_overhead(_ACCOUNTS.get(name, Overhead.UNEXPLAINED)),
            # An invoice that has nothing of them is not one of the bucket's.
            accrued=accrued.get(month, Amounts()) if name == OBJECTS and (month, name) in invoiced else Amounts(),
        )
        for month, name in lines
    )


def _free(key: str, taken: set[str]) -> str:
    """Return the key, or the first of its further ones that is not taken: the same invoice, compared with another journal."""
    free, number = key, 1
    while free in taken:
        number += 1
        free = f"{key}:{number}"
    return free


def _kept(imported: Import, file: InvoiceFile) -> ImportedInvoice:
    return ImportedInvoice(
        digest=imported.digest,
        name=imported.name,
        provider=file.provider,
        format=file.format,
        currency=imported.currency,
        period_start=imported.start,
        period_stop=imported.stop,
        lines=imported.total.lines,
        totals={
            kind: {
                "lines": each.lines,
                "billed_micros": micros(each.billed),
                "effective_micros": micros(each.effective),
            }
            for kind, each in imported.kinds.items()
        },
    )
