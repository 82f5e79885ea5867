"""Read a results file: the answer to each request, by its custom id.

    python examples/read_results.py answers.jsonl [rows]

Rows come in the order of the input. Failed ones are not here but in the error file.
"""

from __future__ import annotations

import json
import sys
from itertools import islice
from pathlib import Path


def main() -> None:
    """Print the first rows, all where no number is given."""
    if len(sys.argv) < 2:  # noqa: PLR2004 -- the program's own name is one
        sys.exit(str(__doc__))
    rows = int(sys.argv[2]) if len(sys.argv) > 2 else None  # noqa: PLR2004 -- as above
    with Path(sys.argv[1]).open(encoding="utf-8") as results:
        for line in islice(results, rows):
            result = json.loads(line)
            choice = result["response"]["body"]["choices"][0]
            print(f"{result['custom_id']}: {choice['message']['content'].strip()}")


if __name__ == "__main__":
    main()
