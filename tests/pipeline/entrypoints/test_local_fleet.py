"""A fleet of processes, for real: a backlog makes workers appear, its end makes them go, and the ledger has every second."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.services import eventually

ROOT = Path(__file__).parents[3]
#: A real model takes a minute for these: more than a worker has that is to go.
ROWS = 300
MODEL = "smollm2-135m-instruct"
SECONDS_MAX = 300
SETTINGS = """
workers = 0
commit_seconds = 0.2
# Loading a model may hold up heartbeats where the machine is busy.
lease_seconds = 180.0

[rate_card.pools.burst]
rate_per_hour = "0.36"

[fleet]
every_seconds = 1

[fleet.pools.burst]
workers_max = 1
start_seconds = 20
models = ["smollm2-135m-instruct"]

[[fleet.pools.burst.offers]]
provider = "local"
"""


class Shell:
    """Runs the command line in a data folder of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        plain = {name: value for name, value in os.environ.items() if not name.startswith("NIGHTRATE_")}
        self._env = plain | {
            "NIGHTRATE_HOME": str(folder / "home"),
            "NIGHTRATE_API_PORT": "0",
            "PYTHONPATH": str(ROOT),
        }

    def run(self, *arguments: str) -> str:
        command = [sys.executable, "-m", "pipeline.entrypoints.cli", *arguments]
        done = subprocess.run(
            command,
            cwd=self.folder,
            env=self._env,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=SECONDS_MAX,
            check=False,
        )
        assert done.returncode == 0, f"{arguments} ended with {done.returncode}: {done.stderr}"
        return done.stdout

    def document(self, *arguments: str) -> Any:  # noqa: ANN401 -- whatever was printed
        return json.loads(self.run(*arguments, "--json"))

    def worker_states(self) -> set[str]:
        return {worker["state"] for worker in self.document("status")["workers"]}

    def worker_ids(self) -> list[str]:
        return sorted(path.stem for path in (self.folder / "home/fleet/local").glob("*.json"))


@pytest.fixture
def shell(tmp_path: Path) -> Iterator[Shell]:
    (tmp_path / "nightrate.toml").write_text(SETTINGS)
    with (tmp_path / "in.jsonl").open("w") as file:
        for number in range(ROWS):
            asked = f"Tell me something about the number {number}."
            body = {"model": MODEL, "messages": [{"role": "user", "content": asked}], "max_tokens": 20}
            line = {"custom_id": f"r{number}", "method": "POST", "url": "/v1/chat/completions", "body": body}
            file.write(json.dumps(line) + "\n")
    shell = Shell(tmp_path)
    shell.run("up", "--workers", "0")
    yield shell
    shell.run("down")


def test_a_backlog_brings_workers_an_interrupted_one_is_replaced_and_the_end_sends_them_away(shell: Shell) -> None:
    assert shell.document("status")["workers"] == []

    batch_id = shell.run("submit", "in.jsonl", "--tier", "urgent", "--window", "1h").strip()
    # While it loads its model, with the rows leased: its machine is taken.
    eventually(lambda: shell.worker_states() & {"loading", "ready"}, seconds=SECONDS_MAX)
    (first,) = shell.worker_ids()
    (shell.folder / "home/fleet" / f"{first}.notice").touch()

    shell.run("watch", batch_id)
    shown = shell.document("show", batch_id)
    assert shown["state"] == "completed"
    assert shown["rows"]["completed"] == ROWS
    ids = Counter(json.loads(line)["custom_id"] for line in shell.run("results", batch_id).splitlines())
    assert ids == Counter({f"r{number}": 1 for number in range(ROWS)})
    assert len(shell.worker_ids()) == 2, "another took over"

    eventually(lambda: shell.document("status")["workers"] == [], seconds=SECONDS_MAX)
    books = shell.document("cost", "reconcile")
    (pool,) = books["pools"]
    assert (pool["ok"], pool["workers"], pool["live"]) == (True, 2, 0), books
