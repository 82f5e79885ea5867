from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pipeline.domain.errors import NightrateError, ObjectCorruptError, ObjectMissingError
from pipeline.domain.objects.part import PartRow, encode_answer, encode_part, encode_unanswered, error_body
from pipeline.domain.objects.roster import encode_roster
from pipeline.ports.batches import Assembled, PartRef, ResultFile, ResultSources
from pipeline.report import assemble as assemble_module
from pipeline.report import header as header_module
from pipeline.report import spans
from pipeline.report.assemble import RowsOf, assemble
from tests.pipeline.files import BATCH_HEX, claim_of
from tests.pipeline.memory import MemoryStore

Row = tuple[int, int, bool]


class Batch:
    """A batch of two shards, of 3 and 2 rows, and the objects it left."""

    def __init__(self) -> None:
        self.objects = MemoryStore()
        self.parts: list[PartRef] = []
        self.rosters: list[PartRef] = []
        self.refusals: PartRef | None = None
        self.rows_refused = 0

    def put(self, key: str, content: bytes) -> PartRef:
        return PartRef(object_key=key, sha256=self.objects.put(key, content).sha256)

    def roster(self, *rows: tuple[int, int, str]) -> None:
        content = encode_roster(
            (shard_no, position, json.dumps(custom_id).encode()) for shard_no, position, custom_id in rows
        )
        self.rosters.append(self.put(f"roster-{len(self.rosters)}", content))

    def part(self, *rows: Row, lines: Sequence[bytes] | None = None) -> None:
        self.parts.append(self.put(f"part-{len(self.parts)}", encode(rows, lines)))

    def refuse(self, rows: int) -> None:
        self.rows_refused = rows
        self.refusals = self.put("refusals", encode([(-1, position, False) for position in range(rows)], None))

    def assemble(self, folder: Path, *, rows_of_lost: RowsOf | None = None) -> Assembled:
        sources = ResultSources(
            rosters=tuple(self.rosters),
            shard_rows=(3, 2),
            rows_refused=self.rows_refused,
            refusals=self.refusals,
            parts=tuple(self.parts),
            missing_code="batch_expired",
            missing_message="Too late.",
        )
        assembled = assemble(claim_of(token=7), sources, self.objects, spool_folder=folder, rows_of_lost=rows_of_lost)
        assert list(folder.iterdir()) == [], "the spool is emptied"
        return assembled

    def rows(self, file: ResultFile | None) -> list[dict[str, Any]]:
        assert file is not None
        content = self.objects.read(file.object_key, sha256=file.sha256)
        assert len(content) == file.size_bytes
        found = [json.loads(line) for line in content.splitlines()]
        assert len(found) == file.rows
        return found


def encode(rows: Sequence[Row], lines: Sequence[bytes] | None) -> bytes:
    part_rows = [PartRow(shard_no, position, is_success=is_success) for shard_no, position, is_success in rows]
    return encode_part(part_rows, [answer(*row) for row in rows] if lines is None else lines)


def answer(shard_no: int, position: int, is_success: bool) -> bytes:  # noqa: FBT001  # a row's column
    body: Mapping[str, Any] = {"at": [shard_no, position]} if is_success else error_body("no", code=None, param=None)
    return encode_answer(200 if is_success else 400, f"req_{shard_no}_{position}", body)


@pytest.fixture
def batch() -> Batch:
    return Batch()


def test_each_row_gets_its_result_in_input_order_under_its_own_id(batch: Batch, tmp_path: Path) -> None:
    batch.roster((1, 1, "a"), (0, 0, 'b "é"'), (-1, 0, "c"))
    batch.roster((1, 1, "d"), (0, 2, "e"), (0, 1, "f"), (1, 0, "g"))
    batch.part((0, 2, True), (1, 1, True))
    batch.part((0, 1, False), (0, 0, True))
    batch.refuse(1)

    assembled = batch.assemble(tmp_path)

    output, error = batch.rows(assembled.output), batch.rows(assembled.error)
    assert [(row["id"], row["custom_id"]) for row in output] == [
        (f"batch_req_{BATCH_HEX}_1", "a"),
        (f"batch_req_{BATCH_HEX}_2", 'b "é"'),
        (f"batch_req_{BATCH_HEX}_4", "d"),
        (f"batch_req_{BATCH_HEX}_5", "e"),
    ]
    assert [row["response"]["body"]["at"] for row in output] == [[1, 1], [0, 0], [1, 1], [0, 2]]
    assert [(row["id"].rpartition("_")[2], row["custom_id"]) for row in error] == [("3", "c"), ("6", "f"), ("7", "g")]
    assert error[2] == {
        "id": f"batch_req_{BATCH_HEX}_7",
        "custom_id": "g",
        "response": None,
        "error": {"code": "batch_expired", "message": "Too late."},
    }
    assert assembled.rows_missing == 1


def test_a_line_is_written_as_the_contract_says(batch: Batch, tmp_path: Path) -> None:
    batch.roster((0, 0, "x"))
    batch.part((0, 0, True))

    output = batch.assemble(tmp_path).output
    assert output is not None
    wanted = b'{"id":"batch_req_%b_1","custom_id":"x",%b\n' % (BATCH_HEX.encode(), answer(0, 0, is_success=True)[1:])
    assert batch.objects.read(output.object_key) == wanted
    assert output.object_key.endswith("/results/7-output.jsonl")


def test_a_file_without_rows_is_not_written(batch: Batch, tmp_path: Path) -> None:
    batch.roster((0, 0, "x"))
    batch.part((0, 0, True))
    assert batch.assemble(tmp_path).error is None

    batch.parts.clear()
    other = replace(claim_of(), claim_token=8)
    sources = ResultSources(
        rosters=tuple(batch.rosters),
        shard_rows=(3, 2),
        rows_refused=0,
        refusals=None,
        parts=(),
        missing_code="c",
        missing_message="m",
    )
    assembled = assemble(other, sources, batch.objects, spool_folder=tmp_path)
    assert (assembled.output, assembled.rows_missing) == (None, 1)
    assert batch.rows(assembled.error)[0]["error"] == {"code": "c", "message": "m"}
    assert not [key for key in batch.objects.contents if key.endswith("8-output.jsonl")]


def test_a_batch_without_rows_writes_no_file(batch: Batch, tmp_path: Path) -> None:
    assert batch.assemble(tmp_path) == Assembled(output=None, error=None, rows_missing=0)


def test_assembling_again_under_the_same_claim_meets_its_own_files(batch: Batch, tmp_path: Path) -> None:
    batch.roster((0, 0, "x"), (0, 1, "y"))
    batch.part((0, 0, True))

    assert batch.assemble(tmp_path) == batch.assemble(tmp_path)


def test_a_header_in_several_chunks_is_the_same_header(
    batch: Batch, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(header_module, "_CHUNK_BYTES", 10)
    monkeypatch.setattr(spans, "_HELD_BYTES_MAX", 1000)
    monkeypatch.setattr(spans, "_ROWS_AT_ONCE", 2)
    monkeypatch.setattr(assemble_module, "_ROWS_AT_ONCE", 3)
    batch.refuse(100)
    batch.roster(*((-1, position, str(position)) for position in range(100)))

    error = batch.rows(batch.assemble(tmp_path).error)
    assert [row["response"]["request_id"] for row in error] == [f"req_-1_{n}" for n in range(100)]


def two_parts(batch: Batch) -> str:
    batch.part((0, 1, True), (0, 0, True))
    batch.part((1, 0, True), (0, 1, True))
    return r"two results for shard 0, position 1: in 'part-0' and in 'part-1'"


def twice_in_one_part(batch: Batch) -> str:
    batch.part((0, 1, True), (1, 0, True), (0, 1, True))
    return r"two results for shard 0, position 1: in 'part-0' and in 'part-0'"


def unknown_shard(batch: Batch) -> str:
    batch.part((0, 0, True), (2, 0, True))
    return r"'part-0' names a row that does not exist: shard 2, position 0"


def unknown_position(batch: Batch) -> str:
    batch.part((0, 3, True))
    return r"'part-0' names a row that does not exist: shard 0, position 3"


def negative_position(batch: Batch) -> str:
    batch.part((0, -1, True))
    return r"shard 0, position -1"


def refused_row_in_a_part(batch: Batch) -> str:
    batch.refuse(1)
    batch.part((-1, 0, True))
    return r"part 'part-0' names rows that were refused at intake"


def refusals_with_other_rows(batch: Batch) -> str:
    batch.refusals = batch.put("refusals", encode([(0, 0, False)], None))
    return r"refusals 'refusals' name rows other than the refused ones"


def roster_of_unknown_rows(batch: Batch) -> str:
    batch.roster((1, 2, "x"))
    return r"'roster-0' names a row that does not exist: shard 1, position 2"


def roster_of_missing_refusals(batch: Batch) -> str:
    batch.roster((-1, 0, "x"))
    return r"'roster-0' names a row that does not exist: shard -1, position 0"


def roster_of_nonsense(batch: Batch) -> str:
    batch.rosters.append(batch.put("roster-x", b"0 zero\n"))
    return r"roster 'roster-x' has a line that makes no sense"


def no_header(batch: Batch) -> str:
    batch.parts.append(batch.put("part-x", b'{"row'))
    return r"part 'part-x' has no header"


def nonsense_header(batch: Batch) -> str:
    batch.parts.append(batch.put("part-x", b'{"rows":[[1,2,"x"]]}\nx\n'))
    return r"part 'part-x' has a header that makes no sense"


def other_content(batch: Batch) -> str:
    batch.part((0, 0, True))
    batch.objects.contents["part-0"] += b" "
    return "part-0"


def other_roster(batch: Batch) -> str:
    batch.roster((0, 0, "x"))
    batch.objects.contents["roster-0"] = b'0 0 "y"\n'
    return "roster-0"


CONTRADICTIONS = [
    two_parts,
    twice_in_one_part,
    unknown_shard,
    unknown_position,
    negative_position,
    refused_row_in_a_part,
    refusals_with_other_rows,
    roster_of_unknown_rows,
    roster_of_missing_refusals,
    roster_of_nonsense,
    no_header,
    nonsense_header,
    other_content,
    other_roster,
]


@pytest.mark.parametrize("contradict", CONTRADICTIONS, ids=lambda each: each.__name__)
def test_a_contradiction_is_an_error_that_says_where(
    contradict: Callable[[Batch], str], batch: Batch, tmp_path: Path
) -> None:
    where = contradict(batch)

    with pytest.raises(ObjectCorruptError, match=where):
        batch.assemble(tmp_path)
    assert list(tmp_path.iterdir()) == []
    assert not [key for key in batch.objects.contents if "/results/" in key]


@pytest.mark.parametrize("lines", [[], [b"{}"], [b"{}", b"{}", b"{}"]])
def test_a_part_has_a_line_for_each_row(lines: list[bytes], batch: Batch, tmp_path: Path) -> None:
    rows = encode([(0, 0, True), (0, 1, True)], None).splitlines(keepends=True)[0]
    batch.parts.append(batch.put("part-x", rows + b"".join(line + b"\n" for line in lines)))

    with pytest.raises(ObjectCorruptError, match=f"part 'part-x' has {len(lines)} results for 2 rows"):
        batch.assemble(tmp_path)


def test_an_absent_part_is_an_error(batch: Batch, tmp_path: Path) -> None:
    batch.parts.append(PartRef(object_key="nowhere", sha256="0" * 64))

    with pytest.raises(NightrateError, match="nowhere"):
        batch.assemble(tmp_path)


def test_an_unanswered_result_in_a_part_keeps_its_own_reason(batch: Batch, tmp_path: Path) -> None:
    batch.roster((0, 0, "x"))
    batch.part((0, 0, False), lines=[encode_unanswered("request_timeout", "It took too long.")])

    assembled = batch.assemble(tmp_path)
    assert batch.rows(assembled.error)[0]["error"]["code"] == "request_timeout"
    assert assembled.rows_missing == 0


@pytest.mark.parametrize("is_damaged", [True, False], ids=["damaged", "missing"])
def test_rows_of_a_lost_part_are_said_to_be_lost_and_the_others_have_their_results(
    batch: Batch, tmp_path: Path, *, is_damaged: bool
) -> None:
    batch.roster((0, 0, "a"), (0, 1, "b"), (0, 2, "c"), (1, 0, "d"), (1, 1, "e"))
    batch.part((0, 0, True), (1, 1, True))
    batch.part((0, 1, True), (0, 2, True))
    if is_damaged:
        batch.objects.contents["part-1"] += b" "
    else:
        batch.objects.delete("part-1")

    with pytest.raises((ObjectCorruptError, ObjectMissingError)):
        batch.assemble(tmp_path)
    assembled = batch.assemble(tmp_path, rows_of_lost={batch.parts[1]: [(0, ((1, 3),))]}.__getitem__)

    assert [row["custom_id"] for row in batch.rows(assembled.output)] == ["a", "e"]
    error = batch.rows(assembled.error)
    assert [(row["custom_id"], row["error"]["code"]) for row in error] == [
        ("b", "result_lost"),
        ("c", "result_lost"),
        ("d", "batch_expired"),
    ]
    assert assembled.rows_missing == 1, "a row that ran and was lost is not one that never ran"


def test_the_answers_of_refused_rows_can_be_lost_too(batch: Batch, tmp_path: Path) -> None:
    batch.refuse(2)
    batch.roster((-1, 0, "a"), (0, 0, "b"), (-1, 1, "c"))
    batch.part((0, 0, True))
    batch.objects.delete("refusals")

    assembled = batch.assemble(tmp_path, rows_of_lost=lambda _: [])

    assert [row["custom_id"] for row in batch.rows(assembled.output)] == ["b"]
    assert [row["error"]["code"] for row in batch.rows(assembled.error)] == ["result_lost"] * 2


def test_without_its_rosters_a_batch_has_no_files(batch: Batch, tmp_path: Path) -> None:
    batch.roster((0, 0, "a"))
    batch.objects.delete("roster-0")

    with pytest.raises(ObjectMissingError, match="roster-0"):
        batch.assemble(tmp_path, rows_of_lost=lambda _: [])
