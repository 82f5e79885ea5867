"""A cursor: how far into a backlog this cycle has packed."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial

from pipeline.domain.costs.charging import PAR_PPM
from pipeline.ports.cycle import Backlog, OpenShard, SliceDraft
from scheduler.lineup import Lineup
from scheduler.outlook import ROW_SECONDS_MIN, Outlook
from scheduler.purses import Purse, Purses

#: Forgives float rounding when rows are counted, and is far below one row.
_ROWS_EPSILON = 1e-9


@dataclass(frozen=True, slots=True, kw_only=True)
class Room:
    """What still fits into a pack."""

    seconds: float
    rows: int
    slices: int
    #: So many rows are taken even where their seconds do not fit.
    rows_least: int = 0
    #: What a predicted second may cost, in micro-units of money.
    second_micros: float = 0.0
    #: What the pack may cost beyond its rows, in micro-units.
    fixed_micros: float = 0.0

    def less(self, cut: Cut) -> Room:
        """Return what is left of it beside what was taken."""
        return replace(
            self,
            seconds=self.seconds - cut.seconds,
            rows=self.rows - cut.rows,
            slices=self.slices - len(cut.slices),
            rows_least=self.rows_least - cut.rows,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Cut:
    """Rows taken from one backlog, and their predicted seconds."""

    slices: tuple[SliceDraft, ...]
    rows: int
    seconds: float
    #: What its first slice has reserved for what the pack takes beyond its rows.
    fixed_micros: float


@dataclass(slots=True, kw_only=True, eq=False)
class Cursor:
    """The next row of a backlog that is in no pack yet; one per backlog, shared by all pools."""

    backlog: Backlog
    #: The backlog's place in the lineup.
    place: int
    #: Returns the predicted worker-seconds of a row of a shard.
    row_seconds: Callable[[OpenShard], float]
    #: Returns what a row of a shard may be charged, in micro-units; None: the multiple of what it costs.
    row_charge: Callable[[OpenShard], float | None]
    purse: Purse
    #: What a predicted second may cost in the dearest pool that would run it, in micro-units.
    second_micros: float
    #: What a pack may cost beyond its rows in the dearest pool, in micro-units.
    fixed_micros: float = 0.0
    shard_index: int = field(default=0, init=False)
    row: int = field(default=0, init=False)
    has_moved: bool = field(default=False, init=False)
    _seconds_per_row: float | None = field(default=None, init=False)
    #: What a row is charged whatever it costs, and of what it costs how much is charged.
    _row_micros: float | None = field(default=None, init=False)
    _multiplier: float = field(default=1.0, init=False)

    def __post_init__(self) -> None:
        """Stand on the first row that is in no pack."""
        self._multiplier = self.backlog.terms.multiplier_ppm / PAR_PPM
        self._enter(0)

    @property
    def is_spent(self) -> bool:
        """Whether the snapshot carries no more rows of this backlog, or its budget pays for none wherever it ran."""
        if self.shard_index >= len(self.backlog.shards):
            return True
        # Asked of the dearest pool, so that all pools agree: others leave less than the price of a row there.
        return self.purse.free_micros is not None and not self.purse.pays(
            self._charge_per_row(self.second_micros) + self._charge_of_pack(self.fixed_micros)
        )

    def take(self, room: Room) -> Cut:
        """Take the rows that fit, in order; the room's `rows_least` may exceed its seconds."""
        slices: list[SliceDraft] = []
        rows_taken = 0
        seconds_taken = fixed_taken = 0.0
        while not self.is_spent and len(slices) < room.slices and rows_taken < room.rows:
            shard = self.backlog.shards[self.shard_index]
            seconds_per_row = self._row_seconds()
            rows = rows_that_fit(room.seconds - seconds_taken, seconds_per_row)
            rows = max(rows, room.rows_least - rows_taken)
            rows = min(rows, room.rows - rows_taken, shard.rows_total - self.row)
            micros_per_row = self._charge_per_row(room.second_micros)
            # Nobody knows yet who else will be in the pack: the first slice reserves all of it (see `settled`).
            fixed = 0.0 if slices else self._charge_of_pack(room.fixed_micros)
            rows = self.purse.rows(rows, micros_per_row, beside=fixed)
            if rows == 0:
                break
            fixed_taken += fixed
            slices.append(
                SliceDraft(
                    batch_id=self.backlog.batch_id,
                    shard_id=shard.shard_id,
                    row_start=self.row,
                    row_stop=self.row + rows,
                    predicted_seconds=rows * seconds_per_row,
                    reserved_micros=self.purse.reserve(rows * micros_per_row + fixed),
                )
            )
            rows_taken += rows
            seconds_taken += rows * seconds_per_row
            self.advance(rows)
        return Cut(slices=tuple(slices), rows=rows_taken, seconds=seconds_taken, fixed_micros=fixed_taken)

    def settled(self, cut: Cut, pack_seconds: float) -> tuple[SliceDraft, ...]:
        """Return a cut's slices once its pack is full: of what the pack takes beyond its rows a batch pays its share."""
        excess = math.floor(cut.fixed_micros * (1 - cut.seconds / pack_seconds)) if cut.fixed_micros > 0 else 0
        if excess <= 0:
            return cut.slices
        first, *others = cut.slices
        # Where too little was left for all of it, too little was reserved.
        excess = min(excess, first.reserved_micros)
        self.purse.free(excess)
        return replace(first, reserved_micros=first.reserved_micros - excess), *others

    def advance(self, rows: int) -> None:
        """Step over `rows` rows of the current shard, and into the next shard at its end."""
        self.has_moved = True
        self.row += rows
        if self.row >= self.backlog.shards[self.shard_index].rows_total:
            self._enter(self.shard_index + 1)

    def _row_seconds(self) -> float:
        if self._seconds_per_row is None:
            shard = self.backlog.shards[self.shard_index]
            self._seconds_per_row = max(ROW_SECONDS_MIN, self.row_seconds(shard))
            self._row_micros = self.row_charge(shard)
        return self._seconds_per_row

    def _charge_per_row(self, second_micros: float) -> float:
        """Return what a row may be charged where a predicted second may cost so much."""
        seconds = self._row_seconds()
        return seconds * second_micros * self._multiplier if self._row_micros is None else self._row_micros

    def _charge_of_pack(self, fixed_micros: float) -> float:
        """Return what is charged for what a pack takes beyond its rows; nothing where tokens have a price."""
        self._row_seconds()
        return fixed_micros * self._multiplier if self._row_micros is None else 0.0

    def _enter(self, shard_index: int) -> None:
        shards = self.backlog.shards
        while shard_index < len(shards) and first_open_row(shards[shard_index]) >= shards[shard_index].rows_total:
            shard_index += 1
        self.shard_index = shard_index
        self._seconds_per_row = None
        self.row = 0 if shard_index == len(shards) else first_open_row(shards[shard_index])


class Cursors:
    """The cursors of a cycle, made when they are asked for; all pools share them, so that no row goes to two."""

    def __init__(self, lineup: Lineup, outlook: Outlook, purses: Purses) -> None:
        """Stand before the first open row of each backlog of the lineup."""
        self._lineup = lineup
        self._outlook = outlook
        self._purses = purses
        self._cursors: dict[int, Cursor] = {}

    def at(self, place: int) -> Cursor:
        """Return the cursor of the backlog at a place."""
        cursor = self._cursors.get(place)
        if cursor is None:
            backlog = self._lineup[place]
            cursor = Cursor(
                backlog=backlog,
                place=place,
                row_seconds=self._outlook.row_seconds_of(backlog),
                row_charge=partial(self._outlook.row_charge_micros, backlog),
                purse=self._purses.of(place),
                second_micros=self._outlook.dearest_second_micros(backlog.model, backlog.tier),
                fixed_micros=self._outlook.dearest_fixed_micros(backlog.model, backlog.tier),
            )
            self._cursors[place] = cursor
        return cursor

    def moved(self) -> list[int]:
        """Return the places of those backlogs that rows were taken from."""
        return [place for place, cursor in self._cursors.items() if cursor.has_moved]


def first_open_row(shard: OpenShard) -> int:
    """Return the first row of the shard that is in no pack."""
    return shard.rows_packed


def rows_that_fit(seconds: float, seconds_per_row: float) -> int:
    """Return how many whole rows fit into `seconds`."""
    return max(0, math.floor(seconds / seconds_per_row + _ROWS_EPSILON))
