"""The convictor: errors what can never run, so that its batch can end.

That is the one request that brought every attempt down, and the requests of a lost shard.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, Protocol

from pipeline.domain.ids import new_part_id
from pipeline.domain.lifecycle import AttemptOutcome
from pipeline.domain.objects.keys import part_key
from pipeline.domain.objects.part import PartRow, encode_part, encode_unanswered
from pipeline.domain.ranges import count_rows
from pipeline.ports.objects import ObjectStore
from pipeline.ports.packs import Conviction, LeasedSlice, PackLease, PackStore, PartDraft, ShardRows, WorkCommit


class ConvictStore(PackStore, Protocol):
    """A pack store that also leases what no worker may touch again."""

    def lease_convicted(self) -> Conviction | None:
        """Lease a pack whose rows are to be errored, with what they were convicted for."""


#: Code and opening words of the verdict, by how the last attempt ended.
_VERDICTS: Final[Mapping[AttemptOutcome, tuple[str, str]]] = {
    AttemptOutcome.FAILED: ("engine_crashed", "Every attempt at this request failed"),
    AttemptOutcome.LEASE_LOST: ("engine_crashed", "Every attempt at this request brought its worker down"),
    AttemptOutcome.UNREAD: ("input_lost", "This request can no longer be read from the object store"),
}


class Convictor:
    """Writes the verdict as a part like any other, under a lease like any other."""

    def __init__(self, packs: ConvictStore, objects: ObjectStore) -> None:
        """Keep the stores."""
        self._packs = packs
        self._objects = objects

    def run_once(self) -> bool:
        """Error one convicted pack; False when there is none."""
        conviction = self._packs.lease_convicted()
        if conviction is None:
            return False
        lease = conviction.lease
        code, opening = _VERDICTS[conviction.outcome]
        line = encode_unanswered(code, f"{opening}: {conviction.error}")
        parts = tuple(self._verdict(lease, part, line, number) for number, part in enumerate(lease.slices))
        commit = WorkCommit(pack_id=lease.pack_id, lease_token=lease.lease_token, parts=parts, interval=None)
        self._packs.commit(None, commit)
        self._packs.finish(lease.pack_id, lease.lease_token, AttemptOutcome.SUCCEEDED)
        return True

    def _verdict(self, lease: PackLease, part: LeasedSlice, line: bytes, part_no: int) -> PartDraft:
        positions = [position for start, stop in part.ranges for position in range(start, stop)]
        rows = [PartRow(part.shard_no, position, is_success=False) for position in positions]
        key = part_key(part.tenant_id, part.batch_id, lease.pack_id, lease.lease_token, part_no)
        stored = self._objects.put(key, encode_part(rows, [line] * len(rows)))
        count = count_rows(part.ranges)
        return PartDraft(
            part_id=new_part_id(),
            batch_id=part.batch_id,
            object_key=key,
            sha256=stored.sha256,
            size_bytes=stored.size_bytes,
            shards=(ShardRows(shard_id=part.shard_id, ranges=part.ranges, rows_succeeded=0, rows_errored=count),),
            input_tokens=0,
            output_tokens=0,
        )
