from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest

from pipeline.domain.endpoints import Endpoint
from pipeline.domain.errors import StoreUnavailableError
from pipeline.domain.limits import CUSTOM_ID_CHARS_MAX, LINE_BYTES_MAX, NESTING_MAX, SHARD_BYTES_MAX
from pipeline.domain.objects.part import PartRow, encode_part
from pipeline.domain.objects.shard import decode_rows
from pipeline.ports.batches import Admitted, ShardDraft, Survey
from pipeline.ports.objects import StoredObject
from pipeline.submit import reading, refusals, writing
from pipeline.submit.intake import survey, take_in
from pipeline.submit.lines import read_lines
from tests.pipeline.files import BATCH_HEX, CHAT, ENCODER, MODELS, admitted, chat, claim_of, line, places, rejected
from tests.pipeline.memory import MemoryStore


def joined(lines: list[bytes]) -> bytes:
    return b"".join(each + b"\n" for each in lines)


def rows_of(shard: ShardDraft, objects: MemoryStore) -> list[tuple[int, dict[str, Any]]]:
    """Return (input line, body) of each row of the shard."""
    content = objects.read(shard.object_key, sha256=shard.sha256)
    return [(line_no, body) for _, line_no, body in decode_rows(content, ((0, shard.rows),))]


def all_rows(outcome: Admitted, objects: MemoryStore) -> list[tuple[int, dict[str, Any]]]:
    return [row for shard in outcome.shards for row in rows_of(shard, objects)]


# (what is unusual, the line, the custom id it is known by)
ACCEPTED: list[tuple[str, bytes, str]] = [
    ("carriage return", line("a") + b"\r", "a"),
    ("space around", b" \t" + line("a") + b"  ", "a"),
    ("unknown key", line("a", note="hello", more={"x": [1]}), "a"),
    ("escaped quotes", line('say "hi"', chat('he said "no"')), 'say "hi"'),
    ("quotes spelt in hexadecimal", line("a", chat("x")).replace(b'"x"', rb'"\u0022x\u0022"'), "a"),
    ("a backslash before u0000", line("a", chat(r"C:\u0000")), "a"),
    ("longest custom_id", line("é" * CUSTOM_ID_CHARS_MAX), "é" * CUSTOM_ID_CHARS_MAX),
    ("custom_id with unusual space", line("a\u3000b\u202e"), "a\u3000b\u202e"),
    ("custom_id like a path", line("../../etc/passwd%2e"), "../../etc/passwd%2e"),
    ("emoji as a surrogate pair", line("a", chat("\U0001f600")), "a"),
    ("many brackets, few levels", line("a", chat("x", metadata=[{}] * 200)), "a"),
    ("as deep as allowed", line("a", chat("x", metadata=json.loads("[" * (NESTING_MAX - 2) + "]" * (NESTING_MAX - 2)))), "a"),
    ("stream false", line("a", chat(stream=False)), "a"),
    ("an integer past 64 bits", line("a", chat("x", metadata=10**30)), "a"),
]  # fmt: skip


@pytest.mark.parametrize(("given", "custom_id"), [row[1:] for row in ACCEPTED], ids=[row[0] for row in ACCEPTED])
def test_an_unusual_line_is_accepted_and_its_body_kept(given: bytes, custom_id: str) -> None:
    objects = MemoryStore()
    outcome = admitted(given + b"\n", objects=objects)

    assert (outcome.rows_total, outcome.rows_refused) == (1, 0)
    assert places(outcome, objects) == [(0, 0, custom_id)]
    assert all_rows(outcome, objects) == [(1, json.loads(given, parse_int=_as_orjson)["body"])]


def _as_orjson(digits: str) -> int | float:
    number = int(digits)
    return number if number.bit_length() <= 64 else float(number)


def test_an_integer_past_64_bits_is_the_nearest_double_and_refused_where_an_integer_is_wanted() -> None:
    objects = MemoryStore()
    outcome = admitted(line("a", chat(seed=10**30)), objects=objects)

    assert outcome.rows_refused == 1
    assert outcome.refusals is not None
    assert b'"param":"body.seed"' in objects.read(outcome.refusals.object_key)


def test_blank_lines_are_skipped_and_counted_in_line_numbers() -> None:
    objects = MemoryStore()
    outcome = admitted(b"\r\n" + line("a", chat("a")) + b"\r\n \t\n\n" + line("b", chat("bb")), objects=objects)

    assert outcome.rows_total == 2
    assert [line_no for line_no, _ in all_rows(outcome, objects)] == [2, 5]


def test_a_line_of_the_longest_length_fits() -> None:
    padding = LINE_BYTES_MAX - len(line("a", chat("")))
    objects = MemoryStore()
    outcome = admitted(joined([line(each, chat(each * padding)) for each in ("a", "b", "c")]), objects=objects)

    assert [shard.rows for shard in outcome.shards] == [2, 1]
    assert all(shard.size_bytes <= SHARD_BYTES_MAX for shard in outcome.shards)
    [error] = rejected(line("a", chat("a" * (padding + 1)))).errors
    assert error.code == "line_too_long"


def test_the_same_body_is_run_once_whatever_the_order_of_its_keys() -> None:
    bodies = [
        chat("x", temperature=0.5),
        chat("y"),
        {"temperature": 0.5} | chat("x"),
        chat("x", temperature=0.6),
        chat("y"),
    ]
    objects = MemoryStore()
    outcome = admitted(joined([line(str(n), body) for n, body in enumerate(bodies)]), objects=objects)

    rows = all_rows(outcome, objects)
    found = places(outcome, objects)
    assert (outcome.rows_total, outcome.rows_duplicate, outcome.rows_refused) == (5, 2, 0)
    assert [custom_id for _, _, custom_id in found] == ["0", "1", "2", "3", "4"]
    assert [rows[position][0] for _, position, _ in found] == [1, 2, 1, 4, 2]


def test_the_order_of_a_schemas_keys_is_kept_and_tells_bodies_apart() -> None:
    def asking(*names: str) -> dict[str, Any]:
        schema = {"type": "object", "properties": {name: {"type": "integer"} for name in names}}
        return chat(response_format={"type": "json_schema", "json_schema": {"name": "a", "schema": schema}})

    objects = MemoryStore()
    first, reordered = asking("z", "a"), dict(reversed(list(asking("z", "a").items())))
    lines = [line("1", first), line("2", asking("a", "z")), line("3", reordered)]

    outcome = admitted(joined(lines), objects=objects)

    asked = [body["response_format"]["json_schema"]["schema"] for _, body in all_rows(outcome, objects)]
    assert sorted(list(schema["properties"]) for schema in asked) == [["a", "z"], ["z", "a"]]
    places_by_id = {custom_id: place for *place, custom_id in places(outcome, objects)}
    assert places_by_id["1"] == places_by_id["3"] != places_by_id["2"]


def test_what_no_engine_honours_is_refused_as_a_row_and_the_batch_goes_on() -> None:
    objects = MemoryStore()
    lines = [
        line("a", chat("a")),
        b"",
        line("b", chat("b", temperature=9)),
        line("c", chat("c", tools=[{}])),
        line("d"),
    ]
    outcome = admitted(joined(lines), objects=objects)

    assert (outcome.rows_total, outcome.rows_refused) == (4, 2)
    assert sum(shard.rows for shard in outcome.shards) == 2
    assert [place[:2] for place in places(outcome, objects)][1:3] == [(-1, 0), (-1, 1)]
    assert outcome.refusals is not None
    assert outcome.refusals.rows == 2
    first, *answers = objects.read(outcome.refusals.object_key, sha256=outcome.refusals.sha256).splitlines()
    assert json.loads(first) == {"rows": [[-1, 0, 0], [-1, 1, 0]]}
    assert [json.loads(answer)["response"]["request_id"] for answer in answers] == [
        f"req_{BATCH_HEX}_3",
        f"req_{BATCH_HEX}_4",
    ]
    assert json.loads(answers[0])["response"]["status_code"] == 400
    assert json.loads(answers[0])["response"]["body"]["error"]["param"] == "body.temperature"
    assert json.loads(answers[0])["error"] is None


def test_the_refusals_part_is_a_part_like_any_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(refusals, "_HEADER_ROWS_AT_ONCE", 2)
    objects = MemoryStore()
    outcome = admitted(joined([line(str(n), chat(temperature=9)) for n in range(5)]), objects=objects)

    assert outcome.refusals is not None
    assert outcome.shards == ()
    content = objects.read(outcome.refusals.object_key)
    rows = [PartRow(-1, position, is_success=False) for position in range(5)]
    assert content == encode_part(rows, content.splitlines()[1:])


def test_rows_that_share_a_prefix_stand_together_and_the_others_by_length() -> None:
    def asked(system: str, user: str) -> dict[str, Any]:
        return {"model": CHAT, "messages": [{"role": "system", "content": system}, {"role": "user", "content": user}]}

    bodies = [asked(f"You are {n % 3}. " * 20, f"question {n}") for n in range(30)]
    lonely = [asked(f"{n} alone", "x" * (50 - n)) for n in range(10)]
    mixed = [body for pair in zip(bodies, lonely + [chat(str(n)) for n in range(20)], strict=True) for body in pair]
    objects = MemoryStore()
    # The blank lines make all line numbers, which are part of a row's length, equally long.
    outcome = admitted(b"\n" * 99 + joined([line(str(n), body) for n, body in enumerate(mixed)]), objects=objects)

    rows = [body["messages"] for _, body in all_rows(outcome, objects)]
    systems = [messages[0]["content"] for messages in rows]
    for n in range(3):
        at = [place for place, system in enumerate(systems) if system == f"You are {n}. " * 20]
        assert at == list(range(at[0], at[0] + 10))
    alone = [len(json.dumps(messages)) for messages in rows if "You are" not in messages[0]["content"]]
    assert alone == sorted(alone)


def test_shards_and_rosters_keep_their_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writing, "SHARD_ROWS_MAX", 7)
    monkeypatch.setattr(writing, "SHARD_BYTES_MAX", 900)
    monkeypatch.setattr(writing, "ROSTER_ROWS_MAX", 10)
    objects = MemoryStore()
    outcome = admitted(joined([line(str(n), chat("x" * (n * 5))) for n in range(35)]), objects=objects)

    assert all(1 <= shard.rows <= 7 and shard.size_bytes <= 900 for shard in outcome.shards)
    assert {shard.rows for shard in outcome.shards} > {7}
    assert [shard.shard_no for shard in outcome.shards] == list(range(len(outcome.shards)))
    assert [roster.rows for roster in outcome.rosters] == [10, 10, 10, 5]
    by_place = {
        (shard.shard_no, position): row
        for shard in outcome.shards
        for position, row in enumerate(rows_of(shard, objects))
    }
    found = places(outcome, objects)
    assert [custom_id for _, _, custom_id in found] == [str(n) for n in range(35)]
    assert [by_place[shard_no, position][0] for shard_no, position, _ in found] == list(range(1, 36))


def test_estimates_add_up_over_the_rows_of_a_shard() -> None:
    objects = MemoryStore()
    bodies = [chat("a", max_tokens=5), chat("b", max_completion_tokens=7), chat("c"), chat("d", max_tokens=None)]
    outcome = admitted(joined([line(str(n), body) for n, body in enumerate(bodies)]), objects=objects)

    [shard] = outcome.shards
    assert shard.output_tokens == 5 + 7 + 256 + 256
    lengths = [len(row) + 1 for row in objects.read(shard.object_key).splitlines()]
    assert shard.input_tokens == sum(length // 4 for length in lengths)
    assert (shard.model, shard.size_bytes) == (CHAT, sum(lengths))


def test_embeddings_have_no_output_tokens() -> None:
    body = {"model": ENCODER, "input": ["hello", "you"]}
    outcome = admitted(line(url="/v1/embeddings", body=body), endpoint=Endpoint.EMBEDDINGS)

    assert outcome.shards[0].output_tokens == 0
    assert outcome.shards[0].input_tokens > 0


def test_a_second_intake_under_the_same_claim_meets_its_own_objects() -> None:
    objects = MemoryStore()
    content = joined([line(str(n), chat(str(n % 50), temperature=n % 4)) for n in range(100)])

    first = admitted(content, objects=objects)
    assert admitted(content, objects=objects) == first
    assert all(f"/{claim_of().claim_token}-" in key or "intake-1" in key for key in objects.contents)


def test_a_rejected_batch_wrote_nothing() -> None:
    objects = MemoryStore()
    rejected(joined([line("a"), line("b", chat(temperature=9)), b"{"]), objects=objects)

    assert objects.contents == {}


def test_progress_never_goes_back_and_shows_life_while_writing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "PROGRESS_ROWS", 100)
    monkeypatch.setattr(writing, "SHARD_ROWS_MAX", 1000)
    seen: list[int] = []
    content = joined([line(str(n), chat(str(n))) for n in range(5000)])
    take_in(
        claim_of(), io.BytesIO(content), MemoryStore(), models=MODELS, spool_folder=tmp_path, on_progress=seen.append
    )

    assert seen == sorted(seen)
    assert seen[0] < 5000
    assert seen[-5:] == [5000] * 5


class BrokenStore(MemoryStore):
    """A store that fails on its third put."""

    def put(self, key: str, content: bytes | memoryview | Path) -> StoredObject:
        if len(self.contents) == 2:
            raise StoreUnavailableError
        return super().put(key, content)


def test_a_failing_store_raises_and_leaves_no_spool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writing, "SHARD_ROWS_MAX", 10)
    content = joined([line(str(n), chat(str(n))) for n in range(200)])

    with pytest.raises(StoreUnavailableError):
        take_in(claim_of(), io.BytesIO(content), BrokenStore(), models=MODELS, spool_folder=tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_failing_source_raises_and_leaves_no_spool(tmp_path: Path) -> None:
    class Failing(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            block = super().read(size)
            if not block:
                raise OSError
            return block

    with pytest.raises(OSError):  # noqa: PT011  # whatever the source raises
        take_in(claim_of(), Failing(line() * 9), MemoryStore(), models=MODELS, spool_folder=tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def _small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "read_lines", lambda source, **bounds: read_lines(source, block_bytes=64, **bounds))


@pytest.mark.usefixtures("_small_blocks")
def test_lines_across_blocks_are_the_same_lines() -> None:
    objects = MemoryStore()
    outcome = admitted(joined([line(f"id-{n}", chat("x" * n)) for n in range(300)]), objects=objects)

    assert [custom_id for _, _, custom_id in places(outcome, objects)] == [f"id-{n}" for n in range(300)]


def test_an_image_counts_as_one_and_not_as_the_letters_it_is_written_in() -> None:
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64," + "A" * 100_000}}
    by_url = {"type": "image_url", "image_url": {"url": "https://images.example/a.png"}}
    bodies: list[dict[str, object]] = [
        {"model": ENCODER, "input": [image, by_url]},
        {"model": ENCODER, "messages": [{"role": "user", "content": [image]}]},
    ]
    content = joined([line(str(n), body, url="/v1/embeddings") for n, body in enumerate(bodies)])

    [shard] = admitted(content, endpoint=Endpoint.EMBEDDINGS).shards

    assert 3 * 256 < shard.input_tokens < 3 * 256 + 200


def test_a_survey_expects_what_intake_then_writes_and_writes_nothing(tmp_path: Path) -> None:
    system = "Say what you are told in one word. " * 4
    content = joined([line(f"r{n}", chat(f"{system} {n % 40}")) for n in range(50)])

    found = survey(io.BytesIO(content), Endpoint.CHAT_COMPLETIONS, models=MODELS, spool_folder=tmp_path)
    taken_in = admitted(content)

    assert isinstance(found, Survey)
    assert [(each.rows, each.input_tokens, each.output_tokens, each.template) for each in found.shards] == [
        (each.rows, each.input_tokens, each.output_tokens, each.template) for each in taken_in.shards
    ]
    assert (found.rows_total, found.rows_duplicate) == (50, 10)
    assert found.shards[0].template
    assert list(tmp_path.iterdir()) == []


def test_a_survey_of_bad_lines_says_what_intake_says(tmp_path: Path) -> None:
    content = joined([b"{", line("r1")])

    assert survey(io.BytesIO(content), Endpoint.CHAT_COMPLETIONS, models=MODELS, spool_folder=tmp_path) == rejected(
        content
    )
