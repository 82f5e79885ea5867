from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import pytest

from infra.invoices import cur
from infra.invoices.tables import sha256_of
from pipeline.app.invoice_import import Import, InvoiceFile, InvoiceImporter
from pipeline.domain.costs.adjusting import DAY, Agreement
from pipeline.domain.costs.amounts import Amounts
from pipeline.domain.costs.invoices import InvoiceFormatError
from pipeline.domain.costs.transactions import (
    CostCategory,
    Entry,
    Overhead,
    Transaction,
    TransactionKind,
    of_overhead,
    of_supplier,
)
from pipeline.domain.errors import ConflictError, StoreUnavailableError
from pipeline.domain.ids import WorkerId
from pipeline.domain.lifecycle import IntervalKind
from storage.database import Database
from storage.invoices import Adjusted, InvoiceRepository
from storage.journal import post
from tests.infra.invoices.cur_file import line, write_csv
from tests.storage.bills import HOUR_US, FlatBills, SteppedBills
from tests.storage.test_settlements import balances, end
from tests.storage.world import World, open_world

START = datetime(2026, 11, 20, 22, tzinfo=UTC)
MIDNIGHT = datetime(2026, 11, 21, tzinfo=UTC)


@pytest.fixture
def world(database_url: str) -> Iterator[World]:
    with open_world(database_url) as opened:
        yield opened


def invoice_of(*paths: Path, month: date | None = None) -> InvoiceFile:
    return InvoiceFile(
        paths=paths, provider=cur.PROVIDER, format=cur.FORMAT, lines=cur.lines, sha256=sha256_of, month=month
    )


def take(
    world: World,
    folder: Path,
    lines: Sequence[Mapping[str, str]],
    *,
    is_dry: bool = False,
    bucket: str | None = None,
) -> Import:
    path = write_csv(folder / "bill.csv", lines)
    importer = InvoiceImporter(world.database, FlatBills(), "USD", bucket=bucket)
    return importer.run(invoice_of(path), within_percent=Decimal(1), is_dry=is_dry)


def machine(world: World, *, hours: int = 4, instance: str = "i-0abc", is_over: bool = True) -> WorkerId:
    """Return a worker at $1 an hour that idled on that instance, from two hours before midnight on."""
    worker = world.worker(rate_micros_per_hour=1_000_000)
    world.execute(
        "UPDATE workers SET started_at = :at, provider_id = :instance, provider = 'aws' WHERE id = :id",
        id=worker,
        at=START,
        instance=instance,
    )
    for _ in range(hours):
        world.workers.meter(worker, world.span(worker, IntervalKind.IDLE, HOUR_US))
    if is_over:
        end(world, worker)
    return worker


def hourly(costs: Sequence[str], **more: str) -> list[dict[str, str]]:
    return [
        line(cost, start=START + timedelta(hours=number), pricing_public_on_demand_cost=cost, **more)  # type: ignore[arg-type]
        for number, cost in enumerate(costs)
    ]


def billed(world: World, worker: WorkerId) -> int:
    (sum_,) = world.scalars(
        "SELECT sum(-billed_micros)::bigint FROM entries JOIN transactions ON transactions.id = transaction_id"
        " WHERE account LIKE 'supplier:%' AND worker_id = :id",
        id=worker,
    )
    assert isinstance(sum_, int)
    return sum_


def test_a_bill_that_says_what_the_journal_says_posts_nothing(world: World, tmp_path: Path) -> None:
    machine(world)

    found = take(world, tmp_path, hourly(["1"] * 4, resource="i-0abc"))

    assert (found.verdict, found.posted) == (Agreement.EXACT, 0)
    assert [(str(day.day), day.invoiced.billed_micros) for day in found.days] == [
        ("2026-11-20", 2_000_000),
        ("2026-11-21", 2_000_000),
    ]
    assert world.scalars("SELECT lines FROM invoices") == [4]


def test_what_is_invoiced_otherwise_is_adjusted_on_its_day_and_on_its_accounts(world: World, tmp_path: Path) -> None:
    worker = machine(world)

    found = take(world, tmp_path, hourly(["1", "1", "1.5", "1.4"], resource="i-0abc"))

    assert (found.verdict, found.posted) == (Agreement.OFF, 1)
    assert billed(world, worker) == 4_900_000
    assert balances(world, "billed_micros") == {"overhead:idle": 4_900_000, "supplier:local": -4_900_000}
    (row,) = world.rows("SELECT key, kind, period_start, source FROM transactions WHERE kind = 'adjustment'")
    assert row.key == f"bill:{found.digest}:{worker}:2026-11-21"
    assert (row.period_start, row.source) == (MIDNIGHT, "bill.csv")


def test_importing_a_bill_again_changes_nothing(world: World, tmp_path: Path) -> None:
    machine(world)
    lines = [*hourly(["1", "1", "1.5", "1.4"], resource="i-0abc"), line("7", kind="Tax")]
    first = take(world, tmp_path, lines)

    again = take(world, tmp_path, lines)

    assert (first.posted, again.posted) == (2, 0)
    assert again.imported_at is not None
    assert again.digest == first.digest


def test_a_newer_version_of_a_months_bill_adjusts_the_difference(world: World, tmp_path: Path) -> None:
    worker = machine(world)
    take(
        world,
        tmp_path,
        [*hourly(["1", "1", "1.5", "1.4"], resource="i-0abc"), line("7", kind="Tax"), line("3", kind="Fee")],
    )

    take(world, tmp_path, [*hourly(["2", "1"], resource="i-0abc"), line("8", kind="Tax")])

    # The second day, which it has no more, is as the journal had it.
    assert billed(world, worker) == 5_000_000
    held = balances(world, "billed_micros")
    assert held == {"overhead:idle": 5_000_000, "overhead:unexplained": 8_000_000, "supplier:local": -5_000_000} | {
        "supplier:aws": -8_000_000
    }


def test_what_no_worker_explains_is_posted_by_name(world: World, tmp_path: Path) -> None:
    lines = [line("0.0000014", kind="Tax"), line("0.0000014", kind="Credit"), line("2", resource="i-0other")]

    found = take(world, tmp_path, lines)

    named = {each.name: each.invoiced.billed_micros for each in found.others}
    assert named == {
        "Credit AmazonEC2 BoxUsage:g6.xlarge": 1,
        "Tax AmazonEC2 BoxUsage:g6.xlarge": 1,
        "Usage AmazonEC2 BoxUsage:g6.xlarge": 2_000_000,
        # 2.0000028 is 2,000,003 micro-units; the lines by themselves are 2,000,002.
        "rounding of the bill's lines": 1,
    }
    assert balances(world, "billed_micros") == {
        "overhead:unexplained": 2_000_002,
        "overhead:rounding": 1,
        "supplier:aws": -2_000_003,
    }


def bucket_lines(*costs: str, bucket: str = "arn:aws:s3:::mine") -> list[dict[str, str]]:
    more = {"line_item_product_code": "AmazonS3"}
    kinds = ("TimedStorage-ByteHrs", "Requests-Tier1")
    return [
        line(cost, resource=bucket, usage_type=usage, start=MIDNIGHT, hours=24, **more)  # type: ignore[arg-type]
        for cost, usage in zip(costs, kinds, strict=False)
    ]


def test_objects_are_adjusted_to_the_invoice_and_not_counted_beside_it(world: World, tmp_path: Path) -> None:
    accrue(world, objects_accrual(MIDNIGHT, 3_000_000), objects_accrual(MIDNIGHT - DAY, 7_000))
    lines = [*bucket_lines("2", "1.5"), *bucket_lines("9", bucket="theirs"), line("1", kind="Tax", start=MIDNIGHT)]

    found = take(world, tmp_path, lines, bucket="mine")
    again = take(world, tmp_path, lines, bucket="mine")

    (objects,) = found.objects
    assert (objects.accrued.billed_micros, objects.invoiced.billed_micros) == (3_000_000, 3_500_000)
    assert found.objects_verdict(objects) is Agreement.OFF
    assert (found.verdict, again.posted) == (Agreement.EXACT, 0)
    # The invoice's 13.5, and the day before that it does not have.
    assert balances(world, "billed_micros") == {
        "overhead:storage": 3_507_000,
        "overhead:unexplained": 10_000_000,
        "supplier:objects": -3_007_000,
        "supplier:aws": -10_500_000,
    }

    accrue(world, objects_accrual(MIDNIGHT, 100_000, number=2))
    take(world, tmp_path, lines, bucket="mine")
    assert balances(world, "billed_micros")["overhead:storage"] == 3_507_000

    take(world, tmp_path, [line("1", kind="Tax", start=MIDNIGHT)], bucket="mine")
    # A bill that has none of the bucket: what was accrued stays.
    assert balances(world, "billed_micros")["overhead:storage"] == 3_107_000


def accrue(world: World, *transactions: Transaction) -> None:
    with world.database.transaction() as connection:
        for transaction in transactions:
            post(connection, transaction)


def objects_accrual(at: datetime, cost_micros: int, *, number: int = 1) -> Transaction:
    return Transaction(
        key=f"objects:{at.date()}:{number}",
        kind=TransactionKind.ACCRUAL,
        category=CostCategory.STORAGE,
        period_start=at,
        period_stop=at + DAY,
        currency="USD",
        entries=(
            Entry(account=of_overhead(Overhead.STORAGE), amounts=Amounts.cost(cost_micros)),
            Entry(account=of_supplier("objects"), amounts=Amounts.cost(-cost_micros)),
        ),
    )


def test_workers_that_the_bill_lacks_are_listed(world: World, tmp_path: Path) -> None:
    machine(world)
    lost = machine(world, instance="i-0lost")

    found = take(world, tmp_path, hourly(["1"] * 4, resource="i-0abc"))

    assert [(life.worker_id, micros) for life, micros in found.missing] == [(lost, 4_000_000)]
    assert found.verdict is Agreement.OFF


def test_a_machine_of_several_workers_is_split_by_what_each_was_expected_to_cost(world: World, tmp_path: Path) -> None:
    longer, shorter = machine(world, hours=2), machine(world, hours=1)

    take(world, tmp_path, hourly(["2", "2"], resource="i-0abc"))

    assert (billed(world, longer), billed(world, shorter)) == (2_666_667, 1_333_333)


def test_a_tag_beats_the_machine(world: World, tmp_path: Path) -> None:
    one, two = machine(world, hours=1), machine(world, hours=1)

    take(world, tmp_path, hourly(["5"], resource="i-0abc", worker=one))

    assert (billed(world, one), billed(world, two)) == (5_000_000, 1_000_000)


def test_a_day_that_a_worker_lives_on_in_is_compared_once_it_is_over(world: World, tmp_path: Path) -> None:
    worker = machine(world, hours=3, is_over=False)
    lines = hourly(["2", "2", "2"], resource="i-0abc")

    found = take(world, tmp_path, lines)

    assert [day.agreement(Decimal(1)) for day in found.days] == [Agreement.OFF, Agreement.OPEN]
    assert billed(world, worker) == 4_000_000 + 1_000_000

    end(world, worker)
    take(world, tmp_path, lines)

    assert billed(world, worker) == 6_000_000


def test_a_dry_run_posts_nothing(world: World, tmp_path: Path) -> None:
    machine(world)
    before = world.scalars("SELECT count(*) FROM transactions")

    found = take(world, tmp_path, hourly(["3"] * 4, resource="i-0abc"), is_dry=True)

    assert (found.verdict, found.posted) == (Agreement.OFF, 0)
    assert world.scalars("SELECT count(*) FROM transactions") == before
    assert world.scalars("SELECT count(*) FROM invoices") == [0]


def test_near_enough_is_told_from_off(world: World, tmp_path: Path) -> None:
    machine(world)

    found = take(world, tmp_path, hourly(["1", "1", "1", "1.005"], resource="i-0abc"))

    assert found.verdict is Agreement.CLOSE


def test_effective_and_list_costs_are_adjusted_apart_from_what_is_billed(world: World, tmp_path: Path) -> None:
    machine(world, hours=1)
    covered = line(
        "1",
        kind="SavingsPlanCoveredUsage",
        start=START,
        resource="i-0abc",
        savings_plan_savings_plan_effective_cost="0.6",
        pricing_public_on_demand_cost="1.25",
    )

    take(world, tmp_path, [covered, line("-1", kind="SavingsPlanNegation", start=START, resource="i-0abc")])

    sums = {name: -balances(world, f"{name}_micros").get("supplier:local", 0) for name in ("list", "contracted")}
    sums |= {name: -balances(world, f"{name}_micros").get("supplier:local", 0) for name in ("effective", "billed")}
    sums["on_demand"] = -balances(world, "on_demand_micros")["supplier:local"]
    assert sums == {
        "list": 1_250_000,
        "contracted": 1_000_000,
        "effective": 600_000,
        "billed": 0,
        "on_demand": 1_250_000,
    }


def test_volumes_and_traffic_of_a_worker_are_its_overhead(world: World, tmp_path: Path) -> None:
    machine(world, hours=1)
    volume = line("0.25", start=START, resource="i-0abc", usage_type="EBS:VolumeUsage.gp3")

    take(world, tmp_path, [*hourly(["1"], resource="i-0abc"), volume])

    assert balances(world, "billed_micros") == {
        "overhead:idle": 1_000_000,
        "overhead:storage": 250_000,
        "supplier:local": -1_250_000,
    }


def test_files_given_together_are_one_bill_in_any_order(world: World, tmp_path: Path) -> None:
    worker = machine(world)
    lines = hourly(["2"] * 4, resource="i-0abc")
    one, two = write_csv(tmp_path / "a.csv", lines[:2]), write_csv(tmp_path / "b.csv.gz", lines[2:])
    importer = InvoiceImporter(world.database, FlatBills(), "USD")

    first = importer.run(invoice_of(one, two), within_percent=Decimal(1))
    again = importer.run(invoice_of(two, one), within_percent=Decimal(1))

    assert billed(world, worker) == 8_000_000
    assert (first.posted, again.posted, again.digest) == (2, 0, first.digest)


class _Failing(InvoiceRepository):
    """Posts once, and is gone."""

    def post(self, transactions: Iterable[Transaction], *, beside: Adjusted, keys: Collection[str] = ()) -> int:
        super().post(list(transactions)[:1], beside=beside, keys=keys)
        raise StoreUnavailableError


class _Late(InvoiceRepository):
    """Lets another import come in between."""

    def __init__(self, database: Database, other: Callable[[], object]) -> None:
        super().__init__(database)
        self._other = other

    def post(self, transactions: Iterable[Transaction], *, beside: Adjusted, keys: Collection[str] = ()) -> int:
        self._other()
        return super().post(transactions, beside=beside, keys=keys)


@pytest.mark.parametrize("is_posted_before", [True, False])
def test_of_two_imports_at_once_one_is_told_to_come_again(
    world: World, tmp_path: Path, *, is_posted_before: bool
) -> None:
    worker = machine(world)
    path = write_csv(tmp_path / "mine.csv", [*hourly(["2"] * 4, resource="i-0abc"), line("7", kind="Tax", start=START)])
    other = hourly(["3"] * 4, resource="i-0abc")
    if is_posted_before:
        take(world, tmp_path, hourly(["1.5"] * 4, resource="i-0abc"))
    importer = InvoiceImporter(world.database, FlatBills(), "USD")
    importer._repository = _Late(world.database, lambda: take(world, tmp_path, other))

    with pytest.raises(ConflictError, match="imported meanwhile"):
        importer.run(invoice_of(path), within_percent=Decimal(1))
    assert billed(world, worker) == 12_000_000

    again = InvoiceImporter(world.database, FlatBills(), "USD").run(invoice_of(path), within_percent=Decimal(1))
    assert (billed(world, worker), again.imported_at) == (8_000_000, None)


def test_two_imports_of_the_same_invoice_at_once_post_it_once(world: World, tmp_path: Path) -> None:
    worker = machine(world)
    lines = hourly(["2"] * 4, resource="i-0abc")
    path = write_csv(tmp_path / "bill.csv", lines)
    importer = InvoiceImporter(world.database, FlatBills(), "USD")
    importer._repository = _Late(world.database, lambda: take(world, tmp_path, lines))

    assert importer.run(invoice_of(path), within_percent=Decimal(1)).posted == 0
    assert billed(world, worker) == 8_000_000


def test_an_invoice_undoes_nothing_of_another_provider(world: World, tmp_path: Path) -> None:
    theirs, ours = machine(world), machine(world, instance="i-0def")
    world.execute("UPDATE workers SET provider = 'gcp' WHERE id = :id", id=theirs)
    lines = [*hourly(["2"] * 4, resource="i-0abc"), line("7", kind="Tax", start=START)]
    first = replace(invoice_of(write_csv(tmp_path / "theirs.csv", lines)), provider="gcp")
    importer = InvoiceImporter(world.database, FlatBills(), "USD")
    importer.run(first, within_percent=Decimal(1))

    found = take(world, tmp_path, hourly(["1.5"] * 4, resource="i-0def"))

    assert (billed(world, theirs), billed(world, ours)) == (8_000_000, 6_000_000)
    assert balances(world, "billed_micros")["supplier:gcp"] == -7_000_000
    assert {day.worker_id for day in found.days} == {ours}


def test_an_import_that_was_broken_off_is_finished_by_the_next(world: World, tmp_path: Path) -> None:
    worker = machine(world)
    path = write_csv(tmp_path / "bill.csv", hourly(["2"] * 4, resource="i-0abc"))
    importer = InvoiceImporter(world.database, FlatBills(), "USD")
    importer._repository = _Failing(world.database)
    with pytest.raises(StoreUnavailableError):
        importer.run(invoice_of(path), within_percent=Decimal(1))
    assert billed(world, worker) == 6_000_000

    found = InvoiceImporter(world.database, FlatBills(), "USD").run(invoice_of(path), within_percent=Decimal(1))

    assert (billed(world, worker), found.posted, found.imported_at) == (8_000_000, 1, None)


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ([line("1", line_item_currency_code="EUR")], "line 1 is in EUR, the journal in USD"),
        ([line("1", resource="i-0abc", hours=720)], "line 1 is of a machine of ours from"),
        ([], "has no lines"),
    ],
)
def test_a_bill_that_cannot_be_compared_is_refused(
    world: World, tmp_path: Path, lines: list[dict[str, str]], said: str
) -> None:
    machine(world, hours=1)

    with pytest.raises(InvoiceFormatError, match=said):
        take(world, tmp_path, lines)

    assert world.scalars("SELECT count(*) FROM invoices") == [0]


def test_a_later_price_is_trued_up_by_the_same_bill(world: World, tmp_path: Path) -> None:
    worker = machine(world, hours=2)
    lines = hourly(["2", "2"], resource="i-0abc")
    path = write_csv(tmp_path / "bill.csv", lines)
    take(world, tmp_path, lines)
    bills = SteppedBills()
    bills.change(worker, [(0, (3_000_000,) * 5)])
    for _ in range(2):
        InvoiceImporter(world.database, bills, "USD").run(invoice_of(path), within_percent=Decimal(1))

    assert billed(world, worker) == 4_000_000
    keys = world.scalars("SELECT split_part(key, ':', 5) FROM transactions WHERE kind = 'adjustment' ORDER BY id")
    assert keys == ["", "2"]
