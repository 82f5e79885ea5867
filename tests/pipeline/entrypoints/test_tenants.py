"""`nightrate tenants`, `projects`, `keys` and `audit`, beside a database."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from tests.pipeline.entrypoints.line import Line, at_home

Run = Callable[..., Any]


@pytest.fixture
def run(database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Run a command in this process, which must end with `code`; returns the JSON that it writes, or the text."""
    at_home(tmp_path, monkeypatch)
    monkeypatch.setenv("NIGHTRATE_DATABASE_URL", database_url.replace("postgresql+psycopg://", "postgresql://"))
    monkeypatch.setenv("NIGHTRATE_REDIS_URL", "redis://127.0.0.1:1")

    line = Line(capsys)

    def run_command(*arguments: str, code: int = 0, plain: bool = False) -> Any:  # noqa: ANN401 -- whatever it wrote
        assert line.run(*arguments, *(() if plain else ("--json",))) == code, line.err
        return line.out if plain else json.loads(line.out)

    return run_command


def test_a_tenant_is_made_with_a_project_of_its_own(run: Run) -> None:
    tenant = run("tenants", "create", "Research lab")

    assert tenant["id"].startswith("tnt_")
    assert [each["id"] for each in run("tenants", "list")["tenants"]] == ["tnt_default", tenant["id"]]
    (project,) = run("projects", "list", "--tenant", tenant["id"])["projects"]
    assert (project["tenant_id"], project["is_default"]) == (tenant["id"], True)
    assert run("tenants", "rename", tenant["id"], "Laboratory")["name"] == "Laboratory"
    assert "Laboratory" in run("tenants", "list", plain=True)
    assert run("tenants", "create", "second", plain=True).startswith("tnt_")


def test_projects_are_made_renamed_and_archived(run: Run) -> None:
    project = run("projects", "create", "tickets")
    assert run("projects", "create", "tickets", code=4)["error"]["code"] == "conflict"
    assert run("projects", "rename", project["id"], "support")["name"] == "support"

    assert run("projects", "archive", project["id"])["archived_at"] is not None
    assert run("projects", "archive", "proj_default", code=4)["error"]["code"] == "conflict"

    assert project["id"] not in run("projects", "list", plain=True)
    assert "archived" in run("projects", "list", "--archived", plain=True)
    assert run("projects", "create", "support", plain=True).startswith("proj_")


def test_keys_are_made_listed_rotated_and_revoked(run: Run) -> None:
    project = run("projects", "create", "tickets")["id"]
    made = run(
        "keys", "create", "nightly", "--role", "submit", "--role", "read", "--project", project, "--expires-in", "7d"
    )
    assert made["key"].startswith("sk-nr-")
    assert (made["roles"], made["project_id"]) == (["submit", "read"], project)

    rotated = run("keys", "rotate", made["id"], "--overlap", "1h")
    assert rotated["replaces"]["id"] == made["id"]
    overlap = datetime.fromisoformat(rotated["replaces"]["expires_at"]) - datetime.fromisoformat(rotated["created_at"])
    assert round(overlap.total_seconds()) == 3600
    assert run("keys", "revoke", made["id"])["revoked_at"] is not None
    assert run("keys", "rotate", made["id"], code=4)["error"]["code"] == "conflict"
    now = run("keys", "rotate", rotated["id"], "--overlap", "0")["replaces"]

    listed = run("keys", "list")["keys"]
    assert [key["id"] for key in listed[:2]] == [made["id"], rotated["id"]]
    assert len(listed) == 3
    table = run("keys", "list", plain=True)
    for shown in (made["id"], made["hint"], "submit, read", project, "revoked", "expired", "valid until", "never"):
        assert shown in table
    for secret in (made["key"], rotated["key"]):
        assert secret[-43:] not in table + json.dumps(listed) + json.dumps(now)


def test_a_key_goes_to_stdout_alone(run: Run) -> None:
    assert run("keys", "create", "mine", plain=True).strip().startswith("sk-nr-")
    assert len(run("keys", "create", "mine", plain=True).split()) == 1


def test_who_did_what_is_told(run: Run) -> None:
    key = run("keys", "create", "mine")
    run("keys", "revoke", key["id"])

    entries = run("audit")["entries"]

    assert [(entry["actor"], entry["action"], entry["object_id"]) for entry in entries] == [
        ("cli", "api_key.deleted", key["id"]),
        ("cli", "api_key.created", key["id"]),
    ]
    assert entries[1]["details"] == {"name": "mine", "roles": ["submit"], "expires_at": None}
    assert len(run("audit", "--limit", "1")["entries"]) == 1
    assert "api_key.created" in run("audit", plain=True)
    tenant = run("tenants", "create", "other")["id"]
    assert [entry["action"] for entry in run("audit", "--tenant", tenant)["entries"]] == [
        "project.created",
        "organization.created",
    ]


@pytest.mark.parametrize(
    "arguments",
    [
        ("tenants", "rename", "tnt_nobody", "x"),
        ("projects", "list", "--tenant", "tnt_nobody"),
        ("projects", "create", "x", "--tenant", "tnt_nobody"),
        ("projects", "rename", "proj_nobody", "x"),
        ("projects", "archive", "proj_nobody"),
        ("keys", "list", "--tenant", "tnt_nobody"),
        ("keys", "create", "x", "--tenant", "tnt_nobody"),
        ("keys", "create", "x", "--project", "proj_nobody"),
        ("keys", "revoke", "key_nobody"),
        ("keys", "rotate", "key_nobody"),
        ("audit", "--tenant", "tnt_nobody"),
    ],
)
def test_what_does_not_exist_is_not_found(run: Run, arguments: tuple[str, ...]) -> None:
    assert run(*arguments, code=3)["error"]["code"] == "not_found"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("tenants", "create", ""), "1 to 100"),
        (("tenants", "rename", "tnt_default", "x" * 101), "1 to 100"),
        (("projects", "create", "x" * 101), "1 to 100"),
        (("keys", "create", ""), "1 to 100"),
        (("keys", "create", "a\udcff"), "NUL"),
        (("keys", "create", "x", "--role", "owner"), "'owner' is not a role"),
        (("keys", "create", "x", "--expires-in", "soon"), "'soon'"),
        (("keys", "rotate", "key_1", "--overlap", "-1h"), "'-1h'"),
    ],
)
def test_what_makes_no_sense_is_refused_with_what_would(run: Run, arguments: tuple[str, ...], said: str) -> None:
    assert said in run(*arguments, code=2)["error"]["message"]
