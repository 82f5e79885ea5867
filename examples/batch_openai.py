"""A batch by OpenAI's own client: upload, create, poll, download.

    export OPENAI_BASE_URL=https://nightrate.example.com/v1 OPENAI_API_KEY=sk-nr-...
    python examples/batch_openai.py examples/chat.jsonl answers.jsonl

Nothing here knows of Nightrate: with OpenAI's URL and key it runs there. What goes beyond OpenAI's API is passed as
`extra_body`, such as `extra_body={"tier": "bulk", "max_cost": "0.50"}` with `batches.create`.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path

import openai

ENDED = ("completed", "failed", "expired", "cancelled")


def main() -> int:
    """Run a file of requests; return 0 where every row has an answer."""
    if len(sys.argv) != 3:  # noqa: PLR2004 -- the program's own name is one
        sys.exit(str(__doc__))
    requests, answers = map(Path, sys.argv[1:])
    client = openai.OpenAI()
    with requests.open(encoding="utf-8") as lines:
        endpoint = json.loads(next(lines))["url"]

    file = client.files.create(file=requests, purpose="batch")
    batch = client.batches.create(input_file_id=file.id, endpoint=endpoint, completion_window="24h")
    while batch.status not in ENDED:
        time.sleep(float(os.environ.get("POLL_SECONDS", "10")))
        batch = client.batches.retrieve(batch.id)
        print(batch.id, batch.status, batch.request_counts and batch.request_counts.to_dict(), file=sys.stderr)

    for fault in batch.errors.data or () if batch.errors else ():
        print(f"line {fault.line}: {fault.message}", file=sys.stderr)
    if batch.output_file_id is not None:
        client.files.content(batch.output_file_id).write_to_file(answers)
    if batch.error_file_id is not None:
        print(client.files.content(batch.error_file_id).text, end="", file=sys.stderr)
    is_whole = batch.status == "completed" and batch.error_file_id is None
    return 0 if is_whole else 1


if __name__ == "__main__":
    sys.exit(main())
