"""Downloads: whole, in ranges, again, and by a link."""

from __future__ import annotations

import hashlib
import http.client
import os
import random
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import openai
import pytest
from pydantic import SecretStr
from sqlalchemy import text

from pipeline.app.stack import open_stack
from pipeline.config import Settings
from pipeline.domain.errors import StoreUnavailableError
from storage.egress import EgressRepository
from tests.pipeline.http.served import Served, form, served
from tests.services import eventually, fresh_database
from tests.storage.objects.weed import BUCKET, S3Server, running_weed

CONTENT = bytes(random.Random(5).randbytes(1000))
SIZE = len(CONTENT)
ETAG = f'"{hashlib.sha256(CONTENT).hexdigest()}"'
ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def path(quiet: Served) -> str:
    return f"/v1/files/{quiet.upload(CONTENT, filename='in ü.jsonl').json['id']}/content"


def test_a_download_says_what_it_is(quiet: Served, path: str) -> None:
    answer = quiet.ask("GET", path)

    assert (answer.status, answer.content) == (200, CONTENT)
    assert {name: answer.headers[name] for name in ("accept-ranges", "content-length", "etag", "content-type")} == {
        "accept-ranges": "bytes",
        "content-length": str(SIZE),
        "etag": ETAG,
        "content-type": "application/octet-stream",
    }
    assert answer.headers["content-disposition"] == "attachment; filename*=UTF-8''in%20%C3%BC.jsonl"
    assert answer.headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize(
    ("asked", "start", "stop"),
    [
        ("bytes=0-0", 0, 1),
        ("bytes=0-", 0, SIZE),
        ("bytes=0-999", 0, SIZE),
        ("bytes=10-19", 10, 20),
        ("bytes=999-", 999, SIZE),
        ("bytes=999-999", 999, SIZE),
        ("bytes=500-100000", 500, SIZE),
        (f"bytes=0-{'9' * 30}", 0, SIZE),
        ("bytes=-1", 999, SIZE),
        ("bytes=-1000", 0, SIZE),
        ("bytes=-5000", 0, SIZE),
        ("Bytes=1-2", 1, 3),
    ],
)
def test_a_range_is_answered_with_that_part(quiet: Served, path: str, asked: str, start: int, stop: int) -> None:
    answer = quiet.ask("GET", path, headers={"Range": asked})

    assert (answer.status, answer.content) == (206, CONTENT[start:stop])
    assert answer.headers["content-range"] == f"bytes {start}-{stop - 1}/{SIZE}"
    assert answer.headers["content-length"] == str(stop - start)


@pytest.mark.parametrize("asked", [f"bytes={SIZE}-", "bytes=5000-6000", "bytes=-0", f"bytes={'9' * 30}-"])
def test_a_range_outside_of_the_file_is_refused(quiet: Served, path: str, asked: str) -> None:
    answer = quiet.ask("GET", path, headers={"Range": asked})

    assert (answer.status, answer.headers["content-range"]) == (416, f"bytes */{SIZE}")


@pytest.mark.parametrize(
    "asked",
    ["bytes=", "bytes=-", "bytes=2-1", "bytes=a-b", "items=0-1", "bytes=0-1,3-4", "bytes=0-1-2", "0-1", "bytes=+1-2"],
)
def test_what_is_no_single_range_is_answered_with_the_whole(quiet: Served, path: str, asked: str) -> None:
    answer = quiet.ask("GET", path, headers={"Range": asked})

    assert (answer.status, answer.content) == (200, CONTENT)
    assert "content-range" not in answer.headers


@pytest.mark.parametrize(
    ("if_range", "status"),
    [(ETAG, 206), (f"W/{ETAG}", 200), ('"other"', 200), ("Sun, 22 Nov 2026 00:00:00 GMT", 200)],
)
def test_a_range_holds_only_of_the_content_that_if_range_names(
    quiet: Served, path: str, if_range: str, status: int
) -> None:
    assert quiet.ask("GET", path, headers={"Range": "bytes=0-1", "If-Range": if_range}).status == status
    outside = quiet.ask("GET", path, headers={"Range": "bytes=5000-", "If-Range": if_range}).status
    assert outside == (416 if status == 206 else 200)


@pytest.mark.parametrize(
    ("named", "status"),
    [
        (ETAG, 304),
        (f"W/{ETAG}", 304),
        (f'"a", {ETAG} , "b"', 304),
        ("*", 304),
        ('"other"', 200),
        (ETAG.strip('"'), 200),
        ("", 200),
    ],
)
def test_content_that_the_client_has_is_not_sent_again(quiet: Served, path: str, named: str, status: int) -> None:
    answer = quiet.ask(
        "GET",
        path,
        headers={"If-None-Match": named, "Range": "bytes=0-1"} if status == 304 else {"If-None-Match": named},
    )

    assert (answer.status, answer.headers["etag"]) == (status, ETAG)
    assert answer.content == (b"" if status == 304 else CONTENT)


def sent_of(api: Served, path: str) -> list[int]:
    """Return the bytes of each download of a file that was noted, in order."""
    statement = text("SELECT size_bytes FROM egress WHERE file_id = :id ORDER BY sent_at, id")
    file_id = path.split("/")[3]
    return api.stack.database.run(lambda connection: list(connection.execute(statement, {"id": file_id}).scalars()))


def test_bytes_that_are_sent_are_noted_and_nothing_else(quiet: Served) -> None:
    path = f"/v1/files/{quiet.upload(CONTENT).json['id']}/content"

    quiet.ask("GET", path, headers={"If-None-Match": ETAG})
    quiet.ask("GET", path, headers={"Range": "bytes=5000-"})
    quiet.ask("GET", path)
    eventually(lambda: sent_of(quiet, path) == [SIZE])
    quiet.ask("GET", path, headers={"Range": "bytes=10-19"})

    eventually(lambda: sent_of(quiet, path) == [SIZE, 10])


def test_of_a_client_that_hangs_up_what_it_was_sent_is_noted(quiet: Served) -> None:
    size = 64 * 1024 * 1024
    path = f"/v1/files/{quiet.upload(bytes(size)).json['id']}/content"
    connection = http.client.HTTPConnection(urlsplit(quiet.url).netloc, timeout=60)
    connection.request("GET", path, headers={"Authorization": f"Bearer {quiet.key()}"})
    response = connection.getresponse()
    assert len(response.read(1000)) == 1000
    response.close()
    connection.close()

    eventually(lambda: len(sent_of(quiet, path)) == 1)
    (sent,) = sent_of(quiet, path)
    assert 1000 <= sent < size


def test_who_cannot_note_a_download_serves_it(quiet: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    path = f"/v1/files/{quiet.upload(CONTENT).json['id']}/content"
    tried: list[int] = []

    def add(_: object, _id: str, _file: str, size_bytes: int) -> None:
        tried.append(size_bytes)
        raise StoreUnavailableError

    monkeypatch.setattr(EgressRepository, "add", add)

    assert quiet.ask("GET", path).content == CONTENT
    eventually(lambda: tried == [SIZE])


@pytest.fixture(scope="module")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    with running_weed(tmp_path_factory.mktemp("weed")) as server:
        yield server


@pytest.fixture(scope="module")
def on_s3(
    template_url: str, redis_url: str, s3: S3Server, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Served]:
    with pytest.MonkeyPatch.context() as patch, fresh_database(template_url) as url:
        patch.setenv("AWS_ACCESS_KEY_ID", s3.credentials.access_key_id)
        patch.setenv("AWS_SECRET_ACCESS_KEY", s3.credentials.secret_access_key)
        settings = Settings(
            home=tmp_path_factory.mktemp("on-s3"),
            database_url=SecretStr(url),
            redis_url=SecretStr(redis_url),
            objects_url=f"s3://{BUCKET}/api",
            s3_endpoint_url=s3.endpoint_url,
        )
        with open_stack(settings) as stack, served(stack) as api:
            yield api


def test_the_stock_client_follows_the_link_and_leaves_its_key_behind(on_s3: Served, s3: S3Server) -> None:
    sent: list[tuple[str, bool]] = []
    client = openai.DefaultHttpxClient(
        event_hooks={
            "request": [lambda request: sent.append((request.url.netloc.decode(), "authorization" in request.headers))]
        }
    )
    with openai.OpenAI(base_url=f"{on_s3.url}/v1", api_key=on_s3.key(), http_client=client) as sdk:
        file = sdk.files.create(file=("in.jsonl", CONTENT), purpose="batch")
        sent.clear()

        answer = sdk.files.content(file.id)

    assert answer.content == CONTENT
    assert answer.response.headers["content-disposition"] == 'attachment; filename="in.jsonl"'
    assert sent == [(urlsplit(on_s3.url).netloc, True), (urlsplit(s3.endpoint_url).netloc, False)]


def test_a_link_is_not_kept_by_anybody_and_is_not_needed_for_what_the_client_has(on_s3: Served) -> None:
    path = f"/v1/files/{on_s3.upload(CONTENT).json['id']}/content"

    answer = on_s3.ask("GET", path)

    assert (answer.status, answer.headers["cache-control"], answer.content) == (302, "no-store", b"")
    assert sent_of(on_s3, path) == []
    assert on_s3.ask("GET", path, headers={"If-None-Match": ETAG}).status == 304


def test_a_large_file_in_parts_is_joined_in_the_bucket(on_s3: Served, tmp_path: Path) -> None:
    # Past the bound for one request to the bucket, in parts that have nothing to do with the bucket's own.
    content = random.Random(7).randbytes(66 * 1024 * 1024 + 5)
    path = tmp_path / "in.jsonl"
    path.write_bytes(content)
    with openai.OpenAI(base_url=f"{on_s3.url}/v1", api_key=on_s3.key()) as sdk:
        upload = sdk.uploads.upload_file_chunked(
            file=path,
            mime_type="application/jsonl",
            purpose="batch",
            part_size=9_000_001,
            md5=hashlib.md5(content, usedforsecurity=False).hexdigest(),
        )
        assert upload.file is not None
        assert hashlib.sha256(sdk.files.content(upload.file.id).content).digest() == hashlib.sha256(content).digest()


SERVER = """
import sys
import uvicorn
from pipeline.app.serving import open_service
from pipeline.config import Settings
from pipeline.entrypoints.http.server import build_app, listening

with open_service(Settings()) as service, listening("127.0.0.1", 0) as listener:
    print(listener.getsockname()[1], flush=True)
    uvicorn.Server(uvicorn.Config(build_app(service), log_config=None, access_log=False)).run(sockets=[listener])
"""
LARGE_BYTES = 200 * 1024 * 1024
GROWTH_BYTES_MAX = 64 * 1024 * 1024


@pytest.fixture
def process(quiet: Served, tmp_path: Path) -> Iterator[tuple[subprocess.Popen[str], int]]:
    settings = quiet.stack.settings
    assert settings.database_url is not None
    environment = {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": str(ROOT),
        "NIGHTRATE_HOME": str(tmp_path),
        "NIGHTRATE_DATABASE_URL": settings.database_url.get_secret_value(),
    }
    with subprocess.Popen(
        [sys.executable, "-c", SERVER], cwd=tmp_path, env=environment, stdout=subprocess.PIPE, text=True
    ) as server:
        assert server.stdout is not None
        try:
            yield server, int(server.stdout.readline())
        finally:
            server.terminate()


def peak_bytes(process_id: int) -> int:
    status = Path(f"/proc/{process_id}/status").read_text()
    return next(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmHWM:"))


@pytest.mark.skipif(sys.platform != "linux", reason="the peak of another process is read from /proc")
def test_memory_is_bounded_however_large_a_file_is(quiet: Served, process: tuple[subprocess.Popen[str], int]) -> None:
    server, port = process
    headers = {"Authorization": f"Bearer {quiet.key()}"}
    block = random.Random(3).randbytes(1024 * 1024)
    small, content_type = form({"purpose": "batch"}, filename="in.jsonl", content=b"SPLIT")
    before, after = small.split(b"SPLIT")

    def body(blocks: int) -> Iterator[bytes]:
        yield before
        for _ in range(blocks):
            yield block
        yield after

    def roundtrip(blocks: int) -> None:
        size = len(before) + blocks * len(block) + len(after)
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
        sent = headers | {"Content-Type": content_type, "Content-Length": str(size)}
        connection.request("POST", "/v1/files", body(blocks), sent)
        with connection.getresponse() as response:
            assert response.status == 200
            file_id = response.read().split(b'"id":"')[1].split(b'"')[0].decode()
        connection.request("GET", f"/v1/files/{file_id}/content", headers=headers)
        received = 0
        with connection.getresponse() as response:
            while chunk := response.read(len(block)):
                received += len(chunk)
        connection.close()
        assert received == blocks * len(block)

    roundtrip(2)
    idle = peak_bytes(server.pid)
    roundtrip(LARGE_BYTES // len(block))

    assert peak_bytes(server.pid) - idle < GROWTH_BYTES_MAX
