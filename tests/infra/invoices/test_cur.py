from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from infra.invoices.cur import lines
from pipeline.domain.costs.invoices import InvoiceFormatError
from pipeline.domain.costs.transactions import CostCategory
from pipeline.domain.errors import UsageError
from tests.infra.invoices.cur_file import HEADER, line, write_csv, write_parquet

LINES = [
    line("0.0416666667", resource="i-0abc", worker="wrk_1", pricing_public_on_demand_cost="0.05"),
    line("0.0100000000", kind="SpotUsage", resource="arn:aws:ec2:us-east-1:1:instance/i-0def"),
    line(
        "0.8048000000",
        kind="SavingsPlanCoveredUsage",
        savings_plan_savings_plan_effective_cost="0.5",
        pricing_public_on_demand_cost="0.8048",
    ),
    line("-0.8048000000", kind="SavingsPlanNegation"),
    line("0", kind="DiscountedUsage", reservation_effective_cost="0.3"),
    line("12.5", kind="Tax", usage_type="", line_item_line_item_description="VAT", hours=720),
    line("0.02", usage_type="EBS:VolumeUsage.gp3"),
    line("0.01", usage_type="USE1-DataTransfer-Out-Bytes"),
]


@pytest.mark.parametrize("name", ["bill.csv", "bill.csv.gz", "bill.parquet"])
def test_every_format_tells_the_same(tmp_path: Path, name: str) -> None:
    write: Callable[..., Path] = write_parquet if name.endswith("parquet") else write_csv

    read = list(lines(write(tmp_path / name, LINES)))

    assert [(each.kind, each.billed, each.effective, each.listed, each.on_demand) for each in read] == [
        ("Usage", Decimal("0.0416666667"), Decimal("0.0416666667"), Decimal("0.05"), Decimal("0.05")),
        ("SpotUsage", Decimal("0.01"), Decimal("0.01"), Decimal("0.01"), None),
        ("SavingsPlanCoveredUsage", Decimal("0.8048"), Decimal("0.5"), Decimal("0.8048"), Decimal("0.8048")),
        ("SavingsPlanNegation", Decimal("-0.8048"), 0, 0, 0),
        ("DiscountedUsage", 0, Decimal("0.3"), None, None),
        ("Tax", Decimal("12.5"), Decimal("12.5"), None, None),
        ("Usage", Decimal("0.02"), Decimal("0.02"), None, None),
        ("Usage", Decimal("0.01"), Decimal("0.01"), None, None),
    ]
    assert [each.resource_id for each in read[:3]] == ["i-0abc", "i-0def", None]
    assert [each.worker_id for each in read[:2]] == ["wrk_1", None]
    assert read[0].start == datetime(2026, 11, 20, 10, tzinfo=UTC)
    assert read[5].name == "AmazonEC2 VAT"
    kinds = [CostCategory.COMPUTE] * 6 + [CostCategory.STORAGE, CostCategory.NETWORK]
    assert [each.category for each in read] == kinds


@pytest.mark.parametrize("tag", ["user_nightrate_worker", "user:nightrate:worker", "nightrate:worker"])
def test_the_tag_is_known_however_it_is_written(tmp_path: Path, tag: str) -> None:
    tagged = line("1", resource_tags=f'{{"other": "x", "{tag}": "wrk_7"}}')

    (read,) = lines(write_csv(tmp_path / "b.csv", [tagged]))

    assert read.worker_id == "wrk_7"


def test_only_the_month_that_is_asked_for_is_read(tmp_path: Path) -> None:
    path = write_csv(
        tmp_path / "b.csv", [line("1"), line("2", start=datetime(2026, 10, 31, 23, tzinfo=UTC)), line("3")]
    )

    assert [each.billed for each in lines(path, date(2026, 10, 1))] == [2]


def _refusal(path: Path) -> str:
    with pytest.raises((InvoiceFormatError, UsageError)) as caught:
        list(lines(path))
    return str(caught.value)


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"line_item_unblended_cost": "1,5"}, "line 2: line_item_unblended_cost is '1,5'"),
        ({"line_item_unblended_cost": "NaN"}, "line 2: line_item_unblended_cost is 'NaN'"),
        ({"line_item_unblended_cost": "-1e400"}, "line 2: line_item_unblended_cost is '-1e400'"),
        ({"line_item_unblended_cost": "1000000000000"}, "line 2: line_item_unblended_cost is '1000000000000'"),
        ({"pricing_public_on_demand_cost": "x"}, "line 2: pricing_public_on_demand_cost is 'x'"),
        ({"line_item_usage_start_date": "yesterday"}, "line 2: line_item_usage_start_date is 'yesterday'"),
        ({"resource_tags": "{"}, "line 2: resource_tags is no JSON"),
        (
            {"line_item_line_item_type": "DiscountedUsage"},
            "line 2 is DiscountedUsage and has no reservation_effective_cost",
        ),
    ],
)
def test_a_malformed_value_is_named_with_its_line(tmp_path: Path, more: dict[str, Any], said: str) -> None:
    assert said in _refusal(write_csv(tmp_path / "b.csv", [line("1"), {**line("1"), **more}]))


def test_missing_columns_are_named(tmp_path: Path) -> None:
    header = [name for name in HEADER if name not in {"line_item_unblended_cost", "line_item_currency_code"}]

    said = _refusal(write_csv(tmp_path / "b.csv", LINES, header=header))

    assert "no column line_item_currency_code, line_item_unblended_cost" in said


def test_a_bill_without_resources_is_refused(tmp_path: Path) -> None:
    header = [name for name in HEADER if name not in {"line_item_resource_id", "resource_tags"}]

    assert "names neither resources nor their tags" in _refusal(write_csv(tmp_path / "b.csv", LINES, header=header))


@pytest.mark.parametrize(
    ("name", "data", "said"),
    [
        ("b.xlsx", b"", "no file that an invoice can be read from"),
        ("b.parquet", b"no", "is no Parquet file"),
        ("b.csv.gz", b"no", "is broken"),
        ("b.csv", b"", "has no column"),
        ("b.csv", b"\xff\xfe", "is broken"),
    ],
)
def test_what_is_no_bill_is_refused(tmp_path: Path, name: str, data: bytes, said: str) -> None:
    (tmp_path / name).write_bytes(data)

    assert said in _refusal(tmp_path / name)


def test_a_row_that_is_cut_off_is_named(tmp_path: Path) -> None:
    path = write_csv(tmp_path / "b.csv", [line("1"), line("2")])
    path.write_bytes(path.read_bytes()[:-40])

    assert "line 3 has another number of fields" in _refusal(path)
