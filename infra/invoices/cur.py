"""AWS's Cost and Usage Report, version 2.0 (Data Exports): its columns, read into lines of our own."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import UTC, date, datetime
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any, Final

import orjson

from infra.invoices.tables import columns_and_rows
from pipeline.domain.costs.invoices import InvoiceFormatError, InvoiceLine
from pipeline.domain.costs.transactions import CostCategory

PROVIDER: Final = "aws"
FORMAT: Final = "cur-2.0"

#: More than any invoice, and few enough micro-units for the journal.
_AMOUNT_END: Final = Decimal(10) ** 12
_KIND: Final = "line_item_line_item_type"
_RESOURCE: Final = "line_item_resource_id"
_START: Final = "line_item_usage_start_date"
_STOP: Final = "line_item_usage_end_date"
_CURRENCY: Final = "line_item_currency_code"
_BILLED: Final = "line_item_unblended_cost"
_ON_DEMAND: Final = "pricing_public_on_demand_cost"
_NEEDED: Final = (_KIND, _START, _STOP, _CURRENCY, _BILLED)
_MATCHED_BY: Final = (_RESOURCE, "resource_tags", "resource_tags_user_nightrate_worker")
#: The tag `nightrate:worker`, as exports write it.
_TAGS: Final = ("user_nightrate_worker", "user_nightrate:worker", "user:nightrate:worker", "nightrate:worker")
#: What such lines really cost is in a column of its own.
_EFFECTIVE: Final[Mapping[str, str]] = {
    "SavingsPlanCoveredUsage": "savings_plan_savings_plan_effective_cost",
    "DiscountedUsage": "reservation_effective_cost",
}
#: Invoiced, and not what any use costs: commitments themselves, and the other side of what they cover.
_NO_USE: Final = frozenset({"SavingsPlanNegation", "SavingsPlanRecurringFee", "SavingsPlanUpfrontFee", "RIFee", "Fee"})
_SPOT: Final = "SpotUsage"


def lines(path: Path, month: date | None = None) -> Iterator[InvoiceLine]:
    """Yield the lines of an export, or those of one month of it.

    Raises:
        UsageError: It is no kind of file that can be read here.
        InvoiceFormatError: Columns are missing, or a value is not what it should be.
    """
    columns, rows = columns_and_rows(path)
    missing = [name for name in _NEEDED if name not in columns]
    if missing:
        raise InvoiceFormatError(f"{path.name} has no column {', '.join(missing)}", hint="AWS Data Exports, CUR 2.0")
    if not columns.intersection(_MATCHED_BY):
        raise InvoiceFormatError(
            f"{path.name} names neither resources nor their tags",
            hint="tick 'Include resource IDs' in the export: the column line_item_resource_id",
        )
    for number, row in enumerate(rows, start=1):
        line = _line(number, row)
        if month is None or line.start.date().replace(day=1) == month:
            yield line


def _line(number: int, row: Mapping[str, Any]) -> InvoiceLine:
    kind = _text(row, _KIND)
    billed = _amount(number, row, _BILLED) or Decimal(0)
    on_demand = _amount(number, row, _ON_DEMAND)
    if kind in _EFFECTIVE:
        effective = _amount(number, row, _EFFECTIVE[kind])
        if effective is None:
            raise InvoiceFormatError(f"line {number} is {kind} and has no {_EFFECTIVE[kind]}")
    else:
        effective = Decimal(0) if kind in _NO_USE else billed
    if kind in _NO_USE:
        # What they are of has its on-demand price on a line of its own.
        on_demand = Decimal(0)
    usage_type = _text(row, "line_item_usage_type")
    product = _text(row, "line_item_product_code")
    return InvoiceLine(
        number=number,
        kind=kind or "no kind",
        category=_category(product, usage_type),
        name=" ".join(filter(None, (product, usage_type or _text(row, "line_item_line_item_description")))),
        resource_id=_resource(_text(row, _RESOURCE)),
        worker_id=_worker(number, row),
        start=_moment(number, row, _START),
        stop=_moment(number, row, _STOP),
        currency=_text(row, _CURRENCY),
        billed=billed,
        effective=effective,
        # A spot price is published too; other lines are listed at the on-demand price.
        listed=billed if kind == _SPOT else on_demand,
        on_demand=on_demand,
    )


def _text(row: Mapping[str, Any], name: str) -> str:
    value = row.get(name)
    return "" if value is None else str(value).strip()


def _amount(number: int, row: Mapping[str, Any], name: str) -> Decimal | None:
    """Return the amount, or None where the column is empty or missing."""
    # A float's shortest decimal is what was meant by it.
    written = _text(row, name)
    if not written:
        return None
    try:
        amount = Decimal(written)
    except InvalidOperation:
        amount = Decimal("NaN")
    if not amount.is_finite() or abs(amount) >= _AMOUNT_END:
        raise InvoiceFormatError(
            f"line {number}: {name} is {written[:40]!r}", hint="a decimal number such as 0.0416666667"
        )
    return amount


def _moment(number: int, row: Mapping[str, Any], name: str) -> datetime:
    value = row.get(name)
    try:
        at = value if isinstance(value, datetime) else datetime.fromisoformat(str(value).strip())
    except ValueError:
        raise InvoiceFormatError(
            f"line {number}: {name} is {str(value)[:40]!r}", hint="an instant such as 2026-11-01T00:00:00Z"
        ) from None
    return at.replace(tzinfo=UTC) if at.tzinfo is None else at.astimezone(UTC)


def _resource(written: str) -> str | None:
    # arn:aws:ec2:us-east-1:123456789012:instance/i-0123456789abcdef0
    # and arn:aws:s3:::bucket, or the bucket's bare name.
    return written.removeprefix("arn:aws:s3:::").rpartition("/")[2] or None


def _worker(number: int, row: Mapping[str, Any]) -> str | None:
    tagged = _text(row, "resource_tags_user_nightrate_worker")
    tags = row.get("resource_tags")
    if tagged or not tags:
        return tagged or None
    if isinstance(tags, str):
        try:
            tags = orjson.loads(tags)
        except orjson.JSONDecodeError:
            raise InvoiceFormatError(f"line {number}: resource_tags is no JSON: {tags[:40]!r}") from None
    # Parquet's maps are lists of pairs.
    pairs = dict(tags)
    return next((str(pairs[name]) for name in _TAGS if pairs.get(name)), None)


def _category(product: str, usage_type: str) -> CostCategory:
    if (
        "DataTransfer" in usage_type
        or "NatGateway" in usage_type
        or (usage_type.endswith("-Bytes") and "S3" not in product)
    ):
        return CostCategory.NETWORK
    if "EBS:" in usage_type or "TimedStorage" in usage_type or product == "AmazonS3":
        return CostCategory.STORAGE
    return CostCategory.COMPUTE
