"""One leased pack on its way through the engine: what is still to run, what came back."""

from __future__ import annotations

from collections import deque
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from typing import Any

from pipeline.domain.ids import BatchId
from pipeline.domain.lifecycle import AttemptOutcome
from pipeline.domain.objects.shard import decode_rows
from pipeline.ports.packs import LeasedSlice, PackLease
from workers.apportioner import Tally
from workers.committer import FinishedRow
from workers.feed import Block


@dataclass(frozen=True, slots=True)
class Row:
    """One request and where its result belongs."""

    part: LeasedSlice
    position: int
    line: int
    body: dict[str, Any]


@dataclass(slots=True)
class PackRun:
    """The runner's record of one lease."""

    lease: PackLease
    #: Since when the pack could have been leased, on the worker's meter; negative: before it was born.
    waiting_since_us: int
    tally: Tally = field(default_factory=Tally)
    blocks: deque[Block] = field(default_factory=deque)
    rows: deque[Row] = field(default_factory=deque)
    #: The feed has nothing more for this pack.
    is_fed: bool = False
    in_flight: int = 0
    #: A row was taken out to run.
    has_begun: bool = False
    finished: list[FinishedRow] = field(default_factory=list)
    outcome: AttemptOutcome = AttemptOutcome.SUCCEEDED
    error: str | None = None
    #: The object store was out of reach before all rows were read.
    is_store_failing: bool = False

    @property
    def has_rows(self) -> bool:
        """Say whether rows wait to be added to the engine."""
        return bool(self.rows or self.blocks)

    @property
    def is_untouched(self) -> bool:
        """Say whether the pack has rows and none of them has been added to the engine yet."""
        return self.has_rows and not self.has_begun

    @property
    def is_over(self) -> bool:
        """Say whether nothing of this pack is waiting, in flight, or still to come."""
        return self.is_fed and not self.has_rows and self.in_flight == 0

    def add(self, block: Block) -> None:
        """Take a block in, unless the run has ended early: then nobody wants it."""
        if self.outcome is AttemptOutcome.SUCCEEDED:
            self.blocks.append(block)

    def next_rows(self, count: int, withdrawn: AbstractSet[BatchId]) -> list[Row]:
        """Return up to `count` rows to run, stepping over those of withdrawn batches."""
        taken: list[Row] = []
        while len(taken) < count:
            if not self.rows:
                if not self.blocks:
                    break
                self._decode(self.blocks.popleft())
                continue
            row = self.rows.popleft()
            if row.part.batch_id not in withdrawn:
                taken.append(row)
        self.in_flight += len(taken)
        self.has_begun = self.has_begun or bool(taken)
        return taken

    def end(self, outcome: AttemptOutcome, error: str) -> None:
        """Give up what has not run; the first cause is kept."""
        self.rows.clear()
        self.blocks.clear()
        if self.outcome is AttemptOutcome.SUCCEEDED:
            self.outcome, self.error = outcome, error

    def _decode(self, block: Block) -> None:
        self.rows.extend(Row(block.part, *row) for row in decode_rows(block.content, block.part.ranges))
