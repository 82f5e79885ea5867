"""The desk over a server that drops, repeats, shortens and mistakes what it is asked for."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator
from contextlib import closing, contextmanager
from email.parser import BytesParser
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

import pytest

import infra.remote.uploads
from infra.remote.bodies import FormBody
from infra.remote.desk import RemoteDesk
from infra.remote.errors import ServerAnswerError, ServerUnavailableError
from infra.remote.reading import _micros
from infra.remote.transport import Transport
from pipeline.domain.endpoints import Endpoint
from pipeline.domain.errors import ConflictError, NightrateError, NotFoundError, RefusedError
from pipeline.domain.tiers import Tier
from pipeline.ports.batches import BatchView, RetryOrder, Steering
from pipeline.ports.desk import FileFacts, Terms
from tests.infra.remote.hostile import Act, Asked, HostileServer, Time, drops, hostile, refuses, says, sends

KEY = "nr_secret_key"
CONTENT = Random(7).randbytes(700_000)
FILE = FileFacts(file_id="file_1", size_bytes=len(CONTENT), sha256=hashlib.sha256(CONTENT).hexdigest())
ETAG = f'"{FILE.sha256}"'
MODELS = says(200, {"object": "list", "data": []})
UPLOADED = says(200, {"id": "file_1"})


def batch(**more: object) -> dict[str, Any]:
    return {
        "id": "batch_1", "object": "batch", "endpoint": "/v1/embeddings", "model": None, "errors": None,
        "input_file_id": "file_1", "completion_window": "24h", "status": "in_progress", "output_file_id": None,
        "error_file_id": None, "created_at": 1_780_000_000, "in_progress_at": 1_780_000_001, "expires_at": 1_780_086_400,
        "usage": None, "metadata": None, "tier": "bulk", "priority": 0, "labels": None, "project_id": "prj_1",
        "max_cost": "1.50", "cost": {"amount": "0.000007", "currency": "EUR"}, "reason": None, "promise": "pending",
        "retry_of": None, "hold_until": None, "paused_at": None, "errors_total": 0, "tenant_id": "tnt_1", "models": ["m"],
        "trouble": None, "steered_at": None,
        "rows": {"total": 3, "duplicate": 1, "refused": 0, "succeeded": 1, "errored": 0, "completed": None, "failed": None},
    } | more  # fmt: skip


def terms(**more: Any) -> Terms:  # noqa: ANN401 -- whatever the terms take
    given = {"tier": Tier.BULK, "window": "24h", "budget_micros": None, "metadata": None, "idempotency_key": None}
    return Terms(**given | {"hold_until": None, "priority": 0} | more)


@contextmanager
def at_desk(
    *acts: Act, parts_from_bytes: int = 10**9, time: Time | None = None
) -> Iterator[tuple[RemoteDesk, HostileServer]]:
    with hostile(*acts) as server:
        transport = Transport(server.url, KEY, clock=(time or Time()).clock)
        desk = RemoteDesk(transport, parts_from_bytes=parts_from_bytes)
        try:
            yield desk, server
        finally:
            transport.close()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    made = tmp_path / "in.jsonl"
    made.write_bytes(CONTENT)
    return made


def form(asked: Asked) -> dict[str, tuple[str | None, bytes]]:
    """Read a form as somebody else's parser does."""
    head = f"Content-Type: {asked.headers['content-type']}\r\n\r\n".encode()
    parts = BytesParser().parsebytes(head + asked.body).get_payload()
    return {
        str(part.get_param("name", header="content-disposition")): (part.get_filename(), part.get_payload(decode=True))
        for part in parts
    }


def submit(desk: RemoteDesk, path: Path, **more: object) -> tuple[BatchView, list[BatchView]]:
    created: list[BatchView] = []
    view = desk.submit(path, Endpoint.EMBEDDINGS, terms(**more), on_created=created.append)
    return view, created


@pytest.mark.parametrize(
    "acts",
    [
        [sends(CONTENT, etag=ETAG)],
        [sends(CONTENT, cut=300_000, etag=ETAG), sends(CONTENT, etag=ETAG)],
        [sends(CONTENT, cut=0), drops, refuses(503), sends(CONTENT, cut=699_999), sends(CONTENT)],
        [sends(CONTENT, cut=300_000), sends(CONTENT, ranges=False)],
        [sends(CONTENT[:400_000]), sends(CONTENT)],
        [*[sends(CONTENT, cut=10_000)] * 30, sends(CONTENT)],
    ],
    ids=["whole", "broken", "often-broken", "without-ranges", "short", "thirty-times"],
)
def test_a_download_goes_on_where_it_broke_off(acts: list[Act]) -> None:
    with at_desk(*acts) as (desk, server):
        assert b"".join(desk.content(FILE)) == CONTENT

    assert len(server.asked) == len(acts)
    begins = [int(re.sub(r"\D", "", each.headers.get("range", "0"))) for each in server.asked]
    assert begins == sorted(begins)


@pytest.mark.parametrize(
    "acts",
    [
        [sends(CONTENT[:-1] + b"x")],
        [sends(CONTENT + b"x")],
        [sends(CONTENT, etag=f'"{"0" * 64}"')],
        [sends(CONTENT, cut=100), says(206, CONTENT[200:], Content_Range="bytes 200-699999/700000")],
        [sends(CONTENT, cut=100), says(206, CONTENT[100:])],
        [sends(CONTENT, cut=100), refuses(416)],
        [sends(CONTENT, cut=100), drops],
        [sends(CONTENT[:100])],
        [sends(b"")],
    ],
    ids=["other", "longer", "other-etag", "other-range", "no-range", "416", "gone", "shorter", "empty"],
)
def test_what_is_not_the_file_never_ends_well(acts: list[Act]) -> None:
    with at_desk(*acts) as (desk, _), pytest.raises(NightrateError) as told:
        list(desk.content(FILE))

    assert told.value.exit_code in {1, 2}


def test_a_download_from_another_host_goes_without_the_key() -> None:
    with hostile(sends(CONTENT, cut=9, etag='"multipart-3"'), sends(CONTENT)) as store:
        link = says(302, {}, Location=f"{store.url}/bucket/file?signature=1")
        with at_desk(link) as (desk, server):
            assert b"".join(desk.content(FILE)) == CONTENT

    assert [each.headers.get("authorization") for each in server.asked] == [f"Bearer {KEY}"] * 2
    assert [each.headers.get("authorization") for each in store.asked] == [None, None]
    assert store.asked[1].headers["range"] == "bytes=9-"


@pytest.mark.parametrize("location", ["file:///etc/passwd", "gopher://127.0.0.1/x", "//", None])
def test_a_download_is_led_nowhere_that_is_no_server(location: str | None) -> None:
    headers = {} if location is None else {"Location": location}
    with at_desk(says(302, {}, **headers)) as (desk, server), pytest.raises(ServerAnswerError):
        list(desk.content(FILE))

    assert len(server.asked) <= 5


def test_a_file_is_uploaded_as_it_is(path: Path) -> None:
    with at_desk(MODELS, UPLOADED, says(200, batch())) as (desk, server):
        view, created = submit(desk, path, metadata={"a": "b"}, budget_micros=1_500_000)

    assert (view.batch_id, view.cost_micros, view.currency, view.models) == ("batch_1", 7, "EUR", ("m",))
    assert [each.batch_id for each in created] == ["batch_1"]
    assert form(server.asked[1]) == {"purpose": (None, b"batch"), "file": ("in.jsonl", CONTENT)}
    asked = json.loads(server.asked[2].body)
    assert asked == {
        "input_file_id": "file_1", "endpoint": "/v1/embeddings", "completion_window": "24h", "tier": "bulk",
        "priority": 0, "must_promise": False, "metadata": {"a": "b"}, "max_cost": "1.50",
    }  # fmt: skip


def test_a_body_is_read_in_pieces_as_small_as_asked_for(path: Path) -> None:
    heard: list[int] = []
    span = (100_000, 600_000)
    body = FormBody(path, field="data", filename="part", fields={"a": "b"}, span=span, on_sent=heard.append)

    with closing(body):
        pieces = list(iter(partial(body.read, 1000), b""))

    assert max(map(len, pieces)) == 1000
    whole = b"".join(pieces)
    assert len(whole) == body.size_bytes
    assert whole.count(CONTENT[span[0] : span[1]]) == 1
    assert heard[-1] == 500_000
    assert heard == sorted(heard)


def test_a_file_that_shrinks_under_the_upload_is_told(path: Path) -> None:
    body = FormBody(path, field="file", filename="in.jsonl", fields={}, span=(0, len(CONTENT)))
    path.write_bytes(CONTENT[:1000])

    with closing(body), pytest.raises(RefusedError, match="became shorter"):
        list(iter(partial(body.read, 4096), b""))


@pytest.mark.parametrize("name", ['a "quoted"\r\nname', "grün.txt", "x" * 250, "requests", ".jsonl"])
def test_every_name_arrives_as_one_of_a_file_of_requests(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(b"{}\n")

    with at_desk(MODELS, UPLOADED, says(200, batch())) as (desk, server):
        submit(desk, path)

    found = form(server.asked[1])
    assert found["file"][1] == b"{}\n"
    assert str(found["file"][0]).endswith(".jsonl")
    assert len(str(found["file"][0])) <= 255


def test_a_lost_answer_makes_no_second_batch(path: Path) -> None:
    acts = (MODELS, drops, UPLOADED, drops, refuses(502), says(200, batch()))
    with at_desk(*acts) as (desk, server):
        submit(desk, path)
        first = server.asked[-1]
    made = [each for each in server.asked if each.path == "/v1/batches"]
    assert len(made) == 3
    assert {each.headers["idempotency-key"] for each in made} == {first.headers["idempotency-key"]}
    assert {each.body for each in made} == {first.body}

    with at_desk(*acts) as (desk, server):
        submit(desk, path)
    assert server.asked[-1].headers["idempotency-key"] != first.headers["idempotency-key"]

    with at_desk(*acts) as (desk, server):
        submit(desk, path, idempotency_key="mine")
    assert server.asked[-1].headers["idempotency-key"] == "mine"


def test_a_file_that_nothing_was_made_of_is_deleted_again(path: Path) -> None:
    deleted = says(200, {"id": "file_1", "deleted": True})
    with at_desk(MODELS, UPLOADED, refuses(422), deleted) as (desk, server):
        with pytest.raises(ConflictError):
            submit(desk, path)
        desk.tidy()
        desk.tidy()
    assert [(each.method, each.path) for each in server.asked[3:]] == [("DELETE", "/v1/files/file_1")]

    # Whatever became of the batch, its file may be wanted.
    with at_desk(MODELS, UPLOADED, drops) as (desk, server):
        with pytest.raises(ServerUnavailableError) as told:
            submit(desk, path)
        desk.tidy()
    assert server.asked[-1].headers["idempotency-key"] in str(told.value.hint)
    assert "DELETE" not in {each.method for each in server.asked}


def test_a_refused_key_is_told_before_the_file_is_sent(path: Path) -> None:
    with at_desk(refuses(401)) as (desk, server), pytest.raises(RefusedError):
        submit(desk, path)

    assert [each.path for each in server.asked] == ["/v1/models"]


def test_a_large_file_goes_in_parts_of_which_a_broken_one_goes_again(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(infra.remote.uploads, "PART_BYTES", 300_000)
    begun, done = says(200, {"id": "upload_1"}), says(200, {"id": "upload_1", "file": {"id": "file_1"}})
    parts = [says(200, {"id": f"part_{number}"}) for number in range(3)]
    acts = (begun, parts[0], drops, parts[1], parts[2], refuses(503), done, says(200, batch()))

    with at_desk(*acts, parts_from_bytes=len(CONTENT)) as (desk, server):
        submit(desk, path)

    assert json.loads(server.asked[0].body) == {
        "filename": "in.jsonl", "purpose": "batch", "bytes": len(CONTENT), "mime_type": "application/jsonl",
    }  # fmt: skip
    sent = [form(each)["data"][1] for each in server.asked[1:5]]
    assert sent[1] == sent[2]
    assert sent[0] + sent[2] + sent[3] == CONTENT
    assert json.loads(server.asked[6].body) == {"part_ids": ["part_0", "part_1", "part_2"]}


def test_a_server_without_parts_gets_the_file_whole(path: Path) -> None:
    acts = (refuses(404), MODELS, UPLOADED, says(200, batch()))
    with at_desk(*acts, parts_from_bytes=1) as (desk, server):
        submit(desk, path)

    assert [each.path for each in server.asked] == ["/v1/uploads", "/v1/models", "/v1/files", "/v1/batches"]


def test_a_batch_is_returned_once_it_was_read(path: Path) -> None:
    validating = says(200, batch(status="validating", in_progress_at=None))
    with at_desk(MODELS, UPLOADED, validating, validating, drops, says(200, batch())) as (desk, _):
        view, created = submit(desk, path)

    assert (str(created[0].state), str(view.state)) == ("validating", "in_progress")


def test_a_list_is_read_page_by_page() -> None:
    pages = [
        says(200, {"data": [batch(id=f"batch_{page}_{number}") for number in range(100)], "has_more": True})
        for page in range(3)
    ]
    with at_desk(*pages) as (desk, server):
        views = desk.list(limit=230)

    assert len({view.batch_id for view in views}) == 230
    queries = [each.path.partition("?")[2] for each in server.asked]
    assert queries == ["limit=100", "limit=100&after=batch_0_99", "limit=30&after=batch_1_99"]


@pytest.mark.parametrize(
    "answer",
    [
        {},
        batch(status="sleeping"),
        batch(rows=None),
        batch(created_at="yesterday"),
        batch(created_at=10**20),
        batch(cost={"amount": "much", "currency": "EUR"}),
        batch(errors=[1]),
        {name: value for name, value in batch().items() if name != "tenant_id"},
    ],
)
def test_what_is_no_batch_is_told_as_such(answer: dict[str, Any]) -> None:
    with at_desk(says(200, answer)) as (desk, _), pytest.raises(ServerAnswerError, match="no batch"):
        desk.get("batch_1")


@pytest.mark.parametrize("given", ["", "..", "../files", "batch_1/cancel", "batch_1?x", "batch 1", "b" * 129])
def test_what_is_no_id_is_looked_for_nowhere(given: str) -> None:
    with at_desk(MODELS) as (desk, server):
        for ask in (desk.get, desk.cancel, desk.meters, desk.file):
            with pytest.raises(NotFoundError):
                ask(given)
        assert server.asked == []


def test_steering_names_what_changes_and_nothing_else() -> None:
    with at_desk(says(200, batch())) as (desk, server):
        desk.steer("batch_1", Steering(is_paused=True))
        desk.steer("batch_1", Steering(is_paused=False))
        desk.steer("batch_1", Steering(tier=Tier.URGENT, budget_micros=None))
        desk.retry("batch_1", RetryOrder(completion_window="2h"), on_created=lambda _view: None)

    assert [(each.method, each.path.removeprefix("/v1/batches/batch_1"), each.body) for each in server.asked] == [
        ("POST", "/pause", b""),
        ("POST", "/resume", b""),
        ("PATCH", "", b'{"tier": "urgent", "max_cost": null}'),
        ("POST", "/retry", b'{"completion_window": "2h"}'),
    ]


@pytest.mark.parametrize(
    ("text", "micros"), [("0.00", 0), ("1.50", 1_500_000), ("0.000007", 7), ("-0.25", -250_000), ("12", 12_000_000)]
)
def test_amounts_lose_nothing(text: str, micros: int) -> None:
    assert _micros(text) == micros
