"""The published document against the server, by schemathesis: no 5xx, no status and no shape that it does not name."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.domain.access import Role
from tests.pipeline.http.driving import made, take_in
from tests.pipeline.http.served import Served

CONFIG = Path(__file__).with_name("schemathesis.toml")
#: Cases of each operation; `make fuzz` asks for many more.
EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", "5"))
SEED = os.environ.get("SEED", "1")


def test_the_server_does_what_its_document_says(
    quiet: Served, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    take_in(quiet, made(quiet)["id"])
    command = [
        Path(sys.executable).with_name("schemathesis"),
        "--config-file",
        CONFIG,
        "run",
        f"{quiet.url}/openapi.json",
        "--header",
        f"Authorization: Bearer {quiet.key(Role.ADMIN)}",
        "--phases=examples,coverage,fuzzing",
        f"--max-examples={EXAMPLES}",
        f"--seed={SEED}",
        "--generation-database=none",
    ]

    ran = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)

    assert ran.returncode == 0, ran.stdout[-8000:] + ran.stderr[-2000:]
    cases = re.search(r"(\d+) generated", ran.stdout)
    assert cases is not None
    assert int(cases[1]) >= 10 * EXAMPLES
    with capsys.disabled():
        sys.stderr.write(f"{cases[1]} cases\n")
