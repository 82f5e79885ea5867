"""The life of batches through OpenAI's own clients, the newest and the one before, on a whole stack."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.pipeline.http.served import Served

SCRIPT = Path(__file__).with_name("sdk_life.py")
#: Made by `make test`: version 2 excludes version 3, and needs another HTTP client.
SECOND = Path(".venv-openai2/bin/python").absolute()


@pytest.mark.parametrize(
    ("python", "major"),
    [
        (Path(sys.executable), "3."),
        pytest.param(
            SECOND,
            "2.",
            marks=pytest.mark.skipif(not SECOND.exists(), reason="`make .venv-openai2/.run` installs OpenAI's SDK 2"),
        ),
    ],
    ids=["openai3", "openai2"],
)
def test_the_unmodified_client_finds_all_it_knows(whole: Served, python: Path, major: str) -> None:
    ran = subprocess.run(
        [python, SCRIPT, f"{whole.url}/v1", whole.key()], capture_output=True, text=True, check=False, timeout=300
    )

    assert ran.returncode == 0, ran.stderr[-3000:]
    assert ran.stdout.startswith(major)
