"""The examples, each run as people run it, wherever its runtime is at hand."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.pipeline.http.served import Served

EXAMPLES = Path(__file__).parents[3] / "examples"
#: Made by `make test-examples`: the client of OpenAI for Node, and what runs TypeScript there.
NODE = Path("build/examples-node").absolute()
NEEDS_CURL = pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
NEEDS_NODE = pytest.mark.skipif(
    shutil.which("node") is None or not (NODE / "node_modules/openai").exists(),
    reason="`make test-examples` installs what runs TypeScript",
)
PROGRAMS = [
    pytest.param("batch_openai.py", id="python"),
    pytest.param("batch_curl.sh", id="curl", marks=NEEDS_CURL),
    pytest.param("batch_openai.ts", id="typescript", marks=NEEDS_NODE),
]


def ran(program: str, whole: Served, folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run an example against the API."""
    command = {".py": [sys.executable], ".sh": ["bash"], ".ts": [str(NODE / "node_modules/.bin/tsx")]}
    source = EXAMPLES / program
    if source.suffix == ".ts":
        # Node looks for packages from where a program lies.
        source = shutil.copy(source, NODE / program)
    given = {
        "OPENAI_BASE_URL": f"{whole.url}/v1",
        "OPENAI_API_KEY": whole.key(),
        "POLL_SECONDS": "0.1",
        "NO_PROXY": "*",
    }
    return subprocess.run(
        [*command[Path(program).suffix], str(source), *arguments],
        cwd=folder,
        env=os.environ | given,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


def requests(folder: Path, *temperatures: float) -> None:
    """Write a file of requests; what is too hot is refused."""
    lines = []
    for number, temperature in enumerate(temperatures):
        body = {"model": "echo", "messages": [{"role": "user", "content": f"{number}?"}], "temperature": temperature}
        line = {"custom_id": f"r{number}", "method": "POST", "url": "/v1/chat/completions", "body": body}
        lines.append(json.dumps(line))
    (folder / "in.jsonl").write_text("\n".join(lines) + "\n")


@pytest.mark.parametrize("program", PROGRAMS)
def test_an_example_runs_a_file_from_request_to_answer(program: str, whole: Served, tmp_path: Path) -> None:
    requests(tmp_path, 0.0, 0.5, 1.0)

    ended = ran(program, whole, tmp_path, "in.jsonl", "out.jsonl")

    assert ended.returncode == 0, ended.stderr
    answers = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert [answer["custom_id"] for answer in answers] == ["r0", "r1", "r2"]


@pytest.mark.parametrize("program", PROGRAMS)
def test_an_example_tells_of_rows_that_failed(program: str, whole: Served, tmp_path: Path) -> None:
    requests(tmp_path, 0.0, 99.0)

    ended = ran(program, whole, tmp_path, "in.jsonl", "out.jsonl")

    assert ended.returncode == 1
    assert len((tmp_path / "out.jsonl").read_text().splitlines()) == 1
    assert "temperature" in ended.stderr
