"""What PyPI's focus-validator says of an export: an independent judge, of FOCUS 1.0, which 1.2 contains.

    python -m tests.pipeline.report.judge_focus .venv-focus/bin/focus-validator

Columns that 1.0 has not are left out; what it looks for under other names than the specification is copied to those.
"""

from __future__ import annotations

import csv
import io
import re
import subprocess
import sys
import tempfile
from datetime import date
from pathlib import Path

from pipeline.app.cost_exports import focus_export
from pipeline.ports.cost_reports import Period
from pipeline.report.focus.columns import COLUMNS, FocusVersion
from pipeline.report.tables import TableFormat
from storage.cost_exports import CostExports
from storage.database import Database
from storage.migrations import upgrade
from tests.services import connect, running_postgres, with_database
from tests.storage.journals import write_journal

_PERIOD = Period(first=date(2026, 10, 1), until=date(2026, 12, 1))
#: New in 1.1 and 1.2.
_LATER = frozenset(
    {"BillingAccountType", "InvoiceId", "ServiceSubcategory", "SkuMeter", "SkuPriceDetails", "SubAccountType"}
)
#: What the validator asks for under names that the specification has for display, or had before 1.0; and columns for
#: commitments, which we have none of.
_RENAMED = {
    "InvoiceIssuer": "InvoiceIssuerName",
    "Provider": "ProviderName",
    "Publisher": "PublisherName",
    "ResourceID": "ResourceId",
    "ChargeType": "ChargeCategory",
}
#: It looks for a list of currencies that its wheel has not.
_ITS_OWN = frozenset({"BillingCurrency_IsCurrencyCode"})
_EMPTY = tuple(f"CommitmentDiscount{name}" for name in ("Category", "Id", "Name", "Status", "Type"))


def main(validator: str) -> int:
    """Judge an export of a random journal; 0 where nothing fails but what is the judge's own."""
    with tempfile.TemporaryDirectory() as folder, running_postgres(Path(folder) / "home") as server:
        with connect(server) as connection:
            connection.execute("CREATE DATABASE focus")
        url = with_database(server, "focus")
        upgrade(url)
        database = Database(url)
        write_journal(database, 1)
        path = Path(folder) / "focus.csv"
        path.write_text(_older(database))
        database.close()
        judged = subprocess.run(
            [validator, "--data-file", str(path), "--validate-version", "1.0"],
            capture_output=True,
            text=True,
            check=False,
        )
    print(judged.stdout[-20_000:])  # noqa: T201 -- what the judge says is what is asked for
    sys.stderr.write(judged.stderr[-4_000:])
    failed = set(re.findall(r"^(\w+) failed:$", judged.stdout, re.MULTILINE))
    sys.stderr.write(f"fails beside what is its own: {', '.join(sorted(failed - _ITS_OWN)) or 'nothing'}\n")
    is_judged = "Validation" in judged.stdout and judged.returncode == 0
    return 0 if is_judged and failed <= _ITS_OWN else 1


def _older(database: Database) -> str:
    names = [name for name in COLUMNS[FocusVersion.V1_2] if name not in _LATER and not name.startswith("x_")]
    with CostExports(database).moment() as moment:
        content = b"".join(focus_export(moment, FocusVersion.V1_2, _PERIOD, TableFormat.CSV)).decode()
    held = io.StringIO()
    writer = csv.DictWriter(held, [*names, *_RENAMED, *_EMPTY], extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    for row in csv.DictReader(io.StringIO(content)):
        writer.writerow(row | {theirs: row[ours] for theirs, ours in _RENAMED.items()})
    return held.getvalue()


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1]))
