"""Files in parts, through OpenAI's own client and beside it."""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import Any

import openai
import pytest
from sqlalchemy import text

from pipeline.app import uploads as uploads_module
from pipeline.app.sweeping import Sweeper
from pipeline.domain.ids import DEFAULT_TENANT
from pipeline.domain.limits import FILE_BYTES_MAX, UPLOAD_PART_BYTES_MAX, UPLOAD_SECONDS
from pipeline.domain.objects.keys import upload_prefix
from tests.pipeline.http.served import Answer, Served, form
from tests.pipeline.http.tenants import other_tenant
from tests.services import eventually

CONTENT = b"".join(b'{"n": %d}\n' % n for n in range(1000))


@pytest.fixture
def client(quiet: Served) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{quiet.url}/v1", api_key=quiet.key(), max_retries=0) as client:
        yield client


def announce(api: Served, size_bytes: int = len(CONTENT), **fields: object) -> Answer:
    asked = {"filename": "in.jsonl", "purpose": "batch", "bytes": size_bytes, "mime_type": "application/jsonl"}
    return api.ask("POST", "/v1/uploads", asked | fields)


def add(api: Served, upload_id: str, content: bytes, *, key: str | None = None, field: str = "data") -> Answer:
    body, content_type = form({}, filename="upload", content=content, field=field)
    path = f"/v1/uploads/{upload_id}/parts"
    return api.ask("POST", path, body, key=key, headers={"Content-Type": content_type})


def complete(api: Served, upload_id: str, *part_ids: str, key: str | None = None, **fields: object) -> Answer:
    return api.ask("POST", f"/v1/uploads/{upload_id}/complete", {"part_ids": part_ids, **fields}, key=key)


def upload_of(api: Served, *parts: bytes) -> tuple[str, list[str]]:
    """Announce a file and add its parts."""
    upload_id = announce(api, sum(map(len, parts))).json["id"]
    return upload_id, [add(api, upload_id, part).json["id"] for part in parts]


def content_of(api: Served, upload: Any) -> bytes:  # noqa: ANN401 -- whatever was answered
    return api.ask("GET", f"/v1/files/{upload['file']['id']}/content").content


def objects_of(api: Served, upload_id: Any) -> list[str]:  # noqa: ANN401 -- as above
    return list(api.stack.objects.list(upload_prefix(DEFAULT_TENANT, upload_id)))


def test_the_stock_client_uploads_a_file_in_parts(client: openai.OpenAI, tmp_path: Path) -> None:
    path = tmp_path / "in.jsonl"
    path.write_bytes(CONTENT)

    upload = client.uploads.upload_file_chunked(
        file=path,
        mime_type="application/jsonl",
        purpose="batch",
        part_size=1000,
        md5=hashlib.md5(CONTENT, usedforsecurity=False).hexdigest(),
    )

    assert upload.status == "completed"
    assert upload.file is not None
    assert (upload.file.bytes, upload.file.filename, upload.file.purpose) == (len(CONTENT), "in.jsonl", "batch")
    assert upload.file.expires_at == upload.file.created_at + 30 * 86_400
    assert upload.expires_at == upload.created_at + UPLOAD_SECONDS
    assert client.files.content(upload.file.id).content == CONTENT
    assert client.files.retrieve(upload.file.id) == upload.file


def test_parts_make_the_file_in_the_order_of_its_completion(client: openai.OpenAI) -> None:
    upload = client.uploads.create(
        bytes=6,
        filename="in.jsonl",
        mime_type="application/jsonl",
        purpose="batch",
        expires_after={"anchor": "created_at", "seconds": 3600},
    )
    first, second = (client.uploads.parts.create(upload.id, data=data) for data in (b"world", b"h"))
    assert (first.object, first.upload_id) == ("upload.part", upload.id)

    upload = client.uploads.complete(upload.id, part_ids=[second.id, first.id])

    assert upload.file is not None
    assert client.files.content(upload.file.id).content == b"hworld"
    assert upload.file.expires_at == upload.file.created_at + 3600


def test_completing_again_returns_the_same_file(quiet: Served) -> None:
    upload_id, parts = upload_of(quiet, b"a", b"b")

    with ThreadPoolExecutor(4) as threads:
        answers = list(threads.map(lambda _: complete(quiet, upload_id, *parts), range(4)))

    assert [answer.status for answer in answers] == [200] * 4
    assert len({answer.json["file"]["id"] for answer in answers}) == 1
    assert complete(quiet, upload_id, *parts).json == answers[0].json
    assert content_of(quiet, answers[0].json) == b"ab"


def test_a_completion_that_died_halfway_is_repeated(quiet: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    upload_id, parts = upload_of(quiet, b"a", b"b")
    with monkeypatch.context() as broken:
        broken.setattr(uploads_module, "FileDraft", None)
        assert complete(quiet, upload_id, *parts).status == 500

    # In another order, it is another file: nothing of the first stands in its way.
    answer = complete(quiet, upload_id, *reversed(parts))

    assert answer.status == 200
    assert content_of(quiet, answer.json) == b"ba"


def test_what_is_not_what_was_announced_is_refused(quiet: Served) -> None:
    upload_id, parts = upload_of(quiet, b"abc", b"def")
    other_id, (foreign,) = upload_of(quiet, b"def")

    for wrong, said in (
        ([], "part_ids"),
        (parts[:1], "3 bytes in all, but 6 were announced"),
        ([*parts, parts[0]], "named twice"),
        ([parts[0], foreign], "has no part"),
        ([parts[0], "upart_nosuch"], "has no part"),
    ):
        answer = complete(quiet, upload_id, *wrong)
        assert (answer.status, said in answer.error["message"]) == (400, True), answer.error

    answer = complete(quiet, upload_id, *parts, md5="0" * 32)
    assert (answer.status, "MD5" in answer.error["message"]) == (400, True)
    assert complete(quiet, upload_id, *parts, md5=hashlib.md5(b"abcdef").hexdigest().upper()).status == 200  # noqa: S324
    assert complete(quiet, other_id, foreign).status == 200


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"bytes": 0}, "bytes"),
        ({"bytes": FILE_BYTES_MAX + 1}, "bytes"),
        ({"bytes": "12"}, "bytes"),
        ({"purpose": "batch_output"}, None),
        ({"filename": ""}, "filename"),
        ({"filename": "a/b.jsonl"}, "filename"),
        ({"filename": "in.txt"}, None),
        ({"mime_type": None}, "mime_type"),
        ({"expires_after": {"anchor": "created_at", "seconds": 3599}}, "expires_after.seconds"),
        ({"more": 1}, "more"),
    ],
)
def test_announcements_that_make_no_sense_are_refused(
    quiet: Served, fields: dict[str, object], param: str | None
) -> None:
    answer = announce(quiet, **fields)

    assert answer.status == 400
    if param is not None:
        assert answer.error["param"] == param


def test_a_file_may_be_announced_as_large_as_the_limit(quiet: Served) -> None:
    assert announce(quiet, FILE_BYTES_MAX).status == 200


def test_a_part_may_be_as_large_as_the_limit_and_no_larger(quiet: Served) -> None:
    upload_id = announce(quiet, UPLOAD_PART_BYTES_MAX).json["id"]

    assert add(quiet, upload_id, bytes(UPLOAD_PART_BYTES_MAX + 1)).status == 413
    assert add(quiet, upload_id, bytes(UPLOAD_PART_BYTES_MAX)).status == 200
    assert add(quiet, upload_id, b"").status == 400
    assert add(quiet, upload_id, b"x", field="file").error["param"] == "file"


def test_parts_are_sent_again_but_not_without_end(quiet: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("storage.uploads.UPLOAD_PART_BYTES_MAX", 10)
    monkeypatch.setattr("storage.uploads.UPLOAD_PARTS_MAX", 4)
    upload_id = announce(quiet, 10).json["id"]
    few_id = announce(quiet, 10).json["id"]

    assert [add(quiet, upload_id, bytes(10)).status for _ in range(4)] == [200, 200, 200, 400]
    assert [add(quiet, few_id, b"x").status for _ in range(5)] == [200, 200, 200, 200, 400]


def test_a_cancelled_upload_is_over(quiet: Served) -> None:
    upload_id, parts = upload_of(quiet, b"abc")

    assert [quiet.ask("POST", f"/v1/uploads/{upload_id}/cancel").json["status"] for _ in range(2)] == ["cancelled"] * 2

    assert add(quiet, upload_id, b"x").status == 400
    assert complete(quiet, upload_id, *parts).status == 400


def test_a_completed_upload_takes_no_parts_and_cannot_be_cancelled(quiet: Served) -> None:
    upload_id, parts = upload_of(quiet, b"abc")
    complete(quiet, upload_id, *parts)

    assert add(quiet, upload_id, b"x").status == 400
    assert quiet.ask("POST", f"/v1/uploads/{upload_id}/cancel").status == 400


def test_an_upload_of_another_tenant_does_not_exist(quiet: Served) -> None:
    key = quiet.key(tenant_id=other_tenant(quiet.stack))
    upload_id, parts = upload_of(quiet, b"abc")

    assert add(quiet, upload_id, b"x", key=key).status == 404
    assert complete(quiet, upload_id, *parts, key=key).status == 404
    assert quiet.ask("POST", f"/v1/uploads/{upload_id}/cancel", key=key).status == 404
    assert complete(quiet, upload_id, *parts).status == 200


def test_parts_go_when_their_upload_has_ended_and_the_file_stays(quiet: Served) -> None:
    sweeper = Sweeper(quiet.stack, grace=timedelta(0))
    done_id, done_parts = upload_of(quiet, b"abc", b"def")
    done = complete(quiet, done_id, *done_parts).json
    late_id, late_parts = upload_of(quiet, b"abc")
    open_id, _ = upload_of(quiet, b"abc")
    with quiet.stack.database.transaction() as connection:
        late = "UPDATE uploads SET created_at = created_at - interval '2 days', expires_at = now() WHERE id = :id"
        connection.execute(text(late), {"id": late_id})
    assert complete(quiet, late_id, *late_parts).error["message"].startswith("The upload has the status 'expired'")

    while sweeper.run_once():
        pass

    assert [key.rpartition("/")[2] for key in objects_of(quiet, done_id)] == [done["file"]["id"]]
    assert content_of(quiet, done) == b"abcdef"
    assert objects_of(quiet, late_id) == []
    assert len(objects_of(quiet, open_id)) == 1
    assert complete(quiet, done_id, *done_parts).json == done
    assert quiet.ask("DELETE", f"/v1/files/{done['file']['id']}").status == 200
    while sweeper.run_once():
        pass
    assert objects_of(quiet, done_id) == []


def test_any_cut_into_parts_gives_the_same_file(quiet: Served) -> None:
    rng = random.Random(17)
    for _ in range(5):
        cuts = sorted(rng.sample(range(1, len(CONTENT)), rng.randint(1, 8)))
        pieces = [CONTENT[low:high] for low, high in zip([0, *cuts], [*cuts, len(CONTENT)], strict=True)]
        upload_id, parts = upload_of(quiet, *pieces)
        assert content_of(quiet, complete(quiet, upload_id, *parts).json) == CONTENT


def test_a_batch_runs_on_a_file_that_came_in_parts(whole: Served) -> None:
    lines = [
        json.dumps(
            {
                "custom_id": f"row-{number}",
                "method": "POST",
                "url": "/v1/chat/completions",
                "body": {"model": "echo", "messages": [{"role": "user", "content": f"question {number}"}]},
            }
        )
        for number in range(30)
    ]
    content = "\n".join(lines).encode()
    upload_id, parts = upload_of(whole, content[:777], content[777:])
    asked = {
        "input_file_id": complete(whole, upload_id, *parts).json["file"]["id"],
        "endpoint": "/v1/chat/completions",
        "completion_window": "24h",
    }
    path = f"/v1/batches/{whole.ask('POST', '/v1/batches', asked).json['id']}"
    eventually(lambda: whole.ask("GET", path).json["status"] == "completed")

    merged = [json.loads(line) for line in whole.ask("GET", f"{path}/results?format=merged").content.splitlines()]

    assert [{key: row[key] for key in ("custom_id", "method", "url", "body")} for row in merged] == [
        json.loads(line) for line in lines
    ]
    assert {row["response"]["status_code"] for row in merged} == {200}
