"""The process that serves the API: what it refuses to take, what it never says, how it starts and leaves."""

from __future__ import annotations

import http.client
import json
import logging
import os
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest
from pydantic import SecretStr

from pipeline.app.stack import open_stack
from pipeline.config import Settings
from tests.pipeline.http.driving import chat_line, made, take_in
from tests.pipeline.http.served import Served, form, served
from tests.services import eventually

CANARY = "canary-7f3a91"


@pytest.fixture(scope="module")
def small(template_url: str, quiet: Served, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """An API that takes files of up to a thousand bytes."""
    del template_url
    settings = quiet.service.settings.model_copy(
        update={"upload_bytes_max": 1000, "home": tmp_path_factory.mktemp("small")}
    )
    with open_stack(settings) as stack, served(stack) as api:
        yield api


@contextmanager
def api_process(settings: Settings, *, port: int = 0, processes: int = 1) -> Iterator[subprocess.Popen[str]]:
    """Run `nightrate api`; what it logs is on its stderr."""
    assert settings.database_url is not None
    assert settings.redis_url is not None
    env = {
        **os.environ,
        "NIGHTRATE_HOME": str(settings.home),
        "NIGHTRATE_DATABASE_URL": settings.database_url.get_secret_value(),
        "NIGHTRATE_REDIS_URL": settings.redis_url.get_secret_value(),
        "NIGHTRATE_API_PORT": str(port),
        "NIGHTRATE_API_PROCESSES": str(processes),
        "PYTHONPATH": str(Path.cwd()),
    }
    command = [sys.executable, "-m", "pipeline.entrypoints.cli", "api"]
    with subprocess.Popen(command, env=env, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def port_of(process: subprocess.Popen[str]) -> int:
    """Return the port that the process says it listens on."""
    return int(listeners(process, 1)[0]["port"])


def listeners(process: subprocess.Popen[str], count: int) -> list[dict[str, Any]]:
    """Return what it says when so many of its processes listen."""
    assert process.stderr is not None
    found = []
    for line in process.stderr:
        said = json.loads(line)
        if said["event"] == "api_listening":
            found.append(said)
        if len(found) == count:
            return found
    raise AssertionError("it never listened")


def test_a_file_at_the_bound_is_taken_and_one_byte_more_is_not(small: Served) -> None:
    assert small.upload(b"x" * 1000, purpose="user_data", filename="a").status == 200

    answer = small.upload(b"x" * 1001, purpose="user_data", filename="a")

    assert (answer.status, answer.error["code"]) == (413, "file_too_large")


def test_a_body_that_announces_too_much_is_refused_before_it_is_sent(small: Served) -> None:
    connection = http.client.HTTPConnection(small.url.removeprefix("http://"), timeout=30)
    connection.putrequest("POST", "/v1/files")
    connection.putheader("Authorization", f"Bearer {small.key()}")
    connection.putheader("Content-Type", "multipart/form-data; boundary=x")
    connection.putheader("Content-Length", "10000000000")
    connection.endheaders()

    with connection.getresponse() as answer:
        assert answer.status == 413
    connection.close()


def test_logs_have_ids_and_times_and_nothing_that_people_wrote(quiet: Served, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG):
        batch = made(quiet, chat_line(messages=[{"role": "user", "content": CANARY}]), metadata={"note": CANARY})
        take_in(quiet, batch["id"])
        quiet.ask("GET", f"/v1/batches/{CANARY}")
        quiet.ask("POST", "/v1/batches", {"endpoint": CANARY})
        quiet.ask("GET", "/v1/batches", key=f"{quiet.key()}{CANARY}")

        # A line is written once its answer is on the way.
        eventually(lambda: any(getattr(record, "status", 0) == 401 for record in caplog.records))

    said = [record for record in caplog.records if record.name == "nightrate.http"]
    assert {(record.method, record.route, record.status) for record in said} >= {  # type: ignore[attr-defined]
        ("POST", "/v1/files", 200),
        ("POST", "/v1/batches", 200),
        ("GET", "/v1/batches/{batch_id}", 404),
        ("POST", "/v1/batches", 400),
        ("GET", "/v1/batches", 401),
    }
    everything = "\n".join(str(vars(record)) for record in caplog.records)
    assert CANARY not in everything
    assert quiet.key().rpartition("-")[2] not in everything


def test_an_error_of_ours_says_nothing_of_what_it_was(quiet: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise ValueError(CANARY)

    monkeypatch.setattr(type(quiet.stack.files), "page", fail)

    answer = quiet.ask("GET", "/v1/files")

    assert (answer.status, answer.error["type"]) == (500, "server_error")
    assert CANARY.encode() not in answer.content
    assert answer.headers["x-request-id"].startswith("req_")


def test_nothing_is_shared_with_pages_of_other_sites(quiet: Served) -> None:
    headers = {"Origin": "https://elsewhere.example", "Access-Control-Request-Method": "GET"}

    for method in ("OPTIONS", "GET"):
        answer = quiet.ask(method, "/v1/batches", headers=headers)
        assert not [name for name in answer.headers if name.startswith("access-control-")]
    assert quiet.ask("OPTIONS", "/v1/batches", headers=headers).status == 405


def test_it_is_healthy_as_long_as_it_answers_and_ready_while_postgres_does(quiet: Served, tmp_path: Path) -> None:
    assert quiet.ask("GET", "/healthz", key="").json == {"status": "ok"}
    assert quiet.ask("GET", "/readyz", key="").status == 200

    with socket.create_server(("127.0.0.1", 0)) as nobody:
        url = f"postgresql://nobody@127.0.0.1:{nobody.getsockname()[1]}/none"
        nobody.close()
        settings = quiet.service.settings.model_copy(update={"home": tmp_path, "database_url": SecretStr(url)})
        with open_stack(settings, away_seconds_max=0.2) as stack, served(stack) as api:
            assert api.ask("GET", "/healthz", key="").status == 200
            assert api.ask("GET", "/readyz", key="").status == 503
            answer = api.ask("GET", "/v1/batches", key="sk-nr-" + "0" * 32 + "-" + "a" * 43)
            assert (answer.status, answer.headers["retry-after"]) == (503, "2")


def test_an_upload_under_way_ends_well_when_the_process_is_told_to_stop(quiet: Served) -> None:
    with api_process(quiet.service.settings) as process:
        connection = http.client.HTTPConnection("127.0.0.1", port_of(process), timeout=30)
        body, content_type = form({"purpose": "batch"}, filename="a.jsonl", content=chat_line() * 1000)
        connection.putrequest("POST", "/v1/files")
        connection.putheader("Authorization", f"Bearer {quiet.key()}")
        connection.putheader("Content-Type", content_type)
        connection.putheader("Content-Length", str(len(body)))
        connection.endheaders()
        connection.send(body[:50_000])
        # Its spool shows that the server has begun to read.
        eventually(lambda: list(quiet.stack.spool_folder.glob("upload-*/file")))

        process.send_signal(signal.SIGTERM)
        connection.send(body[50_000:])

        with connection.getresponse() as answer:
            assert answer.status == 200
            assert quiet.ask("GET", f"/v1/files/{json.loads(answer.read())['id']}").status == 200
        connection.close()
        assert process.wait(30) == 0


def test_a_port_that_is_taken_is_said_to_be(quiet: Served) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with api_process(quiet.service.settings, port=port) as process:
            assert process.wait(60) == 2
            assert process.stderr is not None
            said = process.stderr.read()

    assert f"the API cannot listen on 127.0.0.1:{port}" in said
    assert "Traceback" not in said


def test_the_document_of_the_api_is_complete(quiet: Served) -> None:
    document = quiet.ask("GET", "/openapi.json", key="").json

    operations = [
        (method, path, operation)
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    ]
    assert len(operations) >= 10
    for method, path, operation in operations:
        assert operation["summary"], (method, path)
        assert operation["description"], (method, path)
        assert {"401", "403", "429", "500", "503"} <= operation["responses"].keys(), (method, path)
        assert operation["security"], (method, path)


def test_several_processes_share_a_port_and_leave_together(quiet: Served) -> None:
    with api_process(quiet.service.settings, processes=3) as process:
        said = listeners(process, 3)
        assert len({line["pid"] for line in said}) == 3
        (port,) = {line["port"] for line in said}

        for _ in range(20):
            assert urllib.request.urlopen(f"http://127.0.0.1:{port}/healthz", timeout=30).status == 200
        os.kill(said[0]["pid"], signal.SIGKILL)

        # Whoever watches over them starts all again.
        assert process.wait(60) == 128 + signal.SIGKILL
    assert not any(psutil.pid_exists(line["pid"]) for line in said)


def test_several_processes_end_well_when_they_are_told_to(quiet: Served) -> None:
    with api_process(quiet.service.settings, processes=2) as process:
        pids = [line["pid"] for line in listeners(process, 2)]

        process.terminate()

        assert process.wait(60) == 0
    assert not any(map(psutil.pid_exists, pids))


def test_several_processes_leave_with_the_one_that_made_them(quiet: Served) -> None:
    with api_process(quiet.service.settings, processes=2) as process:
        pids = [line["pid"] for line in listeners(process, 2)]

        process.kill()

        process.wait(60)
        eventually(lambda: not any(map(is_alive, pids)))


def is_alive(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def test_several_processes_take_no_port_that_another_has(quiet: Served) -> None:
    with api_process(quiet.service.settings, processes=2) as first:
        port = port_of(first)
        with api_process(quiet.service.settings, port=port, processes=2) as second:
            assert second.stderr is not None
            said = json.loads(second.stderr.readline())

            assert second.wait(60) == 2
        assert f"cannot listen on 127.0.0.1:{port}" in said["reason"]
