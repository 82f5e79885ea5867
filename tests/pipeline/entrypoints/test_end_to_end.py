"""The commands against a real stack: real servers, a scheduler, a worker, and the echo model."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.services import eventually

ROOT = Path(__file__).parents[3]
ROWS = 50
REFUSED, DUPLICATE = 9, 7
#: A model that no worker can load: its batches wait.
MODELS = {"nobody": "torch:/nonexistent/model"}
SECONDS_MAX = 180


@dataclass(frozen=True)
class Shell:
    """Runs the command line in a data folder of its own."""

    folder: Path

    @property
    def _options(self) -> dict[str, object]:
        plain = {name: value for name, value in os.environ.items() if not name.startswith("NIGHTRATE_")}
        given = {
            "NIGHTRATE_HOME": str(self.folder / "home"),
            "NIGHTRATE_MODELS": json.dumps(MODELS),
            "PYTHONPATH": str(ROOT),
        }
        return {
            "cwd": self.folder,
            "env": plain | given,
            "stdin": subprocess.DEVNULL,
            "stdout": subprocess.PIPE,
            "stderr": subprocess.PIPE,
            "text": True,
        }

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        """Start a command."""
        command = [sys.executable, "-m", "pipeline.entrypoints.cli", *arguments]
        return subprocess.Popen(command, **self._options)  # type: ignore[call-overload,no-any-return] # options as data

    def run(self, *arguments: str, code: int = 0) -> str:
        """Run a command to its end, which must be `code`; return what it wrote to stdout."""
        child = self.start(*arguments)
        out, talk = child.communicate(timeout=SECONDS_MAX)
        assert child.returncode == code, f"{arguments} ended with {child.returncode}: {talk}"
        assert "Traceback" not in talk
        return out


def requests(*, model: str = "echo") -> str:
    """Return fifty lines: one of them refused, one that says the same as the line before."""
    lines = []
    for number in range(ROWS):
        said = number - 1 if number == DUPLICATE else number
        body: dict[str, object] = {"model": model, "messages": [{"role": "user", "content": f"line {said}"}]}
        if number == REFUSED:
            body["temperature"] = 99
        line = {"custom_id": f"r{number}", "method": "POST", "url": "/v1/chat/completions", "body": body}
        lines.append(json.dumps(line))
    return "\n".join(lines) + "\n"


def custom_ids(text: str) -> list[str]:
    return [json.loads(line)["custom_id"] for line in text.splitlines()]


@pytest.fixture(scope="module")
def shell(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shell]:
    folder = tmp_path_factory.mktemp("cli")
    (folder / "in.jsonl").write_text(requests())
    (folder / "waiting.jsonl").write_text(requests(model="nobody"))
    shell = Shell(folder)
    shell.run("up", "--json")
    yield shell
    shell.run("down")


@pytest.fixture(scope="module")
def batch_id(shell: Shell) -> str:
    """A batch that ran: 49 rows have a result, one has none."""
    return shell.run("submit", "in.jsonl", "--wait", "--meta", "team=a", code=5).strip()


def test_a_batch_ends_partial_with_its_rows_in_input_order(shell: Shell, batch_id: str) -> None:
    expected = [f"r{number}" for number in range(ROWS) if number != REFUSED]

    assert custom_ids(shell.run("results", batch_id)) == expected
    assert custom_ids(shell.run("results", batch_id, "--errors")) == [f"r{REFUSED}"]


def test_a_duplicate_has_its_leaders_answer(shell: Shell, batch_id: str) -> None:
    results = [json.loads(line) for line in shell.run("results", batch_id).splitlines()]

    said = {result["custom_id"]: result["response"]["body"]["choices"][0]["message"]["content"] for result in results}
    assert said[f"r{DUPLICATE}"] == said[f"r{DUPLICATE - 1}"]


def test_show_list_and_status_are_json_documents(shell: Shell, batch_id: str) -> None:
    shown = json.loads(shell.run("show", batch_id, "--json"))
    listed = json.loads(shell.run("list", "--json"))
    status = json.loads(shell.run("status", "--json"))

    assert shown["rows"]["completed"] == ROWS - 1
    assert shown["rows"]["duplicate"] == shown["rows"]["refused"] == shown["rows"]["failed"] == 1
    assert shown["metadata"] == {"team": "a"}
    assert shown["meters"]["attempts"] >= 1
    assert shown["meters"]["fingerprints"] == ["echo"]
    assert 0 < shown["meters"]["occupancy"] <= 1
    assert batch_id in [batch["id"] for batch in listed]
    assert status["phase"] == "ready"
    assert [worker["state"] for worker in status["workers"]] == ["ready"]
    assert status["batches"]["completed"] >= 1
    assert {"postgres", "valkey", "scheduler", "worker-1"} <= set(status["pids"])


def test_people_get_text_without_control_characters_when_there_is_no_terminal(shell: Shell, batch_id: str) -> None:
    explained = (("explain",), ("explain", batch_id, "--history"), ("explain", "local"))
    for command in (("show", batch_id), ("list",), ("status",), ("db", "check"), ("doctor",), *explained):
        assert "\x1b" not in shell.run(*command)


def test_an_ended_batch_is_watched_to_its_end_at_once(shell: Shell, batch_id: str) -> None:
    line = shell.run("watch", batch_id, code=5)
    document = json.loads(shell.run("watch", batch_id, "--json", code=5))

    assert line.startswith(f"{batch_id} completed · 50/50 rows · 1 failed")
    assert document["state"] == "completed"


def test_results_go_to_a_file_and_overwrite_nothing(shell: Shell, batch_id: str) -> None:
    shell.run("results", batch_id, "--output", "out.jsonl")

    shell.run("results", batch_id, "--output", "out.jsonl", code=4)
    document = json.loads(shell.run("results", batch_id, "--output", "out.jsonl", "--force", "--json"))
    assert document["path"] == str(shell.folder / "out.jsonl")
    assert len((shell.folder / "out.jsonl").read_text().splitlines()) == ROWS - 1


def test_results_come_in_other_shapes(shell: Shell, batch_id: str) -> None:
    everything = shell.run("results", batch_id, "--format", "jsonl")
    assert custom_ids(everything) == [f"r{n}" for n in range(ROWS)]
    assert shell.run("results", batch_id, "--partial") == everything
    merged = [json.loads(line) for line in shell.run("results", batch_id, "--format", "merged").splitlines()]
    assert [row["custom_id"] for row in merged] == [f"r{n}" for n in range(ROWS)]
    assert all({"body", "response"} <= row.keys() for row in merged)

    document = json.loads(
        shell.run("results", batch_id, "--format", "parquet", "--output", "out.parquet", "--force", "--json")
    )

    table = (shell.folder / "out.parquet").read_bytes()
    assert (table[:4], len(table)) == (b"PAR1", document["size_bytes"])
    shell.run("results", batch_id, "--format", "csv", code=2)
    shell.run("results", batch_id, "--format", "jsonl", "--errors", code=2)
    shell.run("results", batch_id, "--format", "parquet", "--output", "out.parquet", code=4)


def test_what_is_not_there_is_not_found(shell: Shell) -> None:
    for command in ("show", "watch", "results", "cancel", "explain"):
        shell.run(command, "batch_unknown", code=3)
    for unknown in ("pack_unknown", "gpu"):
        shell.run("explain", unknown, code=3)


EXPLAINED = {"kind", "id", "now", "state", "reason", "sentence", "since", "for_seconds", "changes", "notes", "figures"}


def test_a_batch_its_packs_and_their_pool_are_explained(shell: Shell) -> None:
    (shell.folder / "long.jsonl").write_text(requests(model="nobody"))
    waits = shell.run("submit", "long.jsonl").strip()
    shell.run("pause", waits)

    batch = json.loads(shell.run("explain", waits, "--history", "--json"))
    pool = json.loads(shell.run("explain", "local", "--json"))
    overview = json.loads(shell.run("explain", "--json"))

    assert set(batch) == set(pool) == EXPLAINED | {"packs", "history"}
    assert (batch["kind"], batch["id"], batch["reason"]) == ("batch", waits, "user_paused")
    assert {"sentence": "let it go on", "command": f"nightrate resume {waits}"} in batch["changes"]
    assert batch["figures"]["rows_left"] == ROWS - 2
    assert [past["what"] for past in batch["history"]][-1] == "user_paused"
    assert set(overview) == {"now", "has_scheduler", "scheduler", "pools", "batches", "batches_total"}
    assert overview["has_scheduler"]
    assert all(set(each) == EXPLAINED for each in overview["pools"] + overview["batches"])
    assert waits in {each["id"] for each in overview["batches"]}
    assert "Its user paused it" in shell.run("explain", waits)
    for pack in pool["packs"]:
        assert set(json.loads(shell.run("explain", pack["id"], "--json"))) == EXPLAINED | {"packs", "history"}
    shell.run("cancel", waits)


def test_what_ran_is_explained_with_where_its_results_are(shell: Shell, batch_id: str) -> None:
    said = shell.run("explain", batch_id, "--history")

    assert f"Every row has its result: {ROWS - 1} ok, 1 failed, for $" in said
    assert f"nightrate results {batch_id}" in said
    assert "all_committed" in said


def test_bad_lines_fail_the_batch_and_are_shown(shell: Shell) -> None:
    (shell.folder / "bad.jsonl").write_text(requests() + "{broken\n")

    batch_id = shell.run("submit", "bad.jsonl", code=1).strip()

    assert f"line {ROWS + 1}" in shell.run("show", batch_id)
    shell.run("results", batch_id, code=3)


def test_the_same_key_returns_the_same_batch(shell: Shell) -> None:
    first, second = (shell.run("submit", "waiting.jsonl", "--idempotency-key", "once").strip() for _ in range(2))

    assert first == second
    shell.run("submit", "waiting.jsonl", "--idempotency-key", "once", "--tier", "bulk", code=4)
    shell.run("cancel", first)


def test_ctrl_c_detaches_and_the_batch_goes_on(shell: Shell) -> None:
    child = shell.start("submit", "waiting.jsonl", "--wait")
    assert child.stdout is not None
    batch_id = child.stdout.readline().strip()
    child.send_signal(signal.SIGINT)
    _, talk = child.communicate(timeout=SECONDS_MAX)

    assert child.returncode == 130
    assert f"nightrate watch {batch_id}" in talk
    eventually(lambda: json.loads(shell.run("show", batch_id, "--json"))["state"] == "in_progress")
    shell.run("results", batch_id, code=4)
    shell.run("cancel", batch_id)
    assert json.loads(shell.run("watch", batch_id, "--json", code=1).splitlines()[-1])["state"] == "cancelled"
    shell.run("results", batch_id, code=3)


def test_a_quote_stores_nothing_and_says_what_would_be_rejected(shell: Shell, batch_id: str) -> None:
    before = json.loads(shell.run("list", "--json"))
    (shell.folder / "bad.jsonl").write_text(requests(model="unheard-of"))

    found = json.loads(shell.run("quote", "in.jsonl", "--window", "2h", "--json"))
    bad = json.loads(shell.run("quote", "bad.jsonl", "--json", code=4))

    assert found["rows"] == {"total": ROWS, "duplicate": 1, "refused": 1}
    assert [tier["tier"] for tier in found["tiers"]] == ["urgent", "standard", "bulk", "nightly"]
    assert all(tier["variant"] == "echo" and tier["is_measured"] for tier in found["tiers"])
    assert bad["errors_total"] == ROWS
    assert json.loads(shell.run("list", "--json")) == before
    assert batch_id in {batch["id"] for batch in before}


def test_a_promise_can_be_a_condition_and_what_cannot_be_promised_leaves_nothing_behind(shell: Shell) -> None:
    before = shell.run("list", "--json")
    refused = json.loads(shell.run("submit", "in.jsonl", "--promise", "--window", "1m", "--json", code=4))["error"]
    assert shell.run("submit", "in.jsonl", "--promise", "--window", "1m", code=4) == ""
    assert shell.run("list", "--json") == before
    (offer,) = [each for each in refused["offers"] if each["tier"] == "standard"]
    assert (refused["code"], refused["batch_id"]) == ("not_admitted", None)

    accepted = (
        "submit",
        "in.jsonl",
        "--promise",
        "--window",
        offer["window"],
        "--idempotency-key",
        "promised",
        "--wait",
    )
    promised, again = (shell.run(*accepted, code=5).strip() for _ in range(2))

    assert again == promised
    assert json.loads(shell.run("show", promised, "--json"))["promise"] == "made"


def test_a_budget_below_the_quoted_cost_is_refused_with_one_that_would_do(shell: Shell) -> None:
    refused = json.loads(shell.run("submit", "in.jsonl", "--promise", "--max-cost", "0.000001", "--json", code=4))[
        "error"
    ]

    (offer,) = [each for each in refused["offers"] if each["tier"] == "standard"]
    assert offer["max_cost_micros"] > 1
    enough = f"{offer['max_cost_micros'] * 10 / 1_000_000:.6f}"
    shell.run("submit", "in.jsonl", "--promise", "--max-cost", enough, "--wait", code=5)


def test_a_batch_is_held_paused_changed_and_let_go(shell: Shell) -> None:
    (shell.folder / "held.jsonl").write_text(requests())
    held = shell.run("submit", "held.jsonl", "--hold-until", "20h").strip()
    eventually(lambda: json.loads(shell.run("show", held, "--json"))["reason"] == "held")

    assert json.loads(shell.run("pause", held, "--json"))["reason"] == "user_paused"
    changed = json.loads(shell.run("change", held, "--hold-until", "none", "--tier", "bulk", "--json"))
    assert (changed["hold_until"], changed["tier"], changed["rows"]["succeeded"]) == (None, "bulk", 0)
    shell.run("change", held, code=2)
    shell.run("resume", held)
    shell.run("watch", held, code=5)

    assert json.loads(shell.run("show", held, "--json"))["rows"]["completed"] == ROWS - 1
    shell.run("pause", held, code=4)


def test_a_recurring_batch_is_created_fired_by_hand_delivered_and_removed(shell: Shell) -> None:
    (shell.folder / "feed.jsonl").write_text(requests())
    asked = ("night", "--cron", "0 2 1 1 *", "--zone", "Europe/Berlin", "--input", "feed.jsonl", "--tier", "nightly")
    output = ("--output", "nights/{utc}.jsonl")
    preview = shell.run("recurring", "create", *asked, *output, "--dry-run")
    assert preview.splitlines()[0] == "night: would fire next at"
    assert json.loads(shell.run("recurring", "list", "--json")) == []

    created = json.loads(shell.run("recurring", "create", *asked, *output, "--json"))
    assert created["input"] == str(shell.folder / "feed.jsonl")
    assert [each["local"][5:] for each in created["next"]] == ["01-01T02:00:00+01:00"] * 5
    shell.run("recurring", "create", *asked, code=4)
    assert json.loads(shell.run("recurring", "pause", "night", "--json"))["next"] == []

    batch_id = shell.run("recurring", "run", "night").strip()
    shell.run("watch", batch_id, code=5)
    eventually(lambda: json.loads(shell.run("recurring", "show", "night", "--json"))["firings"][0]["delivered_at"])

    (firing,) = json.loads(shell.run("recurring", "show", "night", "--json"))["firings"]
    assert (firing["is_manual"], firing["outcome"], firing["batch_id"]) == (True, "submitted", batch_id)
    assert Path(firing["output"]).read_text() == shell.run("results", batch_id)
    beside = Path(firing["output"].removesuffix(".jsonl") + ".errors.jsonl")
    assert custom_ids(beside.read_text()) == [f"r{REFUSED}"]
    assert len(json.loads(shell.run("recurring", "resume", "night", "--json"))["next"]) == 5
    for command in (("list",), ("show", "night")):
        assert "night" in shell.run("recurring", *command)
    shell.run("recurring", "remove", "night")
    for command in ("show", "pause", "resume", "run", "remove"):
        shell.run("recurring", command, "night", code=3)


def test_a_recurring_batch_without_its_file_says_so(shell: Shell) -> None:
    shell.run("recurring", "create", "empty", "--cron", "@yearly", "--input", "nowhere-{date}.jsonl")

    said = json.loads(shell.run("recurring", "run", "empty", "--json", code=1))

    assert "nowhere-" in said["reason"]
    assert (said["outcome"], said["tries"]) == (None, 1)
    shell.run("recurring", "remove", "empty")


def test_run_uses_the_stack_that_is_up_and_leaves_it_up(shell: Shell) -> None:
    document = json.loads(shell.run("run", "in.jsonl", "--json", code=5))

    assert document["rows"]["completed"] == ROWS - 1
    assert document["cost_micros"] >= 0
    assert {item["kind"] for item in document["overhead"]} <= {"boot", "load", "idle", "drain", "late", "lost"}
    assert custom_ids((shell.folder / "in.errors.jsonl").read_text()) == [f"r{REFUSED}"]
    shell.run("run", "in.jsonl", code=4)
    assert json.loads(shell.run("status", "--json"))["phase"] == "ready"


def test_a_second_up_changes_nothing(shell: Shell) -> None:
    assert json.loads(shell.run("up", "--json"))["was_up"] is True


def test_a_run_of_its_own_stops_on_ctrl_c_and_the_batch_stays(tmp_path: Path) -> None:
    (tmp_path / "in.jsonl").write_text(requests(model="nobody"))
    shell = Shell(tmp_path)
    child = shell.start("run", "in.jsonl")
    assert child.stderr is not None
    batch_id = next(line.split()[1] for line in child.stderr if line.startswith("batch "))
    child.send_signal(signal.SIGINT)
    _, talk = child.communicate(timeout=SECONDS_MAX)

    assert child.returncode == 130
    assert "nightrate up" in talk
    assert f"nightrate watch {batch_id}" in talk
    assert "Nothing runs" in shell.run("status")
    shell.run("up", "--workers", "0")
    assert json.loads(shell.run("show", batch_id, "--json"))["state"] in {"validating", "in_progress"}
    shell.run("down")
