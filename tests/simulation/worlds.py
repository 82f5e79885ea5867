"""What an implementation under comparison offers: two stores, a hand on its clock, and a look inside."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from pipeline.domain.ids import BatchId, PackId, WorkerId
from pipeline.domain.ranges import Ranges
from pipeline.ports.cycle import PackDraft
from pipeline.ports.packs import PackStore, WorkerStore

#: Batch name, shard number, rows.
Piece = tuple[str, int, Ranges]


@dataclass(frozen=True, slots=True)
class Setup:
    """The batches a world starts with: name → rows of each shard. All belong to the default tenant."""

    batches: Mapping[str, tuple[int, ...]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Observation:
    """All that two implementations are compared by; every tuple is sorted (packs by `repr`)."""

    #: (ordinal, state, pieces, lease_token, failures, is_suspect, lease worker or None); a waiting pack
    #: that only the convictor may lease has the state "convicted"; a discarded pack shows no pieces.
    packs: tuple[tuple[float, str, tuple[Piece, ...], int, int, bool, str | None], ...]
    #: (batch name, shard number, rows succeeded, rows errored).
    shards: tuple[tuple[str, int, int, int], ...]
    #: (worker, start_us, batch name or "overhead:<kind>", micros).
    ledger: tuple[tuple[str, int, str, int], ...]
    #: (worker, start_us, stop_us, kind).
    spans: tuple[tuple[str, int, int, str], ...]
    #: (worker, state, metered_until_us).
    workers: tuple[tuple[str, str, int], ...]


class World(Protocol):
    """An implementation, and what happens around it."""

    @property
    def packs(self) -> PackStore:
        """Leases and commits."""

    @property
    def workers(self) -> WorkerStore:
        """Workers and their time."""

    def batch_id(self, name: str) -> BatchId:
        """Return the id of the batch the driver calls `name`."""

    def batch_name(self, batch_id: BatchId) -> str:
        """Return the driver's name of a batch."""

    def shard_id(self, name: str, shard_no: int) -> int:
        """Return the id of a shard."""

    def dispatch(self, packs: Sequence[PackDraft]) -> None:
        """Create packs."""

    def expire(self, pack_id: PackId) -> None:
        """Put the expiry of the pack's lease in the past."""

    def silence(self, worker_id: WorkerId) -> None:
        """Put the worker's last sign of life far in the past."""

    def rescue(self) -> None:
        """End expired attempts and declare silent workers lost."""

    def withdraw(self, batch_id: BatchId) -> None:
        """Cancel a batch, and discard the waiting packs this empties."""

    def convict(self) -> None:
        """Run the convictor until nothing is convicted."""

    def observe(self) -> Observation:
        """Return the state, as `Observation` says."""
