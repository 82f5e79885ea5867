"""The commands about batches, at the counter of this machine and at a server's: they say the same and end the same."""

from __future__ import annotations

import hashlib
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

import infra.remote.desk
import infra.remote.uploads
from pipeline.domain.access import Role
from pipeline.entrypoints.cli.main import main
from tests.pipeline.http.served import Served

ROOT = Path(__file__).parents[3]
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
NEEDS_FORECASTS = pytest.mark.skipif(
    find_spec("pipeline.entrypoints.http.forecasts") is None, reason="this API makes no forecasts"
)


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


def test_a_batch_is_steered_and_what_is_left_of_it_is_retried(shell: Shell, tmp_path: Path) -> None:
    hold = ("--hold-until", "6h", "--window", "2d", "--priority", "3", "--label", "team=search", "--json")
    made = shell("submit", requests(tmp_path), *hold).document
    assert (made["state"], made["priority"], made["rows"]["total"]) == ("in_progress", 3, ROWS)
    assert made["hold_until"] is not None
    assert made["labels"] == {"team": "search"}
    labelled = shell("change", made["id"], "--label", "team=ads", "--label", "run=7", "--json").document
    assert labelled["labels"] == {"team": "ads", "run": "7"}
    assert "label team" in shell("show", made["id"]).out
    assert shell("change", made["id"], "--label", "none", "--json").document["labels"] is None
    refused = shell("change", made["id"], "--label", "team")
    assert (refused.code, "--label team=search" in refused.err) == (2, True)

    paused = shell("pause", made["id"], "--json").document
    assert paused["paused_at"] is not None
    changed = shell(
        "change", made["id"], "--tier", "bulk", "--max-cost", "3", "--deadline", "20h", "--priority", "-1", "--json"
    ).document
    assert (changed["tier"], changed["budget_micros"], changed["priority"]) == ("bulk", 3_000_000, -1)
    assert changed["deadline_at"] < made["deadline_at"]
    freed = shell("change", made["id"], "--max-cost", "none", "--json").document
    assert (freed["budget_micros"], freed["hold_until"]) == (None, made["hold_until"])

    unready = shell("results", made["id"])
    assert (unready.code, unready.out) == (4, "")
    early = shell("retry", made["id"], "--json")
    assert (early.code, early.document["error"]["code"]) == (4, "conflict")

    assert shell("cancel", made["id"]).code == 0
    assert shell("watch", made["id"]).code == 1
    again = shell("retry", made["id"], "--tier", "urgent", "--wait")
    twice = shell("retry", made["id"], "--tier", "urgent", "--wait")
    assert again.code == twice.code == 5, again.err
    assert again.out == twice.out != made["id"]
    shown = shell("show", again.out.strip(), "--json").document
    # Its leaders have their answers; the one that was refused at intake is refused again.
    assert (shown["rows"]["completed"], shown["rows"]["failed"], shown["tier"]) == (ROWS - 1, 1, "urgent")


@pytest.mark.parametrize("counter", COUNTERS)
def test_ctrl_c_stops_looking_and_not_the_batch(counter: str, at: Callable[[str], Shell], tmp_path: Path) -> None:
    shell = at(counter)
    batch_id = shell("submit", requests(tmp_path), "--hold-until", "6h", "--window", "2d").out.strip()

    # The environment is the one that `shell` left.
    command = [sys.executable, "-m", "pipeline.entrypoints.cli", "watch", batch_id]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    with subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as watching:
        assert watching.stdout is not None
        assert watching.stdout.readline().startswith(batch_id)
        watching.send_signal(signal.SIGINT)
        _, talk = watching.communicate(timeout=60)

    assert watching.returncode == 130
    assert f"nightrate: detached; {batch_id} goes on" in talk
    assert shell("show", batch_id, "--json").document["state"] == "in_progress"
    assert shell("cancel", batch_id).code == 0


def test_a_file_with_wrong_lines_fails_with_all_of_them(at: Callable[[str], Shell], tmp_path: Path) -> None:
    here, there = (at(counter)("submit", requests(tmp_path, bad=3), "--json") for counter in COUNTERS)

    assert here.code == there.code == 1
    assert here.document["errors"] == there.document["errors"] != []
    assert _IDS.sub("", here.err) == _IDS.sub("", there.err)


def test_the_same_key_again_is_the_same_batch_and_another_file_under_it_is_refused(
    shell: Shell, tmp_path: Path
) -> None:
    keyed = ("--idempotency-key", f"{tmp_path.name}-{id(shell)}")
    first = shell("submit", requests(tmp_path), *keyed)
    again = shell("submit", requests(tmp_path), *keyed)
    other = shell("submit", requests(tmp_path, rows=3), *keyed, "--json")

    # It may have ended by then, with the row that is refused.
    assert first.code in {0, 5}
    assert again.code in {0, 5}
    assert first.out == again.out
    assert (other.code, other.document["error"]["code"]) == (4, "conflict")


def test_results_go_to_a_file_with_the_hash_they_are_known_by(at: Callable[[str], Shell], tmp_path: Path) -> None:
    local, remote = (at(counter) for counter in COUNTERS)
    batch_id = ended_batch(remote, tmp_path)

    here = local("results", batch_id, "--output", "out.jsonl", "--json").document
    assert remote("results", batch_id, "--output", "out.jsonl").code == 4
    there = remote("results", batch_id, "--output", "out.jsonl", "--force", "--json").document

    assert here == there
    assert hashlib.sha256((tmp_path / "out.jsonl").read_bytes()).hexdigest() == there["sha256"]


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("list", "--api-key", "nr_nonsense"), 4, "NIGHTRATE_API_KEY"),
        (("list", "--api-key", ""), 2, "wants an API key"),
        (("list", "--api-key", "two words"), 2, "characters"),
        (("list", "--url", "http://203.0.113.7:8400"), 2, "--insecure-http"),
        (("list", "--url", "203.0.113.7"), 2, "no URL"),
        (("explain",), 2, "one batch at a time"),
        (("explain", "local"), 2, "packs and pools"),
        (("show", "nothing"), 3, "there is no batch nothing"),
        (("submit", "missing.jsonl"), 3, "missing.jsonl"),
    ],
)
def test_what_a_server_cannot_be_asked_is_told_plainly(
    at: Callable[[str], Shell], arguments: tuple[str, ...], code: int, said: str
) -> None:
    ended = at("remote")(*arguments)

    assert ended.code == code, ended.err
    assert said in ended.err
    assert ended.out == ""


def test_a_key_needs_a_server(at: Callable[[str], Shell]) -> None:
    ended = at("local")("list", "--api-key", "nr_key")

    assert (ended.code, ended.out) == (2, "")
    assert "--url" in ended.err
    assert "nr_key" not in ended.err


def test_options_win_over_settings_and_an_empty_url_is_the_stack_here(
    whole: Served, at: Callable[[str], Shell]
) -> None:
    remote = at("remote")

    assert remote("list", "--json", "--api-key", whole.key(Role.READ)).code == 0
    assert remote("list", "--json", "--api-key", "nr_nonsense").code == 4
    assert remote("list", "--url", f"{whole.url}/nowhere").code == 3
    assert "nightrate up" in remote("list", "--url", "").err


def test_a_key_that_may_only_read_is_told_so(whole: Served, at: Callable[[str], Shell], tmp_path: Path) -> None:
    ended = at("remote")("submit", requests(tmp_path), "--api-key", whole.key(Role.READ))

    assert (ended.code, ended.out) == (4, "")
    assert "submit" in ended.err


def test_the_key_is_in_no_listing_of_settings(at: Callable[[str], Shell], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NIGHTRATE_KEY_PEPPER", "salt-and-pepper")
    remote = at("remote")

    for ended in (remote("config"), remote("config", "--json")):
        assert ended.code == 0
        assert os.environ["NIGHTRATE_API_KEY"] not in ended.out
        assert "salt-and-pepper" not in ended.out
        assert os.environ["NIGHTRATE_URL"] in ended.out


@pytest.mark.parametrize("shape", [("--format", "merged"), ("--format", "parquet"), ("--partial",)])
def test_results_have_the_same_shapes_at_both_counters(
    at: Callable[[str], Shell], tmp_path: Path, shape: tuple[str, ...]
) -> None:
    local, remote = (at(counter) for counter in COUNTERS)
    batch_id = ended_batch(remote, tmp_path)
    written = tmp_path / "out"

    here = local("results", batch_id, *shape, "--output", "out", "--json").document
    content = written.read_bytes()
    there = remote("results", batch_id, *shape, "--output", "out", "--force", "--json").document

    assert here == there
    assert written.read_bytes() == content != b""


def test_results_of_a_batch_that_runs_are_had_where_they_are_asked_for(shell: Shell, tmp_path: Path) -> None:
    held = shell("submit", requests(tmp_path), "--hold-until", "6h", "--window", "2d").out.strip()

    early, partial = shell("results", held, "--format", "jsonl"), shell("results", held, "--partial")

    assert (early.code, early.out) == (4, "")
    assert partial.code == 0, partial.err
    assert shell("cancel", held).code == 0


def test_a_large_file_arrives_in_parts(
    whole: Served, at: Callable[[str], Shell], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(infra.remote.uploads, "PART_BYTES", 1000)
    monkeypatch.setattr(
        infra.remote.desk.RemoteDesk.__init__, "__kwdefaults__", {"on_sent": None, "parts_from_bytes": 1}
    )
    remote = at("remote")

    ran = remote("submit", requests(tmp_path), "--wait")
    assert ran.code == 5, ran.err
    file_id = remote("show", ran.out.strip(), "--json").document["files"]["input"]

    assert whole.ask("GET", f"/v1/files/{file_id}/content").content == (tmp_path / "in.jsonl").read_bytes()


@NEEDS_FORECASTS
def test_a_file_is_quoted_and_nothing_of_it_stays(at: Callable[[str], Shell], tmp_path: Path, whole: Served) -> None:
    local, remote = (at(counter) for counter in COUNTERS)
    windows = ("--window", "2h", "--window", "60m", "--window", "6h")

    here, there = (shell("quote", requests(tmp_path), *windows, "--json").document for shell in (local, remote))

    assert there["rows"] == here["rows"] == {"total": ROWS, "duplicate": 1, "refused": 1}
    assert there["model"] == here["model"]
    assert [each["tier"] for each in there["tiers"]] == [each["tier"] for each in here["tiers"]]
    assert [list(each["chances"]) for each in there["tiers"]] == [["2h", "60m", "6h"]] * len(there["tiers"])
    served = [each for each in there["tiers"] if each["variant"] is not None]
    assert served
    assert all(chance is not None for each in served for chance in each["chances"].values())
    assert [name for name in _files(whole) if name == "in.jsonl"] == []

    told = remote("quote", requests(tmp_path))
    assert (told.code, told.out.splitlines()[0].split()) == (0, ["model", "echo"])


@NEEDS_FORECASTS
def test_a_file_with_wrong_lines_is_not_quoted(at: Callable[[str], Shell], tmp_path: Path) -> None:
    here, there = (at(counter)("quote", requests(tmp_path, bad=3), "--json") for counter in COUNTERS)

    assert here.shape == there.shape
    assert (here.code, here.err) == (4, there.err)


@NEEDS_FORECASTS
def test_a_promise_is_kept_to_at_both_counters(shell: Shell, tmp_path: Path) -> None:
    promised = shell("submit", requests(tmp_path), "--promise", "--window", "2h", "--max-cost", "5", "--wait")
    dear = shell("submit", requests(tmp_path), "--promise", "--max-cost", "0.000001", "--json")

    assert promised.code == 5, promised.err
    assert promised.out.startswith("batch_")
    assert (dear.code, dear.document["error"]["code"]) == (4, "not_admitted")
    assert dear.document["error"]["offers"]


@NEEDS_FORECASTS
def test_a_batch_is_explained(shell: Shell, tmp_path: Path) -> None:
    batch_id = ended_batch(shell, tmp_path)

    told = shell("explain", batch_id, "--history")
    document = shell("explain", batch_id, "--history", "--json").document

    assert told.code == 0, told.err
    assert told.code == 0, told.err
    assert told.out.splitlines()[0] == f"{batch_id}  completed"
    assert (document["id"], document["state"], document["kind"]) == (batch_id, "completed", "batch")
    assert document["history"]


def _files(whole: Served) -> list[str]:
    return [each["filename"] for each in whole.ask("GET", "/v1/files").json["data"][:1]]


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
