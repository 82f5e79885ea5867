"""Measures intake and assembly: `python tests/bench/bench_intake.py --rows 1000000`, one JSON document out.

Lines are chat requests of about 400 bytes with one of 64 system prompts; each hundredth repeats an earlier
body and each thousandth asks for what no engine here honours. The generator is seeded, so runs compare.
"""

from __future__ import annotations

import argparse
import json
import random
import resource
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import orjson

from pipeline.domain.endpoints import Endpoint
from pipeline.domain.ids import DEFAULT_PROJECT, BatchId, TenantId
from pipeline.domain.lifecycle import BatchState
from pipeline.domain.objects.part import PartRow, encode_answer, encode_part
from pipeline.domain.objects.shard import encode_row
from pipeline.domain.parameters import check_body
from pipeline.ports.batches import Admitted, BatchClaim, PartRef, ResultSources
from pipeline.ports.objects import ObjectStore
from pipeline.report.assemble import assemble
from pipeline.submit.envelope import EnvelopeChecker
from pipeline.submit.fingerprint import digests
from pipeline.submit.intake import take_in
from pipeline.submit.prefixes import levels_of
from storage.objects import open_store

MODEL = "smollm2-135m"
MODELS = {MODEL: frozenset({Endpoint.CHAT_COMPLETIONS})}
WORDS = [
    "night",
    "rate",
    "batch",
    "token",
    "shard",
    "pack",
    "lease",
    "worker",
    "price",
    "river",
    "order",
    "return",
    "parcel",
]
ROWS_PER_PART = 2048


def lines(rows: int, seed: int = 7) -> Iterator[bytes]:
    """Yield `rows` input lines, newline included."""
    chance = random.Random(seed)
    systems = [" ".join(chance.choices(WORDS, k=12)) + "." for _ in range(64)]
    body: dict[str, Any] = {}
    for row in range(rows):
        if row % 100 or not body:
            user = " ".join(chance.choices(WORDS, k=18)) + "\n" + str(row)
            body = {
                "model": MODEL,
                "messages": [
                    {"role": "system", "content": chance.choice(systems)},
                    {"role": "user", "content": user},
                ],
                "max_tokens": 64,
                "temperature": 0.0,
            }
            if row % 1000 == 999:
                body["temperature"] = 9
        line = {
            "custom_id": f"request-{row:08d}",
            "method": "POST",
            "url": Endpoint.CHAT_COMPLETIONS.value,
            "body": body,
        }
        # json.dumps and not orjson: its spaces are what most users' files have.
        yield json.dumps(line).encode() + b"\n"


def claim_of(token: int) -> BatchClaim:
    """Return the claim that everything here is done under."""
    return BatchClaim(
        tenant_id=TenantId("tnt_bench"),
        batch_id=BatchId("batch_01920000000070008000000000000000"),
        claim_token=token,
        failures=0,
        state=BatchState.VALIDATING,
        endpoint=Endpoint.CHAT_COMPLETIONS,
        project_id=DEFAULT_PROJECT,
        input_file_id="",
        source=None,
        output_kept_seconds=None,
    )


def answer_all(claim: BatchClaim, admitted: Admitted, objects: ObjectStore) -> ResultSources:
    """Write parts with an answer of about 450 bytes to every row, in a seeded random order over the shards."""
    rows = np.concatenate(
        [np.stack([np.full(shard.rows, shard.shard_no), np.arange(shard.rows)], axis=1) for shard in admitted.shards]
    )
    np.random.default_rng(7).shuffle(rows)
    parts = []
    for part_no, start in enumerate(range(0, len(rows), ROWS_PER_PART)):
        headers, answers = [], []
        for shard_no, position in rows[start : start + ROWS_PER_PART].tolist():
            headers.append(PartRow(shard_no, position, is_success=True))
            answers.append(encode_answer(200, f"req_{shard_no}_{position}", answer_to(shard_no, position)))
        key = f"tenants/{claim.tenant_id}/batches/{claim.batch_id}/parts/bench-{part_no}.jsonl"
        stored = objects.put(key, encode_part(headers, answers))
        parts.append(PartRef(object_key=key, sha256=stored.sha256))
    return ResultSources(
        rosters=tuple(PartRef(object_key=each.object_key, sha256=each.sha256) for each in admitted.rosters),
        shard_rows=tuple(shard.rows for shard in admitted.shards),
        rows_refused=admitted.rows_refused,
        refusals=None
        if admitted.refusals is None
        else PartRef(object_key=admitted.refusals.object_key, sha256=admitted.refusals.sha256),
        parts=tuple(parts),
        missing_code="batch_expired",
        missing_message="This request could not be executed before the completion window expired.",
    )


def answer_to(shard_no: int, position: int) -> dict[str, Any]:
    """Return a chat completion."""
    message = {"role": "assistant", "content": f"answer {shard_no} {position} " + "word " * 20}
    return {
        "id": f"chatcmpl-{shard_no}-{position}",
        "object": "chat.completion",
        "created": 1792000000,
        "model": MODEL,
        "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 60, "completion_tokens": 20, "total_tokens": 80},
    }


def breakdown(sample: list[bytes]) -> dict[str, float]:
    """Return microseconds a row of each step of the pass over the input, alone, over `sample`."""
    checker = EnvelopeChecker(Endpoint.CHAT_COMPLETIONS, MODELS)
    checked = [checker.check(line) for line in sample]
    levels = levels_of(Endpoint.CHAT_COMPLETIONS)
    good = [body for _, body, _ in checked if body["temperature"] == 0]
    steps: dict[str, tuple[Callable[[Any], object], list[Any]]] = {
        "orjson_loads": (orjson.loads, sample),
        "envelope_check_with_loads": (EnvelopeChecker(Endpoint.CHAT_COMPLETIONS, MODELS).check, sample),
        "check_body": (lambda body: check_body(Endpoint.CHAT_COMPLETIONS, body), good),
        "fingerprint": (lambda row: digests([row[2]]), checked),
        "levels": (levels, good),
        "encode_row": (lambda row: encode_row(1, row[2]), checked),
        "custom_id_digest": (lambda row: digests([row[0].encode()]), checked),
    }
    found = {}
    for name, (step, values) in steps.items():
        started = time.process_time()
        for value in values:
            step(value)
        found[name] = round((time.process_time() - started) / len(values) * 1e6, 2)
    return found


def figures_of(rows: int, seconds: float, cpu_seconds: float) -> dict[str, float]:
    """Return the rates; those by processor time stay comparable when the machine is shared."""
    return {
        "seconds": round(seconds, 2),
        "rows_per_second": round(rows / seconds),
        "us_per_row": round(seconds / rows * 1e6, 2),
        "cpu_seconds": round(cpu_seconds, 2),
        "rows_per_cpu_second": round(rows / cpu_seconds),
    }


def peak_mib() -> float:
    """Return the most memory this process has had resident."""
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1)


def main() -> None:
    """Generate, take in, answer, assemble; print the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--folder", type=Path, default=None, help="where to work; default a temporary folder")
    parser.add_argument("--skip-assemble", action="store_true")
    options = parser.parse_args()
    figures: dict[str, Any] = {"rows": options.rows}
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        folder = Path(name)
        objects = open_store(f"file://{folder}/objects")
        with (folder / "input.jsonl").open("wb") as file:
            file.writelines(lines(options.rows))
            figures["bytes_per_line"] = round(file.tell() / options.rows, 1)
        marks: list[tuple[int, float]] = []
        claim = claim_of(1)
        figures["rss_before_mib"] = peak_mib()
        with (folder / "input.jsonl").open("rb") as source:
            started, started_cpu = time.perf_counter(), time.process_time()
            admitted = take_in(
                claim,
                source,
                objects,
                models=MODELS,
                spool_folder=folder / "spool",
                on_progress=lambda rows: marks.append((rows, time.perf_counter())),
            )
            seconds, cpu_seconds = time.perf_counter() - started, time.process_time() - started_cpu
        if not isinstance(admitted, Admitted):
            sys.exit(str(admitted))
        reading = [(rows, at) for rows, at in marks if marks.index((rows, at)) == 0 or rows > marks[0][0]]
        figures["intake"] = {
            **figures_of(options.rows, seconds, cpu_seconds),
            "peak_rss_mib": peak_mib(),
            "shards": len(admitted.shards),
            "rows_duplicate": admitted.rows_duplicate,
            "rows_refused": admitted.rows_refused,
            "us_per_row_reading": round((reading[0][1] - started) / reading[0][0] * 1e6, 2) if reading else None,
        }
        figures["us_per_row_by_step"] = breakdown([line.rstrip() for line in islice(lines(20_000), 20_000)])
        if not options.skip_assemble:
            sources = answer_all(claim, admitted, objects)
            figures["rss_before_assemble_mib"] = peak_mib()
            started, started_cpu = time.perf_counter(), time.process_time()
            assembled = assemble(claim_of(2), sources, objects, spool_folder=folder / "spool")
            seconds, cpu_seconds = time.perf_counter() - started, time.process_time() - started_cpu
            figures["assemble"] = {
                **figures_of(options.rows, seconds, cpu_seconds),
                "peak_rss_mib": peak_mib(),
                "output_rows": assembled.output.rows if assembled.output else 0,
                "error_rows": assembled.error.rows if assembled.error else 0,
                "rows_missing": assembled.rows_missing,
            }
    sys.stdout.write(json.dumps(figures, indent=2) + "\n")


if __name__ == "__main__":
    main()
