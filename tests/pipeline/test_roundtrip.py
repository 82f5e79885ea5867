"""From a file to results and back: the whole path with an engine that answers by formula."""

from __future__ import annotations

import io
import json
import random
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline.domain.objects.part import PartRow, encode_answer, encode_part, error_body
from pipeline.domain.objects.shard import decode_rows
from pipeline.ports.batches import Admitted, PartRef, Rejected, ResultSources
from pipeline.ports.objects import ObjectStore
from pipeline.report import spans
from pipeline.report.assemble import assemble
from pipeline.report.lines import committed_lines, filed_lines
from pipeline.report.merged import merged_lines
from pipeline.submit import reading, spool, writing
from pipeline.submit.intake import take_in
from pipeline.submit.lines import read_lines
from storage.objects import open_store
from tests.pipeline.files import MODELS, admitted, chat, claim_of, line, take
from tests.pipeline.memory import MemoryStore

#: Fields that make a row refused, and ones that make it another request.
VARIANTS: list[dict[str, Any]] = [{}, {"temperature": 0}, {"temperature": 7}, {"max_tokens": 3}, {"tools": [{}]}]
REFUSED: list[dict[str, Any]] = [{"temperature": 7}, {"tools": [{}]}]

requests = st.lists(st.tuples(st.integers(0, 6), st.sampled_from(VARIANTS), st.booleans()), min_size=1, max_size=60)
custom_ids = st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=20)


def answered(outcome: Admitted, objects: ObjectStore, chance: random.Random, *, share: float = 1.0) -> ResultSources:
    """Run a share of the rows on a fake engine, in parts and an order drawn by chance."""
    done: list[tuple[PartRow, bytes]] = []
    for shard in outcome.shards:
        content = objects.read(shard.object_key, sha256=shard.sha256)
        for position, _, body in decode_rows(content, ((0, shard.rows),)):
            if chance.random() >= share:
                continue
            is_success = chance.random() < 0.8
            reply = {"echo": body} if is_success else error_body(json.dumps(body), code=None, param=None)
            row = PartRow(shard.shard_no, position, is_success=is_success)
            done.append((row, encode_answer(200 if is_success else 500, "req_x", reply)))
    chance.shuffle(done)
    parts: list[PartRef] = []
    while done:
        some = [done.pop() for _ in range(min(len(done), chance.randint(1, 12)))]
        key = f"parts/{len(parts)}"
        content = encode_part([row for row, _ in some], [result for _, result in some])
        parts.append(PartRef(object_key=key, sha256=objects.put(key, content).sha256))
    refusals = outcome.refusals
    return ResultSources(
        rosters=tuple(PartRef(object_key=each.object_key, sha256=each.sha256) for each in outcome.rosters),
        shard_rows=tuple(shard.rows for shard in outcome.shards),
        rows_refused=outcome.rows_refused,
        refusals=None if refusals is None else PartRef(object_key=refusals.object_key, sha256=refusals.sha256),
        parts=tuple(parts),
        missing_code="batch_expired",
        missing_message="Too late.",
    )


def lines_of(sources: ResultSources, objects: ObjectStore, folder: Path) -> tuple[list[Any], list[Any], int]:
    """Assemble; return the output's and the error file's rows, and how many were missing."""
    assembled = assemble(claim_of(token=2), sources, objects, spool_folder=folder)
    files = [
        [json.loads(each) for each in objects.read(file.object_key, sha256=file.sha256).splitlines()] if file else []
        for file in (assembled.output, assembled.error)
    ]
    return files[0], files[1], assembled.rows_missing


@pytest.fixture(autouse=True)
def _small_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "read_lines", lambda source, **bounds: read_lines(source, block_bytes=500, **bounds))
    monkeypatch.setattr(spool, "_GATHER_BYTES_MAX", 1500)
    monkeypatch.setattr(spool, "_RELEASE_ROWS", 4)
    monkeypatch.setattr(spans, "_HELD_BYTES_MAX", 900)
    monkeypatch.setattr(writing, "SHARD_ROWS_MAX", 5)
    monkeypatch.setattr(writing, "SHARD_BYTES_MAX", 700)
    monkeypatch.setattr(writing, "ROSTER_ROWS_MAX", 7)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(requests, st.randoms(use_true_random=False), st.sampled_from([1.0, 0.5, 0.0]))
def test_every_request_gets_its_own_result_once_in_input_order(
    asked: list[tuple[int, dict[str, Any], bool]], chance: random.Random, share: float
) -> None:
    objects = MemoryStore()
    bodies = [chat(f"question {n}", **fields) for n, fields, _ in asked]
    content = b"".join(
        b"\r\n" * is_after_blank + line(f"id-{n}", body) + b"\n"
        for n, (body, (_, _, is_after_blank)) in enumerate(zip(bodies, asked, strict=True))
    )
    outcome = admitted(content, objects=objects)
    sources = answered(outcome, objects, chance, share=share)
    with tempfile.TemporaryDirectory() as folder:
        output, error, missing = lines_of(sources, objects, Path(folder))

    for rows in (output, error):
        numbers = [int(row["id"].rpartition("_")[2]) for row in rows]
        assert numbers == sorted(numbers)
    by_id = {row["custom_id"]: row for row in output + error}
    assert len(by_id) == len(output) + len(error) == len(asked) == outcome.rows_total
    for n, body in enumerate(bodies):
        _check(by_id[f"id-{n}"], body)
    assert missing == sum(row["response"] is None for row in error)
    assert outcome.rows_refused == sum(fields in REFUSED for _, fields, _ in asked)
    distinct = {json.dumps(body) for body, (_, fields, _) in zip(bodies, asked, strict=True) if fields not in REFUSED}
    assert sum(shard.rows for shard in outcome.shards) == len(distinct)
    assert outcome.rows_duplicate == len(asked) - outcome.rows_refused - len(distinct)


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(requests, st.randoms(use_true_random=False), st.sampled_from([1.0, 0.5, 0.0]))
def test_results_on_the_way_are_those_of_the_end_in_input_order_and_each_once(
    asked: list[tuple[int, dict[str, Any], bool]], chance: random.Random, share: float
) -> None:
    objects = MemoryStore()
    content = b"".join(
        b" \r\n" * is_after_blank + line(f'id"\\-{n}', chat(f"question {q}", **fields), response="mine") + b"\n"
        for n, (q, fields, is_after_blank) in enumerate(asked)
    )
    sources = answered(admitted(content, objects=objects), objects, chance, share=share)
    with tempfile.TemporaryDirectory() as folder:
        assembled = assemble(claim_of(token=2), sources, objects, spool_folder=Path(folder))
        found = list(committed_lines(claim_of().batch_id, sources, objects, Path(folder)))

    files = [objects.read(each.object_key) for each in (assembled.output, assembled.error) if each]
    filed = list(filed_lines([io.BytesIO(file) for file in files]))
    assert [each.request_no for each in filed] == list(range(1, len(asked) + 1))
    assert sorted(each.line + b"\n" for each in filed) == sorted(b"".join(files).splitlines(keepends=True))
    assert found == [each for each in filed if not each.rest.startswith(b'"response":null')]

    submitted = [json.loads(each) for each in content.splitlines() if each.strip()]
    merged = [json.loads(each) for each in merged_lines(io.BytesIO(content), found)]
    for row, each in zip(merged, found, strict=True):
        ours = {key: value for key, value in json.loads(each.line).items() if key != "custom_id"}
        assert row == submitted[each.request_no - 1] | ours


def _check(row: dict[str, Any], body: dict[str, Any]) -> None:
    if row["response"] is None:
        assert row["error"]["code"] == "batch_expired"
        return
    assert row["error"] is None
    answer = row["response"]["body"]
    match row["response"]["status_code"]:
        case 200:
            assert answer == {"echo": body}
        case 500:
            assert json.loads(answer["error"]["message"]) == body
        case 400:
            assert answer["error"]["param"] in {"body.temperature", "body.tools"}
            assert body.get("temperature") == 7 or "tools" in body
        case other:
            pytest.fail(f"status {other}")


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(custom_ids, min_size=1, max_size=20, unique=True))
def test_custom_ids_come_back_as_they_were(ids: list[str]) -> None:
    objects = MemoryStore()
    outcome = take(b"\n".join(line(each) for each in ids), objects=objects)
    if "" in ids:
        assert isinstance(outcome, Rejected)
        return
    assert isinstance(outcome, Admitted)
    with tempfile.TemporaryDirectory() as folder:
        output, error, _ = lines_of(answered(outcome, objects, random.Random(1)), objects, Path(folder))

    assert [row["custom_id"] for row in output + error] == ids


def test_the_path_holds_on_a_store_on_disk(tmp_path: Path) -> None:
    objects = open_store(f"file://{tmp_path}/objects")
    content = b"".join(line(f"id-{n}", chat(str(n % 40))) + b"\n" for n in range(60))
    (tmp_path / "input").write_bytes(content)
    with (tmp_path / "input").open("rb") as source:
        outcome = take_in(claim_of(), source, objects, models=MODELS, spool_folder=tmp_path / "spool")
    assert isinstance(outcome, Admitted)
    output, error, missing = lines_of(answered(outcome, objects, random.Random(2)), objects, tmp_path / "spool")

    assert (outcome.rows_duplicate, len(output) + len(error), missing) == (20, 60, 0)
    assert list((tmp_path / "spool").iterdir()) == []


# --- arbitrary input ---------------------------------------------------------------------------

_PIECES = st.sampled_from(
    [b"\n", b"\r\n", b"\x00", b"\xff", b"\xef\xbb\xbf", b"{", b"}", b"[", b'"', b"\\", b"\\u0000", b"\\ud800", b"NaN", b"1e999", b"null", b",", b"9" * 30, b'"model":"model-chat",', b"[" * 70]
)  # fmt: skip
_BASE = b"\n".join(line(f"id-{n}", chat(f"question {n}", **VARIANTS[n % 5])) for n in range(5)) + b"\n"


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=400))
def test_any_bytes_are_admitted_or_rejected(content: bytes) -> None:
    _check_outcome(take(content))


@settings(max_examples=600, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.integers(0, len(_BASE)), st.integers(0, 6), _PIECES), min_size=1, max_size=4))
def test_any_change_to_a_good_file_is_admitted_or_rejected(changes: list[tuple[int, int, bytes]]) -> None:
    content = _BASE
    for place, removed, inserted in changes:
        content = content[:place] + inserted + content[place + removed :]
    _check_outcome(take(content))


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**25), 10**25) | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)  # fmt: skip
_FIELDS = st.sampled_from(
    ["model", "messages", "max_tokens", "stop", "stream", "n", "temperature", "metadata", "tools", "x"]
)


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(_JSON, st.dictionaries(_FIELDS, _JSON, max_size=4), _JSON)
def test_any_json_in_any_place_is_admitted_or_rejected(
    custom_id: object, fields: dict[str, Any], beside: object
) -> None:
    _check_outcome(take(line(custom_id, chat() | fields, beside=beside)))
    _check_outcome(take(line("a", chat(messages=[{"role": "user", "content": beside}], **{k: v for k, v in fields.items() if k not in {"model", "messages"}}))))  # fmt: skip


def _check_outcome(outcome: Admitted | Rejected) -> None:
    if isinstance(outcome, Rejected):
        assert outcome.errors_total >= len(outcome.errors) >= 1
        assert all(error.line is None or error.line >= 1 for error in outcome.errors)
    else:
        assert outcome.rows_total >= 1
        assert outcome.rows_total == sum(roster.rows for roster in outcome.rosters)
        run = sum(shard.rows for shard in outcome.shards)
        assert outcome.rows_total == run + outcome.rows_duplicate + outcome.rows_refused
