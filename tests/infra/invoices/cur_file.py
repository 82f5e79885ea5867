"""CUR 2.0 exports made up for tests."""

from __future__ import annotations

import csv
import gzip
import io
import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

HEADER = (
    "identity_line_item_id",
    "bill_billing_period_start_date",
    "line_item_usage_account_id",
    "line_item_line_item_type",
    "line_item_product_code",
    "line_item_usage_type",
    "line_item_operation",
    "line_item_line_item_description",
    "line_item_resource_id",
    "line_item_usage_start_date",
    "line_item_usage_end_date",
    "line_item_currency_code",
    "line_item_unblended_cost",
    "line_item_net_unblended_cost",
    "pricing_public_on_demand_cost",
    "savings_plan_savings_plan_effective_cost",
    "reservation_effective_cost",
    "resource_tags",
)


def line(
    cost: str,
    *,
    kind: str = "Usage",
    start: datetime = datetime(2026, 11, 20, 10, tzinfo=UTC),
    hours: int = 1,
    resource: str = "",
    worker: str = "",
    usage_type: str = "BoxUsage:g6.xlarge",
    **more: str,
) -> dict[str, str]:
    """Return a line of compute; `more` are columns as they are called."""
    return {
        **dict.fromkeys(HEADER, ""),
        "line_item_line_item_type": kind,
        "line_item_product_code": "AmazonEC2",
        "line_item_usage_type": usage_type,
        "line_item_resource_id": resource,
        "line_item_usage_start_date": _written(start),
        "line_item_usage_end_date": _written(start + timedelta(hours=hours)),
        "line_item_currency_code": "USD",
        "line_item_unblended_cost": cost,
        "resource_tags": json.dumps({"user_nightrate_worker": worker}) if worker else "",
        **more,
    }


def write_csv(path: Path, lines: Sequence[Mapping[str, str]], *, header: Sequence[str] = HEADER) -> Path:
    """Write an export; into gzip where the name says so."""
    written = io.StringIO()
    writer = csv.DictWriter(written, header, extrasaction="ignore")
    writer.writeheader()
    writer.writerows(lines)
    data = written.getvalue().encode()
    # Without a time in it, so that the same lines are the same file.
    path.write_bytes(gzip.compress(data, mtime=0) if path.name.endswith(".gz") else data)
    return path


def write_parquet(path: Path, lines: Sequence[Mapping[str, str]]) -> Path:
    """Write an export with the types that AWS gives its columns."""
    import pyarrow as pa
    from pyarrow import parquet

    tags = pa.map_(pa.string(), pa.string())
    columns: dict[str, Any] = {}
    for name in HEADER:
        values = [each[name] for each in lines]
        if name.endswith("_cost"):
            columns[name] = pa.array([float(value) if value else None for value in values], pa.float64())
        elif name.endswith("_date"):
            moments = [datetime.fromisoformat(value).replace(tzinfo=None) if value else None for value in values]
            columns[name] = pa.array(moments, pa.timestamp("ms"))
        elif name == "resource_tags":
            columns[name] = pa.array([list(json.loads(value).items()) if value else [] for value in values], tags)
        else:
            columns[name] = pa.array(values, pa.string())
    parquet.write_table(pa.table(columns), path)
    return path


def _written(at: datetime) -> str:
    return f"{at:%Y-%m-%dT%H:%M:%S}Z"
