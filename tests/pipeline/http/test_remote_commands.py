"""The commands about batches, at the counter of this machine and at a server's: they say the same and end the same."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from pipeline.entrypoints.cli.main import main
from tests.pipeline.http.served import Served

ROWS = 12
_IDS = re.compile(r"\b(batch|file|pack|wrk|prj|key)_[0-9a-zA-Z_-]+")
_TIMES = re.compile(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d(:\d\d(\.\d+)?)?([+-]\d\d:\d\d| ?[A-Z]{3,4})?")
_NUMBERS = re.compile(r"\d+(\.\d+)?")


@dataclass(frozen=True)
class Ended:
    """How a command ended, and what it said."""

    code: int
    out: str
    err: str

    @property
    def document(self) -> Any:  # noqa: ANN401 -- whatever was printed
        return json.loads(self.out)

    @property
    def shape(self) -> tuple[int, str]:
        """Return what two runs of the same must have in common: everything but ids and times."""
        return self.code, _TIMES.sub("<time>", _IDS.sub(r"\1_", self.out))


Shell = Callable[..., Ended]
COUNTERS = ("local", "remote")


@pytest.fixture
def at(
    whole: Served, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> Callable[[str], Shell]:
    """Return how commands are run at one of the two counters."""
    for name in [name for name in os.environ if name.startswith("NIGHTRATE_")]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("NO_PROXY", "*")

    def shell_at(counter: str) -> Shell:
        def run(*arguments: str) -> Ended:
            monkeypatch.setenv("NIGHTRATE_HOME", str(whole.stack.settings.home))
            if counter == "remote":
                monkeypatch.setenv("NIGHTRATE_HOME", str(tmp_path / "nothing-here"))
                monkeypatch.setenv("NIGHTRATE_URL", f"{whole.url}/v1")
                monkeypatch.setenv("NIGHTRATE_API_KEY", whole.key())
            else:
                monkeypatch.delenv("NIGHTRATE_URL", raising=False)
                monkeypatch.delenv("NIGHTRATE_API_KEY", raising=False)
            capsys.readouterr()
            with pytest.raises(SystemExit) as ended:
                main(arguments)
            captured = capsys.readouterr()
            assert "Traceback" not in captured.err
            return Ended(int(ended.value.code or 0), captured.out, captured.err)

        return run

    return shell_at


def requests(folder: Path, *, bad: int | None = None, model: str = "echo", rows: int = ROWS) -> str:
    """Write a file of requests: one refused, one that says the same as the line before, one maybe no JSON."""
    lines = []
    for number in range(rows):
        said = number - 1 if number == 4 else number
        body: dict[str, object] = {"model": model, "messages": [{"role": "user", "content": f"line {said}"}]}
        if number == 2:
            body["temperature"] = 99
        line = {"custom_id": f"r{number}", "method": "POST", "url": "/v1/chat/completions", "body": body}
        lines.append("nonsense" if number == bad else json.dumps(line))
    (folder / "in.jsonl").write_text("\n".join(lines) + "\n")
    return "in.jsonl"


@pytest.fixture(params=COUNTERS)
def shell(request: pytest.FixtureRequest, at: Callable[[str], Shell]) -> Shell:
    return at(request.param)


def ended_batch(shell: Shell, folder: Path) -> str:
    ran = shell("submit", requests(folder), "--wait", "--meta", "team=a", "--tier", "urgent", "--max-cost", "2.50")
    assert ran.code == 5, ran.err
    return ran.out.strip()


def test_a_batch_is_submitted_followed_and_read_to_its_end(shell: Shell, tmp_path: Path) -> None:
    batch_id = ended_batch(shell, tmp_path)

    results = shell("results", batch_id)
    errors = shell("results", batch_id, "--errors")
    watched = shell("watch", batch_id)

    said = [json.loads(line)["custom_id"] for line in results.out.splitlines()]
    assert said == [f"r{number}" for number in range(ROWS) if number != 2]
    assert [json.loads(line)["custom_id"] for line in errors.out.splitlines()] == ["r2"]
    assert (watched.code, watched.out) == (5, f"{batch_id} completed · 12/12 rows · 1 failed · {_cost(watched)}\n")


def _cost(watched: Ended) -> str:
    return watched.out.rpartition(" · ")[0].rpartition(" · ")[2] + " · " + watched.out.rpartition(" · ")[2].strip()


def test_both_counters_tell_the_same_of_the_same_batch(at: Callable[[str], Shell], tmp_path: Path) -> None:
    local, remote = (at(counter) for counter in COUNTERS)
    batch_id = ended_batch(local, tmp_path)

    for arguments in (
        ("show", batch_id),
        ("watch", batch_id),
        ("results", batch_id),
        ("results", batch_id, "--errors"),
        ("list", "--limit", "3"),
        ("list", "--state", "completed", "--limit", "2"),
        ("cancel", batch_id),
        ("cancel", batch_id, "--json"),
        ("pause", batch_id, "--json"),
        ("change", batch_id, "--tier", "bulk", "--json"),
        ("show", "batch_0199aa00000070008000000000000001", "--json"),
        ("show", "../files", "--json"),
        ("results", "batch_0199aa00000070008000000000000001", "--json"),
    ):
        here, there = local(*arguments), remote(*arguments)
        assert here.code in {0, 3, 4, 5}, here.err
        assert there.shape == here.shape, arguments
        assert there.err == here.err, arguments


def test_documents_differ_in_nothing_but_fractions_of_seconds(at: Callable[[str], Shell], tmp_path: Path) -> None:
    local, remote = (at(counter) for counter in COUNTERS)
    batch_id = ended_batch(remote, tmp_path)

    here, there = (shell("show", batch_id, "--json").document for shell in (local, remote))

    assert there.get("error") is None, there
    # The memory is that of the whole worker.
    assert there["meters"].pop("memory_peak_bytes") is None
    here["meters"].pop("memory_peak_bytes")
    assert _in_seconds(there) == _in_seconds(here)


def _in_seconds(document: dict[str, Any]) -> str:
    return re.sub(r"(T\d\d:\d\d:\d\d)(\.\d+)?(?=[+-])", r"\1", json.dumps(document, sort_keys=True))
