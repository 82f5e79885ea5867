"""Write dbt's sources.yml from the comments in a database: python write_sources.py postgresql://… > sources.yml."""

from __future__ import annotations

import json
import sys

import psycopg

VIEWS = (
    "charges",
    "hourly",
    "daily",
    "batches",
    "unit_costs",
    "utilisation",
    "spot",
    "labels",
    "budget_burn",
)
COLUMNS = """
    SELECT attname, format_type(atttypid, atttypmod), col_description(attrelid, attnum)
      FROM pg_attribute WHERE attrelid = CAST(%s AS regclass) AND attnum > 0 AND NOT attisdropped ORDER BY attnum
"""


def main(url: str) -> None:
    """Print the file."""
    print("# Written by write_sources.py from the comments in the database.")
    print("version: 2\n\nsources:\n  - name: nightrate\n    schema: cost")
    print("    description: What batches had and what it cost; see docs/analytics.md.\n    tables:")
    with psycopg.connect(url) as connection:
        for view in VIEWS:
            found = connection.execute("SELECT obj_description(CAST(%s AS regclass), 'pg_class')", [f"cost.{view}"])
            print(f"      - name: {view}\n        description: {json.dumps(found.fetchone()[0])}\n        columns:")
            for name, kind, comment in connection.execute(COLUMNS, [f"cost.{view}"]):
                print(
                    f"          - name: {name}\n            data_type: {kind}\n            description: {json.dumps(comment)}"
                )


if __name__ == "__main__":
    main(sys.argv[1])
