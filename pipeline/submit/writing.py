"""What intake writes once every line is a request: shards in scheduling order, rosters in input order."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from pipeline.domain.limits import ROSTER_ROWS_MAX, SHARD_BYTES_MAX, SHARD_ROWS_MAX
from pipeline.domain.objects.keys import refusals_key, roster_key, shard_key
from pipeline.domain.objects.roster import REFUSED_SHARD_NO, encode_roster
from pipeline.ports.batches import BatchClaim, ObjectDraft, ShardDraft, ShardEstimate
from pipeline.ports.objects import ObjectStore, StoredObject
from pipeline.submit.estimate import input_tokens
from pipeline.submit.fingerprint import leaders
from pipeline.submit.order import cuts, locality_order, template_of
from pipeline.submit.reading import Requests
from pipeline.submit.uploads import Uploads


@dataclass(frozen=True, slots=True, kw_only=True)
class Placement:
    """Where each request that was not refused is run: a duplicate where its leader is."""

    shard_nos: NDArray[np.int32]
    positions: NDArray[np.int32]
    #: The leaders' row numbers, in the order of shards and positions.
    order: NDArray[np.int32]
    #: Each shard's half-open range in `order`.
    shards: list[tuple[int, int]]

    @property
    def rows_duplicate(self) -> int:
        """Return how many rows share an earlier one's place."""
        return len(self.shard_nos) - len(self.order)


def place(requests: Requests) -> Placement:
    """Decide the place of every request that was not refused."""
    leader = leaders(requests.fingerprints.load())
    rows = np.flatnonzero(leader == np.arange(len(leader), dtype=np.int32)).astype(np.int32)
    row_bytes = requests.row_bytes.load()[rows]
    locality = locality_order(requests.first_levels.load()[rows], requests.further_levels.load(rows), row_bytes)
    shards = cuts(
        row_bytes[locality.permutation], locality.parted_at, rows_max=SHARD_ROWS_MAX, bytes_max=SHARD_BYTES_MAX
    )
    order = rows[locality.permutation]
    shard_nos = np.zeros(len(leader), dtype=np.int32)
    positions = np.zeros(len(leader), dtype=np.int32)
    for shard_no, (start, stop) in enumerate(shards):
        shard_nos[order[start:stop]] = shard_no
        positions[order[start:stop]] = np.arange(stop - start)
    return Placement(shard_nos=shard_nos[leader], positions=positions[leader], order=order, shards=shards)


def estimates(requests: Requests, placement: Placement) -> tuple[ShardEstimate, ...]:
    """Return what to expect of each shard's rows."""
    row_bytes = requests.row_bytes.load()[placement.order]
    image_bytes = requests.image_bytes.load()[placement.order]
    tokens = requests.output_tokens.load()[placement.order]
    first_levels = requests.first_levels.load()[placement.order]
    return tuple(
        ShardEstimate(
            rows=stop - start,
            input_tokens=input_tokens(row_bytes[start:stop], image_bytes[start:stop]),
            output_tokens=int(np.sum(tokens[start:stop], dtype=np.int64)),
            template=template_of(first_levels[start:stop]),
        )
        for start, stop in placement.shards
    )


def write_shards(
    claim: BatchClaim,
    model: str,
    requests: Requests,
    placement: Placement,
    objects: ObjectStore,
    on_shard: Callable[[], None],
) -> tuple[ShardDraft, ...]:
    """Write every shard; `on_shard` is called after each."""
    if not placement.shards:
        return ()
    row_bytes = requests.row_bytes.load()
    stops = np.cumsum(row_bytes, dtype=np.int64)[placement.order]
    row_bytes = row_bytes[placement.order]
    with Uploads(objects) as uploads:
        for shard_no, content in enumerate(requests.rows.gather(stops - row_bytes, stops, placement.shards)):
            uploads.put(shard_key(claim.tenant_id, claim.batch_id, claim.claim_token, shard_no), content)
            on_shard()
        stored = uploads.finish()
    return tuple(
        ShardDraft(
            shard_no=shard_no,
            model=model,
            object_key=each.key,
            sha256=each.sha256,
            size_bytes=each.size_bytes,
            rows=estimate.rows,
            input_tokens=estimate.input_tokens,
            output_tokens=estimate.output_tokens,
            template=estimate.template,
        )
        for shard_no, (each, estimate) in enumerate(zip(stored, estimates(requests, placement), strict=True))
    )


def write_rosters(
    claim: BatchClaim, requests: Requests, placement: Placement, objects: ObjectStore
) -> tuple[ObjectDraft, ...]:
    """Write who asked for what, in input order."""
    is_refused = requests.is_refused.load().astype(np.bool_)
    shard_nos = np.full(len(is_refused), REFUSED_SHARD_NO, dtype=np.int32)
    shard_nos[~is_refused] = placement.shard_nos
    positions = np.cumsum(is_refused, dtype=np.int32) - 1
    positions[~is_refused] = placement.positions
    rows: list[int] = []
    with Uploads(objects) as uploads, requests.custom_ids.opened() as lines:
        for roster_no, start in enumerate(range(0, len(is_refused), ROSTER_ROWS_MAX)):
            custom_ids = [line[:-1] for line in islice(lines, ROSTER_ROWS_MAX)]
            stop = start + len(custom_ids)
            content = encode_roster(
                zip(shard_nos[start:stop].tolist(), positions[start:stop].tolist(), custom_ids, strict=True)
            )
            uploads.put(roster_key(claim.tenant_id, claim.batch_id, claim.claim_token, roster_no), content)
            rows.append(len(custom_ids))
        stored = uploads.finish()
    assert sum(rows) == len(is_refused), "a roster line for each request"
    return tuple(_draft(each, count) for each, count in zip(stored, rows, strict=True))


def write_refusals(claim: BatchClaim, requests: Requests, objects: ObjectStore) -> ObjectDraft | None:
    """Write the part with the answers to refused rows, or nothing where there are none."""
    refusals = requests.refusals
    if not refusals.rows:
        return None
    key = refusals_key(claim.tenant_id, claim.batch_id, claim.claim_token)
    return _draft(objects.put(key, refusals.write_part()), refusals.rows)


def _draft(stored: StoredObject, rows: int) -> ObjectDraft:
    return ObjectDraft(object_key=stored.key, sha256=stored.sha256, size_bytes=stored.size_bytes, rows=rows)
