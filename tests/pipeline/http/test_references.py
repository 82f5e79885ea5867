"""Files that the server fetches: from where it may, and from nowhere else."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import pytest
from pydantic import SecretStr

from pipeline.app.references import input_places
from pipeline.app.stack import open_stack
from pipeline.config import Settings, TenantSettings
from pipeline.domain.errors import NotFoundError, RefusedError, UsageError
from pipeline.domain.ids import DEFAULT_TENANT
from storage.objects import places
from tests.pipeline.http.served import Answer, Served, served
from tests.pipeline.http.tenants import other_tenant
from tests.services import fresh_database
from tests.storage.objects.weed import BUCKET, S3Server, running_weed

LINES = b'{"a": 1}\n' * 3


@pytest.fixture(scope="module")
def outside(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with files below the prefixes, and beside them."""
    folder = tmp_path_factory.mktemp("outside")
    for name in ("shared/in.jsonl", "shared/deep/er/in.jsonl", "own/in.jsonl", "secret/in.jsonl", "shared.jsonl"):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(LINES)
    (folder / "shared" / "empty.jsonl").touch()
    (folder / "shared" / ".hidden.jsonl").write_bytes(LINES)
    (folder / "shared" / "link.jsonl").symlink_to(folder / "secret" / "in.jsonl")
    (folder / "shared" / "door").symlink_to(folder / "secret")
    os.mkfifo(folder / "shared" / "pipe.jsonl")
    return folder


@pytest.fixture(scope="module")
def api(template_url: str, redis_url: str, outside: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with fresh_database(template_url) as url:
        settings = Settings(
            home=tmp_path_factory.mktemp("referred"),
            database_url=SecretStr(url),
            redis_url=SecretStr(redis_url),
            input_prefixes=[f"file://{outside}/shared"],
            tenants={"tnt_default": TenantSettings(input_prefixes=[f"file://{outside}/own/"])},
            upload_bytes_max=1000,
        )
        with open_stack(settings) as stack, served(stack) as api:
            yield api


def refer(api: Served, url: str, *, key: str | None = None, **fields: object) -> Answer:
    return api.ask("POST", "/v1/files", {"url": url, "purpose": "batch", **fields}, key=key)


def test_a_file_is_copied_from_a_place_that_the_settings_list(api: Served, outside: Path) -> None:
    source = outside / "shared" / "moving.jsonl"
    source.write_bytes(LINES)

    answer = refer(api, f"file://{source}", expires_after={"anchor": "created_at", "seconds": 7200})

    assert answer.status == 200, answer.json
    file = answer.json
    assert (file["filename"], file["bytes"], file["purpose"]) == ("moving.jsonl", len(LINES), "batch")
    assert file["expires_at"] == file["created_at"] + 7200
    source.write_bytes(b"other\n")
    assert api.ask("GET", f"/v1/files/{file['id']}/content").content == LINES


def test_a_reference_may_give_the_file_another_name(api: Served, outside: Path) -> None:
    assert refer(api, f"file://{outside}/shared/deep/er/in.jsonl", filename="x.jsonl").json["filename"] == "x.jsonl"
    assert refer(api, f"file://{outside}/shared/in.jsonl", filename="x.txt").status == 400


def test_a_tenant_reads_its_own_places_and_nobody_elses(api: Served, outside: Path) -> None:
    other = api.key(tenant_id=other_tenant(api.stack))

    assert refer(api, f"file://{outside}/own/in.jsonl").status == 200
    assert refer(api, f"file://{outside}/shared/in.jsonl", key=other).status == 200
    assert refer(api, f"file://{outside}/own/in.jsonl", key=other).status == 400


@pytest.mark.parametrize(
    "path",
    [
        "/secret/in.jsonl",
        "/shared.jsonl",
        "/shared/../secret/in.jsonl",
        "/shared/./in.jsonl",
        "/shared//in.jsonl",
        "/shared/",
        "/shared",
        "/shared/deep",
        "/shared/deep/../in.jsonl",
        "/shared/..%2fsecret/in.jsonl",
        "/shared/%2e%2e/secret/in.jsonl",
        "/shared/deep%2Fer%2Fin.jsonl",
        "/shared/..\\secret\\in.jsonl",
        "/shared/.hidden.jsonl",
        "/shared/link.jsonl",
        "/shared/door/in.jsonl",
        "/shared/pipe.jsonl",
        "/shared/nosuch.jsonl",
        "/shared/in.jsonl?x=1",
        "/shared/in.jsonl#x",
        "/shared/in.jsonl/x.jsonl",
    ],
)
def test_what_is_not_below_a_prefix_is_not_there(api: Served, outside: Path, path: str) -> None:
    answer = refer(api, f"file://{outside}{path}", filename="in.jsonl")

    # In the same words, whatever there is.
    assert (answer.status, answer.error["message"]) == (400, "There is nothing to read at this URL.")
    assert answer.error["param"] == "url"


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1/in.jsonl", "s3://secret/in.jsonl", "in.jsonl", "FILE:///etc/in.jsonl"]
)
def test_other_places_are_not_there_either(api: Served, url: str) -> None:
    assert refer(api, url, filename="in.jsonl").error["message"] == "There is nothing to read at this URL."


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"", 400),
        (b"{", 400),
        (b"[]", 400),
        (b'{"url": 1, "purpose": "batch"}', 400),
        (b'{"purpose": "batch"}', 400),
        (b'{"url": "file:///x.jsonl"}', 400),
        (b'{"url": "file:///x.jsonl", "purpose": "batch_output"}', 400),
        (b'{"url": "file:///x.jsonl", "purpose": "batch", "more": 1}', 400),
        (b'{"url": "file:///x\\u0000.jsonl", "purpose": "batch"}', 400),
        (b" " * 20_000, 413),
    ],
)
def test_references_that_make_no_sense_are_refused(api: Served, body: bytes, status: int) -> None:
    assert api.ask("POST", "/v1/files", body, headers={"Content-Type": "application/json"}).status == status


def test_a_file_that_is_empty_or_too_large_is_not_taken(api: Served, outside: Path) -> None:
    large = outside / "shared" / "large.jsonl"
    large.write_bytes(b"x" * 1000)
    assert refer(api, f"file://{large}").status == 200
    large.write_bytes(b"x" * 1001)
    assert "larger than 1000 bytes" in refer(api, f"file://{large}").error["message"]
    assert refer(api, f"file://{outside}/shared/empty.jsonl").error["code"] == "empty_file"


def test_a_file_that_changes_while_it_is_read_is_not_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "in").mkdir()
    source = tmp_path / "in" / "x.jsonl"
    source.write_bytes(LINES)
    copy = places._copy

    def slow(opened: BinaryIO, target: BinaryIO, bytes_max: int) -> int:
        copied = copy(opened, target, bytes_max)
        source.unlink()
        source.write_bytes(LINES)
        return copied

    monkeypatch.setattr(places, "_copy", slow)
    known = input_places(Settings(home=tmp_path / "home", input_prefixes=[f"file://{tmp_path}/in"]))

    with pytest.raises(RefusedError, match="changed while it was read"):
        known.copy(DEFAULT_TENANT, f"file://{source}", tmp_path / "copy", bytes_max=1000)


@pytest.mark.parametrize(
    "prefix", ["/data", "http://x/", "s3://", "file://host/x", "s3://bucket/x?region=y", "file:///%2e"]
)
def test_prefixes_that_are_no_places_are_refused(tmp_path: Path, prefix: str) -> None:
    with pytest.raises(UsageError):
        input_places(Settings(home=tmp_path, input_prefixes=[prefix]))


@pytest.mark.parametrize("prefix", ["", "/objects", "/objects/tenants"])
def test_the_store_itself_is_no_place_for_inputs(tmp_path: Path, prefix: str) -> None:
    with pytest.raises(UsageError, match="every tenant"):
        input_places(Settings(home=tmp_path, input_prefixes=[f"file://{tmp_path}{prefix}"]))


@pytest.fixture(scope="module")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    with running_weed(tmp_path_factory.mktemp("weed")) as server:
        yield server


def test_a_file_is_copied_from_a_bucket(s3: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", s3.credentials.access_key_id)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", s3.credentials.secret_access_key)
    s3.client.put_object(Bucket=BUCKET, Key="inputs/a/in.jsonl", Body=LINES)
    s3.client.put_object(Bucket=BUCKET, Key="other/in.jsonl", Body=LINES)
    known = input_places(
        Settings(home=tmp_path, input_prefixes=[f"s3://{BUCKET}/inputs"], s3_endpoint_url=s3.endpoint_url)
    )

    known.copy(DEFAULT_TENANT, f"s3://{BUCKET}/inputs/a/in.jsonl", tmp_path / "copy", bytes_max=100)

    assert (tmp_path / "copy").read_bytes() == LINES
    for number, path in enumerate(("inputs/nosuch.jsonl", "other/in.jsonl", "inputs/../other/in.jsonl", "inputs/a")):
        with pytest.raises(NotFoundError):
            known.copy(DEFAULT_TENANT, f"s3://{BUCKET}/{path}", tmp_path / f"copy-{number}", bytes_max=100)
    copied_of = places._Bucket._etag

    def replaced(bucket: places._Bucket, name: str, key: str) -> str | None:
        s3.client.put_object(Bucket=BUCKET, Key=key, Body=LINES * 2)
        return copied_of(bucket, name, key)

    monkeypatch.setattr(places._Bucket, "_etag", replaced)
    with pytest.raises(RefusedError, match="changed while it was read"):
        known.copy(DEFAULT_TENANT, f"s3://{BUCKET}/inputs/a/in.jsonl", tmp_path / "changed", bytes_max=100)
    with pytest.raises(RefusedError, match="larger"):
        known.copy(DEFAULT_TENANT, f"s3://{BUCKET}/inputs/a/in.jsonl", tmp_path / "large", bytes_max=10)
