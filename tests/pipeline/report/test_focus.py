from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from datetime import date, timedelta
from decimal import Decimal
from pathlib import Path

import jsonschema_rs
import orjson
import pytest
from sqlalchemy import text

from pipeline.app.cost_exports import focus_export
from pipeline.ports.cost_reports import Period
from pipeline.report.focus import columns
from pipeline.report.focus.columns import COLUMNS, FocusVersion
from pipeline.report.tables import TableFormat
from storage.cost_exports import CostExports
from storage.database import Database
from tests.services import fresh_database
from tests.storage.journals import write_journal

SCHEMAS = Path(columns.__file__).parent
PERIOD = Period(first=date(2026, 10, 1), until=date(2026, 12, 1))
MICRO = Decimal("0.000001")
#: The specification's list for 1.2, by hand.
MANDATORY = [
    "BilledCost",
    "BillingAccountId",
    "BillingAccountName",
    "BillingCurrency",
    "BillingPeriodStart",
    "BillingPeriodEnd",
    "ChargeCategory",
    "ChargeClass",
    "ChargeDescription",
    "ChargePeriodStart",
    "ChargePeriodEnd",
    "ContractedCost",
    "EffectiveCost",
    "InvoiceIssuerName",
    "ListCost",
    "PricingQuantity",
    "PricingUnit",
    "ProviderName",
    "PublisherName",
    "ServiceCategory",
    "ServiceName",
]


@pytest.fixture(scope="module")
def database(template_url: str) -> Iterator[Database]:
    with fresh_database(template_url) as url:
        opened = Database(url)
        write_journal(opened, 21, transactions=120)
        yield opened
        opened.close()


def exported(database: Database, version: FocusVersion) -> list[dict[str, str | None]]:
    with CostExports(database).moment() as moment:
        content = b"".join(focus_export(moment, version, PERIOD, TableFormat.CSV))
    rows = csv.DictReader(io.StringIO(content.decode()))
    return [{name: value or None for name, value in row.items()} for row in rows]


def money(row: dict[str, str | None], name: str) -> Decimal:
    value = row[name]
    assert value is not None, name
    return Decimal(value)


@pytest.mark.parametrize("version", FocusVersion)
def test_every_row_is_what_the_schema_of_its_version_says(database: Database, version: FocusVersion) -> None:
    schema = orjson.loads((SCHEMAS / f"cost_and_usage_{version}.schema.json").read_bytes())
    validator = jsonschema_rs.validator_for(schema)

    rows = exported(database, version)

    assert len(rows) > 50
    assert [str(error) for row in rows for error in validator.iter_errors(row)][:3] == []
    assert set(schema["properties"]) == {name for name in COLUMNS[version] if not name.startswith("x_")}
    assert set(MANDATORY) <= set(COLUMNS[version])


def test_a_row_that_breaks_a_rule_does_not_pass_the_schema(database: Database) -> None:
    schema = orjson.loads((SCHEMAS / "cost_and_usage_1.2.schema.json").read_bytes())
    validator = jsonschema_rs.validator_for(schema)
    good = next(row for row in exported(database, FocusVersion.V1_2) if row["ChargeClass"] is None)
    assert validator.is_valid(good)

    for name, value in (("BilledCost", None), ("ChargeCategory", "Waste"), ("PricingUnit", None), ("Mine", "x")):
        assert not validator.is_valid({**good, name: value}), name


@pytest.mark.parametrize("version", FocusVersion)
def test_costs_are_prices_times_quantities_to_less_than_a_micro_unit(database: Database, version: FocusVersion) -> None:
    priced = [row for row in exported(database, version) if row["ChargeClass"] is None]

    for row in priced:
        for cost, price in (("ListCost", "ListUnitPrice"), ("ContractedCost", "ContractedUnitPrice")):
            assert abs(money(row, price) * money(row, "PricingQuantity") - money(row, cost)) < MICRO


def test_an_export_sums_to_what_suppliers_are_owed_and_tenants_are_charged(database: Database) -> None:
    rows = exported(database, FocusVersion.V1_3)
    names = ("ListCost", "ContractedCost", "EffectiveCost", "BilledCost", "x_OnDemandCost", "x_TenantCharge")
    owed = database.run(
        lambda connection: connection.execute(
            text("""
                SELECT -sum(list_micros), -sum(contracted_micros), -sum(effective_micros), -sum(billed_micros),
                       -sum(on_demand_micros), -sum(charged_micros)
                  FROM entries WHERE account LIKE 'supplier:%' OR account LIKE 'revenue:%'
            """)
        ).one()
    )

    assert [sum(money(row, name) for row in rows) for name in names] == [Decimal(micros) / 1_000_000 for micros in owed]


def test_what_is_trued_up_is_a_correction_and_overhead_says_of_what_kind_it_is(database: Database) -> None:
    rows = exported(database, FocusVersion.V1_2)

    assert {row["ChargeClass"] for row in rows if row["x_TransactionKind"] in {"settlement", "reversal"}} == {
        "Correction"
    }
    assert {row["ChargeClass"] for row in rows if row["x_TransactionKind"] == "accrual"} == {None}
    assert {"idle", "storage", "minimum"} <= {row["x_WasteKind"] for row in rows}
    assert all(row["SubAccountId"] is None for row in rows if row["x_WasteKind"])


def test_periods_are_whole_hours_within_their_month(database: Database) -> None:
    for row in exported(database, FocusVersion.V1_2):
        start, stop = row["ChargePeriodStart"], row["ChargePeriodEnd"]
        assert start is not None
        assert stop is not None
        assert start.endswith(":00:00Z")
        assert str(row["BillingPeriodStart"]) <= start < stop <= str(row["BillingPeriodEnd"])


def test_days_beyond_the_journal_make_a_file_with_its_head_alone(database: Database) -> None:
    empty = Period(first=date(2020, 1, 1), until=date(2020, 1, 1) + timedelta(days=1))
    with CostExports(database).moment() as moment:
        content = b"".join(focus_export(moment, FocusVersion.V1_2, empty, TableFormat.CSV))

    assert content.decode().splitlines() == [",".join(COLUMNS[FocusVersion.V1_2])]
