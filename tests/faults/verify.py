"""The verdict: what must hold of database and objects once a run has ended, whatever struck it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any

import orjson
from sqlalchemy import text

from pipeline.app.stack import Stack
from pipeline.domain.errors import NightrateError
from pipeline.domain.lifecycle import BatchState
from pipeline.domain.money import metered_cost_micros
from pipeline.ports.batches import BatchView

_SHOWN_MAX = 5

#: Each finds rows that must not be there; `{}` when all is well.
_NEVER: Mapping[str, str] = {
    "pack not ended": "SELECT id, state FROM packs WHERE state NOT IN ('committed', 'discarded')",
    "lease without an end": "SELECT id FROM packs WHERE lease_expires_at IS NOT NULL OR lease_worker_id IS NOT NULL",
    "attempt without an end": "SELECT pack_id, lease_token FROM attempts WHERE outcome IS NULL",
    "batch stuck": "SELECT id, state FROM batches WHERE state NOT IN ('completed', 'failed', 'expired', 'cancelled')",
    "claim left over": "SELECT id, state FROM batches WHERE state = 'completed' AND claim_expires_at IS NOT NULL",
    "shard not done": "SELECT id FROM shards WHERE rows_succeeded + rows_errored <> rows_total",
    "shard counts differ from its parts": """
        SELECT shards.id FROM shards LEFT JOIN LATERAL (
            SELECT coalesce(sum(upper(one) - lower(one)), 0) AS rows FROM part_slices, unnest(part_slices.rows) AS one
             WHERE part_slices.shard_id = shards.id) AS done ON true WHERE done.rows <> shards.rows_total""",
    "row packed twice or never": """
        SELECT shards.id FROM shards LEFT JOIN LATERAL (
            SELECT coalesce(sum(upper(one) - lower(one)), 0) AS rows FROM pack_slices, unnest(pack_slices.rows) AS one
             WHERE pack_slices.shard_id = shards.id) AS held ON true WHERE held.rows > shards.rows_total""",
    "part of an attempt that was late": """
        SELECT parts.id FROM parts JOIN attempts USING (pack_id, lease_token) WHERE parts.committed_at > ended_at""",
    "innocent row convicted": "SELECT id FROM packs WHERE is_convicted",
    "span without its charges": """
        SELECT worker_id, start_us FROM worker_intervals LEFT JOIN LATERAL (
            SELECT coalesce(sum(amount_micros), 0) AS amount FROM accruals
             WHERE accruals.worker_id = worker_intervals.worker_id AND accruals.start_us = worker_intervals.start_us
          ) AS charged ON true WHERE amount <> cost_micros""",
    "work without a commit": """
        SELECT worker_id, start_us FROM worker_intervals
         WHERE kind = 'work' AND NOT EXISTS (SELECT FROM parts WHERE parts.pack_id = worker_intervals.pack_id
           AND parts.lease_token = worker_intervals.lease_token)""",
    "worker neither live nor ended": "SELECT id, state FROM workers WHERE state NOT IN ('stopped', 'lost')",
    "life not accounted for": "SELECT id FROM workers WHERE uptime_us > metered_until_us",
}
_OBJECTS = """
    SELECT object_key, sha256 FROM parts UNION ALL SELECT object_key, sha256 FROM shards
     UNION ALL SELECT object_key, sha256 FROM rosters UNION ALL SELECT object_key, sha256 FROM files
     UNION ALL SELECT refusals_key, refusals_sha256 FROM batches WHERE refusals_key IS NOT NULL
"""


def violations_of(stack: Stack) -> list[str]:
    """Return what is wrong with the books and the objects, or nothing. Workers must have ended."""
    found = []
    for name, query in _NEVER.items():
        rows = rows_of(stack, query)
        if rows:
            found.append(f"{name}: {len(rows)}, such as {rows[:_SHOWN_MAX]}")
    return [*found, *_unbalanced(stack), *_lost_objects(stack)]


def _unbalanced(stack: Stack) -> Iterator[str]:
    """Every worker's life costs its rate times its length, and every batch what its entries sum to."""
    workers = """
        SELECT workers.id, rate_micros_per_hour, metered_until_us, coalesce(sum(amount_micros), 0) AS charged
          FROM workers LEFT JOIN accruals ON accruals.worker_id = workers.id GROUP BY workers.id
    """
    for row in rows_of(stack, workers):
        due = metered_cost_micros(row["rate_micros_per_hour"], 0, row["metered_until_us"])
        if due != row["charged"]:
            yield f"worker {row['id']} cost {due} micros, {row['charged']} are charged"
    batches = (
        "SELECT batch_id, sum(amount_micros) AS charged FROM accruals WHERE batch_id IS NOT NULL GROUP BY batch_id"
    )
    total = 0
    for row in rows_of(stack, batches):
        total += row["charged"]
        shown = stack.batches.get(row["batch_id"]).cost_micros
        if shown != row["charged"]:
            yield f"{row['batch_id']} shows {shown} micros, {row['charged']} are charged"
    (work,) = rows_of(stack, "SELECT coalesce(sum(cost_micros), 0) AS cost FROM worker_intervals WHERE kind = 'work'")
    if work["cost"] != total:
        yield f"work cost {work['cost']} micros, batches are charged {total}"


def _lost_objects(stack: Stack) -> Iterator[str]:
    for row in rows_of(stack, _OBJECTS):
        try:
            stack.objects.read(row["object_key"], sha256=row["sha256"])
        except NightrateError as error:
            yield f"{row['object_key']}: {error}"


def result_lines(stack: Stack, batch_id: str) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Return the lines of the output and of the error file."""
    view = stack.batches.get(batch_id)
    return _lines(stack, view.output_file_id), _lines(stack, view.error_file_id)


def _lines(stack: Stack, file_id: str | None) -> list[dict[str, Any]]:
    if file_id is None:
        return []
    file = stack.files.get(file_id)
    return [orjson.loads(line) for line in stack.objects.read(file.object_key, sha256=file.sha256).splitlines()]


def misplaced(stack: Stack, batch_id: str, custom_ids: Sequence[str]) -> Iterator[str]:
    """Yield how the batch's files fail to hold each custom id exactly once, in the order of the input."""
    view: BatchView = stack.batches.get(batch_id)
    if view.state is not BatchState.COMPLETED:
        yield f"{batch_id} ended {view.state}"
        return
    output, error = result_lines(stack, batch_id)
    place = {custom_id: number for number, custom_id in enumerate(custom_ids)}
    for kind, lines in (("output", output), ("error", error)):
        places = [place.get(line["custom_id"], -1) for line in lines]
        if -1 in places:
            yield f"{batch_id}: {kind} has custom ids that were never asked"
        if any(later <= before for before, later in pairwise(places)):
            yield f"{batch_id}: {kind} is out of order"
        if any(not line["id"].endswith(f"_{number + 1}") for line, number in zip(lines, places, strict=True)):
            yield f"{batch_id}: {kind} has ids that do not count its requests"
    given = sorted(line["custom_id"] for line in [*output, *error])
    if given != sorted(custom_ids):
        yield f"{batch_id}: {len(given)} results, {len(set(given))} distinct, for {len(custom_ids)} requests"


def differences(stack: Stack, batch_id: str, quiet_id: str) -> Iterator[str]:
    """Yield where the results differ from a quiet run's, batch ids and times aside."""
    for kind, lines, quiet in zip(
        ("output", "error"), result_lines(stack, batch_id), result_lines(stack, quiet_id), strict=True
    ):
        if len(lines) != len(quiet):
            yield f"{kind} has {len(lines)} lines, a quiet run's {len(quiet)}"
        for number, (line, other) in enumerate(zip(lines, quiet, strict=False), 1):
            if (mine := _normal(line, batch_id)) != (theirs := _normal(other, quiet_id)):
                yield f"{kind} line {number}: {mine} instead of {theirs}"
                break


def _normal(line: dict[str, Any], batch_id: str) -> dict[str, Any]:
    suffix = batch_id.removeprefix("batch_")
    normal = {**line, "id": line["id"].replace(suffix, "-")}
    if normal["response"] is not None:
        response = dict(normal["response"])
        response["request_id"] = response["request_id"].replace(suffix, "-")
        response["body"] = {name: value for name, value in response["body"].items() if name != "created"}
        normal["response"] = response
    return normal


def rows_of(stack: Stack, query: str, **arguments: object) -> list[dict[str, Any]]:
    """Return what a query finds."""
    return stack.database.run(
        lambda connection: [dict(row._mapping) for row in connection.execute(text(query), arguments)],
    )
