from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.entrypoints.cli.main import main
from tests.pipeline.entrypoints.line import at_home, run


@pytest.fixture(autouse=True)
def _home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    at_home(tmp_path, monkeypatch)


@pytest.mark.parametrize(
    "arguments",
    [
        ("nonsense",),
        ("run",),
        ("run", ".", "--nonsense"),
        ("run", "."),
        ("list", "--limit", "many"),
        ("list", "--state", "lost"),
        ("up", "--workers", "-1"),
        ("db",),
        ("explain", "wrk_0192"),
        ("explain", "batch_0192", "--limit", "5"),
        ("explain", "--limit", "0"),
        ("explain", "--history"),
    ],
)
def test_a_command_that_makes_no_sense_ends_with_2_and_no_traceback(
    arguments: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(*arguments) == 2
    assert "Traceback" not in capsys.readouterr().err


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"--cron": "0 25 * * *"}, "hour '25'"),
        ({"--zone": "Europe/Berln"}, "Europe/Berlin"),
        ({"--input": "in-{day}.jsonl"}, "{yesterday}"),
        ({"--input": "s3://bucket/in.jsonl"}, "is a URL"),
        ({"--output": "out/"}, "is a folder"),
        ({"--output": "out-{month}.jsonl"}, "would both write"),
        ({"--overlap": "never"}, "skip, queue, allow"),
        ({"--catch-up": "some"}, "none, last, all"),
        ({"--window": "soon"}, "completion_window 'soon'"),
        ({"--endpoint": "/v2"}, "not an endpoint"),
        ({"--tier": "slow"}, "not a tier"),
    ],
)
def test_a_recurring_batch_that_makes_no_sense_is_refused_with_what_does(
    changes: dict[str, str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    options = {"--cron": "@daily", "--input": "in-{date}.jsonl"} | changes

    assert run("recurring", "create", "night", "--dry-run", *(word for pair in options.items() for word in pair)) == 2

    captured = capsys.readouterr()
    assert said in captured.err
    assert captured.out == ""


def test_the_next_firings_are_shown_without_a_stack(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    files = ("--input", "in-{date:%m%d}.jsonl", "--output", "/out/{date}.jsonl")
    assert run("recurring", "create", "night", "--cron", "30 4 1 6 *", "--zone", "Asia/Tokyo", *files, "--dry-run") == 0

    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 4
    assert "-06-01 04:30 JST (" in lines[1]
    assert "-05-31 19:30 UTC)" in lines[1]
    assert f"{tmp_path}/in-0601.jsonl -> /out/2" in lines[1]


@pytest.mark.parametrize("name", ["", "Night", "-x", "a b", "a/b", "x" * 64])
def test_a_recurring_batch_has_a_plain_name(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("recurring", "create", "--cron", "@daily", "--input", "in.jsonl", "--dry-run", "--", name) == 2

    assert "is not a name" in capsys.readouterr().err


@pytest.mark.parametrize(
    "command", [("list",), ("show", "x"), ("watch", "x"), ("results", "x"), ("cancel", "x"), ("recurring", "list")]
)
def test_without_a_stack_a_command_says_how_to_start_one(
    command: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(*command, "--json") == 1

    captured = capsys.readouterr()
    assert "nightrate up" in captured.err
    assert json.loads(captured.out)["error"]["code"] == "not_running"


def test_a_missing_file_is_not_found_and_json_says_so_too(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("submit", "missing.jsonl", "--json") == 3

    assert json.loads(capsys.readouterr().out)["error"]["code"] == "not_found"


def test_a_bad_setting_is_named(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("NIGHTRATE_LEASE_SECONDS", "soon")

    assert run("status") == 2
    assert "lease_seconds" in capsys.readouterr().err


def test_a_database_that_is_down_is_said_to_be(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("NIGHTRATE_DATABASE_URL", "postgresql://me:secret@127.0.0.1:1/none")

    assert run("list") == 1

    said = capsys.readouterr().err
    assert "Postgres" in said
    assert "secret" not in said


def test_down_and_status_with_nothing_running_are_no_errors(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("down", "--json") == 0
    assert json.loads(capsys.readouterr().out)["outcome"] == "not_running"
    assert run("status", "--json") == 0
    assert json.loads(capsys.readouterr().out)["phase"] is None


def test_config_shows_every_setting_where_it_came_from_and_no_password(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setenv("NIGHTRATE_DATABASE_URL", "postgresql://me:secret@db/name")
    (tmp_path / "nightrate.toml").write_text('pool = "gpu"\n[tiers.nightly]\nwindow = "12h"\n')

    assert run("config", "--json") == 0

    out = capsys.readouterr().out
    rows = {row["name"]: row for row in json.loads(out)}
    assert "secret" not in out
    assert rows["database_url"]["value"] == "postgresql://me:***@db/name"
    assert rows["database_url"]["source"] == "environment: NIGHTRATE_DATABASE_URL"
    assert rows["pool"]["source"] == "file: nightrate.toml"
    assert rows["tiers"]["value"] == {"nightly": {"window": "12h"}}
    assert rows["workers"]["source"] == "default"
    assert all(row["description"] for row in rows.values())


def test_the_databases_password_is_shown_on_demand_only(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("NIGHTRATE_DATABASE_URL", "postgresql://me:secret@db/name")

    assert run("db", "url") == 0
    assert capsys.readouterr().out == "postgresql://me:***@db/name\n"
    assert run("db", "url", "--show-password") == 0
    assert capsys.readouterr().out == "postgresql://me:secret@db/name\n"


def test_an_unexpected_error_is_one_line_and_a_file(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def break_down() -> None:
        raise RuntimeError("a bug")

    monkeypatch.setattr("pipeline.config.load_settings", break_down)

    assert run("down") == 1

    said = capsys.readouterr().err
    assert "unexpected RuntimeError: a bug" in said
    assert "Traceback" not in said
    kept = Path(said.rsplit(maxsplit=1)[-1])
    assert "break_down" in kept.read_text()
    kept.unlink()


def test_debug_shows_the_traceback_wherever_it_stands(monkeypatch: pytest.MonkeyPatch) -> None:
    def break_down() -> None:
        raise RuntimeError("a bug")

    monkeypatch.setattr("pipeline.config.load_settings", break_down)

    with pytest.raises(RuntimeError, match="a bug"):
        main(["down", "--debug"])


def test_help_loads_nothing_heavy() -> None:
    heavy = ["torch", "sqlalchemy", "celery", "pydantic", "numpy", "pipeline.app"]
    program = (
        "import sys\n"
        "from pipeline.entrypoints.cli.main import main\n"
        "try:\n    main(['--help'])\n"
        f"finally:\n    print([name for name in {heavy} if name in sys.modules], file=sys.stderr)\n"
    )

    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)

    assert "run" in ended.stdout
    assert ended.stderr.strip() == "[]"


def test_a_closed_pipe_is_silent() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    command = [sys.executable, "-m", "pipeline.entrypoints.cli", "config"]

    ended = subprocess.run(
        command, stdout=writer, stderr=subprocess.PIPE, check=False, timeout=60, cwd=Path(__file__).parents[3]
    )

    os.close(writer)
    assert (ended.returncode, ended.stderr) == (0, b"")
