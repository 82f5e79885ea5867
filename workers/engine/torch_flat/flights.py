"""Rows in flight over the flat cache: their seats and ranges, how their prompts enter, and what comes next for each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from workers.engine.torch_chat.prefixes import PREFIX_SOURCES_MAX, PREFIX_TOKENS_MIN, shared_tokens
from workers.engine.torch_chat.rows import Row
from workers.engine.torch_flat.extents import Extents
from workers.engine.torch_flat.launcher import Chunk, Step
from workers.engine.torch_flat.sampling import Draw, is_plain, is_sampled


@dataclass(slots=True, eq=False)
class Flight:
    """A row that has a seat and a range. Its phase is arithmetic: entering while `entered < len(sequence)`."""

    row: Row
    seat: int
    begin: int
    #: What must be in the cache before the first token is asked for.
    sequence: list[int]
    #: Leading tokens of `sequence` that are in the cache, or will be once the steps on their way are done.
    entered: int
    #: What `entered` will be after the next step; a row decodes once the whole sequence is reached.
    reach: int
    #: Output tokens that are known or on their way.
    launched: int
    #: Whether each of its tokens has to be chosen by the host.
    needs_host: bool
    #: Where the beginning is copied from in the next step: (place, tokens) from the row's start on.
    pieces: tuple[tuple[int, int], ...] = ()
    has_ended: bool = False

    @property
    def is_entering(self) -> bool:
        """Return whether part of the prompt has yet to be computed."""
        return self.entered < len(self.sequence)

    @property
    def is_decoding(self) -> bool:
        """Return whether another token is to be asked for."""
        return not self.is_entering and self.launched < self.row.output_max


@dataclass(slots=True)
class Flights:
    """All rows in flight."""

    extents: Extents
    free_seats: list[int]
    flying: list[Flight] = field(default_factory=list)
    shares_prefixes: bool = True
    #: Of them, those whose tokens are chosen by the host.
    host_bound: int = 0
    #: Flights by the first tokens of their prompts, newest last.
    _by_head: dict[tuple[int, ...], list[Flight]] = field(default_factory=dict)

    def grant(self, prefill_tokens: int) -> int:
        """Share the next step's prompt tokens among the rows that are entering; return what is left for others."""
        for flight in self.flying:
            if flight.is_entering:
                flight.reach = min(len(flight.sequence), flight.entered + prefill_tokens)
                prefill_tokens -= flight.reach - flight.entered
        return prefill_tokens

    def enter(self, row: Row, prefill_tokens: int) -> int | None:
        """Give `row` a seat, a range for as long as it may become, and prompt tokens in the next step.

        Returns how many of the `prefill_tokens`, at least one, it takes; None where there is no room for it.
        """
        assert prefill_tokens > 0, "what is copied now must be copied in the next step, before its source may go"
        if not self.free_seats:
            return None
        begin = self.extents.take(row.tokens_max)
        if begin is None:
            return None
        sequence = row.sequence
        pieces = self._shared_pieces(sequence)
        entered = sum(count for _, count in pieces)
        flight = Flight(
            row=row,
            seat=self.free_seats.pop(),
            begin=begin,
            sequence=sequence,
            entered=entered,
            reach=min(len(sequence), entered + prefill_tokens),
            launched=len(row.output),
            needs_host=not is_plain(row.sampling),
            pieces=pieces,
        )
        self.host_bound += flight.needs_host
        self.flying.append(flight)
        self._by_head.setdefault(_head(sequence), []).append(flight)
        return flight.reach - entered

    def leave(self, flights: Sequence[Flight]) -> None:
        """Free what these rows hold. Steps on their way may still write there, before whoever comes next does."""
        for flight in flights:
            flight.has_ended = True
            self.host_bound -= flight.needs_host
            self.free_seats.append(flight.seat)
            self.extents.give(flight.begin, flight.row.tokens_max)
            alike = self._by_head[_head(flight.sequence)]
            alike.remove(flight)
            if not alike:
                del self._by_head[_head(flight.sequence)]
        if flights:
            self.flying = [flight for flight in self.flying if not flight.has_ended]

    def _shared_pieces(self, sequence: list[int]) -> tuple[tuple[int, int], ...]:
        """Return where the longest beginning that another row has in the cache lies; at least one token is left."""
        if not self.shares_prefixes or len(sequence) <= PREFIX_TOKENS_MIN:
            return ()
        best, length = None, PREFIX_TOKENS_MIN - 1
        for other in reversed(self._by_head.get(_head(sequence), [])[-PREFIX_SOURCES_MAX:]):
            shared = min(shared_tokens(sequence, other.sequence), other.reach)
            if shared > length:
                best, length = other, shared
        return () if best is None else _pieces(best, length)


def _pieces(source: Flight, length: int) -> tuple[tuple[int, int], ...]:
    """Return the ranges that hold the first `length` tokens of `source`.

    What it is itself about to copy in the same step is taken from where it copies it: all copies are one.
    """
    pieces, covered = [], 0
    for place, count in source.pieces:
        taken = min(count, length - covered)
        if taken > 0:
            pieces.append((place, taken))
            covered += taken
    if covered < length:
        pieces.append((source.begin + covered, length - covered))
    return tuple(pieces)


def _head(sequence: list[int]) -> tuple[int, ...]:
    return tuple(sequence[:PREFIX_TOKENS_MIN])


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """A step, the flights that get a token in it, in order, and what is drawn."""

    step: Step
    flights: list[Flight]
    draws: list[Draw]
    tokens_prefilled: int
    tokens_copied: int


def plan_step(flights: Sequence[Flight]) -> Plan | None:
    """Plan the next step and note in the flights what it will have done; None where there is nothing to do.

    Every decoding row gets one token, and every entering one what it was granted.
    """
    decoding = [flight for flight in flights if flight.is_decoding]
    entering = [flight for flight in flights if flight.reach > flight.entered]
    if not decoding and not entering:
        return None
    chunks = [_chunk(flight) for flight in entering]
    step = Step(
        seats=[flight.seat for flight in decoding],
        begins=[flight.begin for flight in decoding],
        positions=[len(flight.row.prompt) + flight.launched - 1 for flight in decoding],
        chunks=chunks,
    )
    rows = decoding + [flight for flight, chunk in zip(entering, chunks, strict=True) if chunk.is_last]
    draws = [
        Draw(place=place, sampling=flight.row.sampling, seed=flight.row.seed, position=flight.launched)
        for place, flight in enumerate(rows)
        if is_sampled(flight.row.sampling)
    ]
    for flight in rows:
        flight.launched += 1
    for flight in entering:
        flight.entered, flight.pieces = flight.reach, ()
    return Plan(
        step=step,
        flights=rows,
        draws=draws,
        tokens_prefilled=sum(len(chunk.tokens) for chunk in chunks),
        tokens_copied=sum(count for chunk in chunks for _, count in chunk.pieces),
    )


def _chunk(flight: Flight) -> Chunk:
    return Chunk(
        seat=flight.seat,
        begin=flight.begin,
        start=flight.entered,
        tokens=flight.sequence[flight.entered : flight.reach],
        is_last=flight.reach == len(flight.sequence),
        pieces=flight.pieces,
    )
