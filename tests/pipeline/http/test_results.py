"""Results of batches that still run, and of batches that have ended."""

from __future__ import annotations

import asyncio
import hashlib
import io
import json
from collections.abc import Generator, Iterator
from typing import Any

import pytest
from pyarrow import parquet as pq

from pipeline.app.batches import finalize_claimed, take_in_claimed
from pipeline.domain.access import Role
from pipeline.domain.ids import BatchId, WorkerId, new_part_id
from pipeline.domain.lifecycle import AttemptOutcome, BatchState, IntervalKind
from pipeline.domain.objects.part import PartRow, encode_answer, encode_part
from pipeline.entrypoints.http.results import _stream
from pipeline.ports.packs import PartDraft, ShardRows, WorkCommit
from tests.pipeline.http.served import Answer, Served
from tests.pipeline.http.tenants import other_tenant
from tests.storage.world import World, open_world

ROWS = 10


class Run:
    """A batch of ten rows in one shard, whose parts the test commits."""

    def __init__(self, api: Served, world: World) -> None:
        self.api = api
        self.world = world
        self.worker: WorkerId = world.worker()
        lines = [
            {
                "custom_id": f"row-{n}",
                "method": "POST",
                "url": "/v1/chat/completions",
                "body": {"model": "echo", "messages": [{"role": "user", "content": f"q {n}"}]},
            }
            for n in range(ROWS)
        ]
        self.content = b"\n\n".join(json.dumps(line).encode() for line in lines)
        self.file_id = api.upload(self.content).json["id"]
        asked = {"input_file_id": self.file_id, "endpoint": "/v1/chat/completions", "completion_window": "24h"}
        self.batch_id = BatchId(api.ask("POST", "/v1/batches", asked).json["id"])

    def take_in(self) -> None:
        claim = self.api.stack.batches.claim([BatchState.VALIDATING], batch_id=self.batch_id)
        assert claim is not None
        take_in_claimed(self.api.stack, claim)

    def commit(self, start: int, stop: int) -> None:
        (shard_id,) = self.world.shard_ids(self.batch_id)
        self.world.pack((self.batch_id, shard_id, start, stop))
        lease = self.world.lease(self.worker)
        body = {"model": "echo", "choices": [{"message": {"content": "yes"}, "finish_reason": "stop"}]}
        content = encode_part(
            [PartRow(0, position, is_success=True) for position in range(start, stop)],
            [encode_answer(200, f"req_{position}", body) for position in range(start, stop)],
        )
        part_id = new_part_id()
        self.api.stack.objects.put(f"parts/{part_id}", content)
        part = PartDraft(
            part_id=part_id,
            batch_id=self.batch_id,
            object_key=f"parts/{part_id}",
            sha256=hashlib.sha256(content).hexdigest(),
            size_bytes=len(content),
            shards=(
                ShardRows(shard_id=shard_id, ranges=((start, stop),), rows_succeeded=stop - start, rows_errored=0),
            ),
            input_tokens=1,
            output_tokens=1,
        )
        interval = self.world.span(self.worker, IntervalKind.WORK, 1000)
        commit = WorkCommit(pack_id=lease.pack_id, lease_token=lease.lease_token, parts=(part,), interval=interval)
        self.world.packs.commit(self.worker, commit)
        self.world.packs.finish(lease.pack_id, lease.lease_token, AttemptOutcome.SUCCEEDED)

    def end(self) -> None:
        self.world.advance()
        claim = self.api.stack.batches.claim([BatchState.FINALIZING, BatchState.CANCELLING], batch_id=self.batch_id)
        assert claim is not None
        finalize_claimed(self.api.stack, claim)

    def results(self, query: str = "", *, key: str | None = None) -> Answer:
        return self.api.ask("GET", f"/v1/batches/{self.batch_id}/results{query}", key=key)


@pytest.fixture(scope="module")
def world(quiet: Served) -> Iterator[World]:
    url = quiet.stack.settings.database_url
    assert url is not None
    with open_world(url.get_secret_value()) as world:
        yield world


@pytest.fixture
def run(quiet: Served, world: World) -> Run:
    return Run(quiet, world)


def rows_of(answer: Answer) -> list[dict[str, Any]]:
    assert answer.status == 200, answer.content
    return [json.loads(line) for line in answer.content.splitlines()]


def test_results_grow_while_the_batch_runs_and_end_as_its_files(run: Run) -> None:
    assert rows_of(run.results("?partial=true")) == []
    run.take_in()
    seen: list[dict[str, Any]] = []
    for start, stop in ((0, 3), (3, 7), (7, 10)):
        run.commit(start, stop)
        rows = rows_of(run.results("?partial=true"))
        numbers = [int(row["id"].rpartition("_")[2]) for row in rows]
        assert numbers == sorted(set(numbers))
        assert [row for row in rows if row in seen] == seen
        seen = rows
    run.end()

    assert rows_of(run.results()) == rows_of(run.results("?partial=true")) == seen
    batch = run.api.ask("GET", f"/v1/batches/{run.batch_id}").json
    output = run.api.ask("GET", f"/v1/files/{batch['output_file_id']}/content")
    assert output.content == run.results().content
    assert list((run.api.stack.spool_folder).iterdir()) == []


@pytest.mark.parametrize("kind", ["jsonl", "merged", "parquet"])
def test_a_running_batch_has_no_results_unless_partial_ones_are_asked_for(run: Run, kind: str) -> None:
    run.take_in()

    answer = run.results(f"?format={kind}")

    assert (answer.status, answer.headers["x-should-retry"]) == (409, "false")
    assert "in_progress" in answer.error["message"]


def test_rows_that_never_ran_are_among_the_results_of_a_cancelled_batch(run: Run) -> None:
    run.take_in()
    run.commit(0, 4)
    run.api.ask("POST", f"/v1/batches/{run.batch_id}/cancel")
    assert len(rows_of(run.results("?partial=true"))) == 4
    run.end()

    rows = rows_of(run.results())

    assert [row["custom_id"] for row in rows] == [f"row-{n}" for n in range(ROWS)]
    assert sum(row["error"] is not None for row in rows) == 6


def test_merged_results_are_the_lines_of_the_input_with_their_responses(run: Run) -> None:
    run.take_in()
    run.commit(0, 4)

    rows = rows_of(run.results("?format=merged&partial=true"))

    submitted = {row["custom_id"]: row for row in map(json.loads, run.content.split(b"\n\n"))}
    assert len(rows) == 4
    for row in rows:
        assert row["response"]["body"]["choices"][0]["message"]["content"] == "yes"
        assert {key: row[key] for key in ("custom_id", "method", "url", "body")} == submitted[row["custom_id"]]


@pytest.mark.parametrize("is_ended", [False, True])
def test_results_come_as_a_table(run: Run, is_ended: bool) -> None:  # noqa: FBT001 -- a parameter of pytest's
    run.take_in()
    run.commit(0, 10)
    if is_ended:
        run.end()

    answer = run.results("?format=parquet&partial=true")

    assert answer.headers["content-type"] == "application/vnd.apache.parquet"
    table = pq.read_table(io.BytesIO(answer.content))
    assert table["custom_id"].to_pylist() == [f"row-{n}" for n in range(ROWS)]
    assert table["text"].to_pylist() == ["yes"] * ROWS


def test_results_that_were_deleted_are_not_to_be_had_in_any_shape(run: Run) -> None:
    run.take_in()
    run.commit(0, 10)
    run.end()
    batch = run.api.ask("GET", f"/v1/batches/{run.batch_id}").json
    assert run.api.ask("DELETE", f"/v1/files/{run.file_id}").status == 200
    assert [run.results(f"?format={kind}").status for kind in ("jsonl", "merged", "parquet")] == [200, 404, 200]
    assert run.api.ask("DELETE", f"/v1/files/{batch['output_file_id']}").status == 200

    assert [run.results(f"?format={kind}").status for kind in ("jsonl", "merged", "parquet")] == [404] * 3


def test_a_batch_that_failed_has_no_results(run: Run) -> None:
    run.world.execute("UPDATE batches SET endpoint = '/v1/embeddings' WHERE id = :id", id=run.batch_id)
    run.take_in()

    answer = run.results("?partial=true")

    assert (answer.status, "failed" in answer.error["message"]) == (404, True)


def test_who_may_not_read_content_reads_no_results(run: Run) -> None:
    assert run.results("?partial=true", key=run.api.key(Role.ANALYST)).status == 403
    assert run.api.ask("GET", "/v1/batches/batch_nosuch/results").status == 404
    assert run.results("?format=csv").status == 400
    other = run.api.key(tenant_id=other_tenant(run.api.stack))
    assert run.results("?partial=true", key=other).status == 404


def test_a_part_that_is_gone_leaves_its_rows_out(run: Run) -> None:
    run.take_in()
    run.commit(0, 4)
    run.commit(4, 10)
    (lost, *_) = run.api.stack.batches.committed(run.batch_id).parts
    run.api.stack.objects.delete(lost.object_key)

    assert len(rows_of(run.results("?partial=true"))) == 6


def test_what_results_are_read_from_is_closed_when_the_client_leaves() -> None:
    closed: list[bool] = []

    def chunks() -> Generator[bytes]:
        try:
            yield b"a"
            yield b"b"
        finally:
            closed.append(True)

    async def leave() -> bytes:
        source = chunks()
        streamed = _stream(next(source), source)
        read = await anext(streamed)
        await streamed.aclose()
        return read

    assert (asyncio.run(leave()), closed) == (b"a", [True])
