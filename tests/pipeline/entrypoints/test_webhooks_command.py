"""`nightrate webhooks` on a database."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.pipeline.entrypoints.line import Line, at_home

URL = "https://hooks.example.com/a"


@pytest.fixture(autouse=True)
def _home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, database_url: str) -> None:
    at_home(tmp_path, monkeypatch, database_url=database_url)


@pytest.fixture
def line(capsys: pytest.CaptureFixture[str]) -> Line:
    return Line(capsys, "webhooks")


def test_a_webhook_is_made_shown_told_again_and_removed(line: Line) -> None:
    assert line.run("create", URL, "--event", "batch.completed", "--description", "mine") == 0
    secret = line.out.strip()
    assert secret.startswith("whsec_")
    webhook_id = line.err.split()[0]

    assert line.run("list") == 0
    assert line.out.split() == [webhook_id, "enabled", URL, "mine"]
    shown = line.document("show", webhook_id)
    assert (shown["url"], shown["event_types"], shown["standing"]) == (URL, ["batch.completed"], "enabled")
    assert "secret" not in shown
    assert line.run("show", webhook_id) == 0
    assert secret not in line.out

    assert line.run("rotate", webhook_id, "--overlap", "1h") == 0
    assert line.out.strip() not in {"", secret}

    assert line.run("test", webhook_id) == 0
    event_id = line.out.strip()
    assert line.run("deliveries", webhook_id) == 0
    assert event_id in line.out
    assert "webhook.test  pending  0 tries" in line.out
    [delivery] = line.document("deliveries", webhook_id)["deliveries"]
    assert (delivery["event_id"], delivery["status"]) == (event_id, "pending")
    assert line.document("redeliver", webhook_id, "--event", event_id) == {"events": 1}
    assert line.document("redeliver", webhook_id, "--since", "2020-01-01") == {"events": 1}
    assert line.document("redeliver", webhook_id, "--since", "2100-01-01T12:00") == {"events": 0}

    assert line.document("disable", webhook_id)["standing"] == "disabled (asked)"
    assert line.run("test", webhook_id) == 4
    assert line.document("enable", webhook_id)["standing"] == "enabled"

    assert line.run("remove", webhook_id) == 0
    assert line.run("show", webhook_id) == 3
    assert line.document("list") == {"webhooks": []}


def test_as_it_comes_a_webhook_is_told_how_batches_end(line: Line) -> None:
    made = line.document("create", URL)

    assert set(made["event_types"]) == {"batch.completed", "batch.failed", "batch.expired", "batch.cancelled"}
    assert made["secret"].startswith("whsec_")


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("create", "hooks.example.com"), 2, "https://host/path"),
        (("create", "https://127.0.0.1/"), 4, "webhook_hosts"),
        (("create", "http://hooks.example.com/"), 4, "webhook_hosts"),
        (("create", URL, "--event", "batch.done"), 2, "batch.completed"),
        (("create", URL, "--description", "x" * 501), 2, "500 characters"),
        (("create", URL, "--tenant", "tnt_x"), 3, "tnt_x"),
        (("create", URL, "--project", "proj_x"), 3, "proj_x"),
        (("rotate", "whk_x"), 3, "whk_x"),
        (("rotate", "whk_x", "--overlap", "30d"), 2, "7d at most"),
        (("redeliver", "whk_x"), 2, "--since"),
        (("redeliver", "whk_x", "--event", "evt_1", "--since", "2026-01-01"), 2, "--event"),
        (("redeliver", "whk_x", "--since", "2026-01-01"), 3, "whk_x"),
    ],
)
def test_what_makes_no_sense_is_told_so(line: Line, arguments: tuple[str, ...], code: int, said: str) -> None:
    assert line.run(*arguments) == code
    assert said in line.err
    assert "Traceback" not in line.err


def test_anothers_webhook_does_not_exist(line: Line) -> None:
    webhook_id = line.document("create", URL)["id"]

    assert line.run("show", webhook_id, "--tenant", "tnt_other") == 3
    assert line.document("list", "--tenant", "tnt_other") == {"webhooks": []}
