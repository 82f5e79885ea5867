"""Steps given to the device: uploaded in one copy, computed without the host, fetched one step later."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from workers.engine.torch_flat.attention import Spans
from workers.engine.torch_flat.decoder import Batch, FlatCache, FlatDecoder
from workers.engine.torch_flat.extents import GRAIN_TOKENS
from workers.engine.torch_flat.graphs import Capture, Graphs, rows_held
from workers.engine.torch_flat.sampling import Draw, draw

#: The first positions of the cache, where rows that are computed only to fill a captured step write.
SCRATCH_TOKENS = GRAIN_TOKENS


@dataclass(frozen=True, slots=True, kw_only=True)
class Chunk:
    """Consecutive tokens of a prompt that enter in one step."""

    seat: int
    begin: int
    #: Position of the first of `tokens`.
    start: int
    tokens: list[int]
    #: Whether the prompt ends here, and its first output token is wanted.
    is_last: bool
    #: Ranges of the cache, (place, tokens), whose content stands before `start`, from the row's beginning.
    pieces: Sequence[tuple[int, int]] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """What one step computes. The rows that get a token are the decoding ones, then the chunks that are last."""

    #: Of each decoding row: its seat, where its range begins, and the position of the token it was last given.
    seats: list[int] = field(default_factory=list)
    begins: list[int] = field(default_factory=list)
    positions: list[int] = field(default_factory=list)
    chunks: list[Chunk] = field(default_factory=list)

    @property
    def rows(self) -> int:
        """Return how many rows get a token."""
        return len(self.seats) + sum(chunk.is_last for chunk in self.chunks)


@dataclass(slots=True, eq=False)
class Launched:
    """A step on its way: its tokens can be had once the device is there."""

    logits: Tensor
    _tokens: Tensor
    _arrived: torch.cuda.Event | None

    def tokens(self) -> list[int]:
        """Wait for the step and return the token of each of its rows."""
        if self._arrived is not None:
            self._arrived.synchronize()
        tokens: list[int] = self._tokens.tolist()
        return tokens


class Launcher:
    """The decoder, its cache, and what stays in place on the device: each seat's last token, a step's inputs and outputs."""

    def __init__(self, decoder: FlatDecoder, *, seats: int, cache_tokens: int, capture: Capture | None) -> None:
        """Make room for `seats` rows and `cache_tokens` positions; decode steps are captured by `capture`, if any."""
        self.decoder = decoder
        self._device = decoder.cache_shape.device
        self._seats = seats
        self._graphs = Graphs(capture)
        # One more seat, for rows that only fill up a captured step.
        self._last = torch.zeros(seats + 1, dtype=torch.int64, device=self._device)
        held = rows_held(seats)
        self._inputs = torch.zeros(3, held + 1, dtype=torch.int64, device=self._device)
        self._chosen = torch.zeros(held, dtype=torch.int64, device=self._device)
        self._counting = torch.arange(held + 1, dtype=torch.int32, device=self._device)
        self._logits = torch.zeros(held, decoder.vocabulary, dtype=decoder.cache_shape.dtype, device=self._device)
        self.cache: FlatCache | None = None
        self.resize(cache_tokens)

    @property
    def cache_tokens(self) -> int:
        """Return the positions of the cache; 0 where there is none."""
        return self.cache.tokens if self.cache else 0

    def resize(self, cache_tokens: int) -> None:
        """Take a new cache of `cache_tokens`, or none of 0; what the old one held is lost."""
        self._graphs.forget()
        self.cache = None
        if cache_tokens:
            self.cache = FlatCache(self.decoder.cache_shape, cache_tokens)

    @torch.inference_mode()
    def launch(self, step: Step, draws: Sequence[Draw]) -> Launched:
        """Start a step; rows named in `draws` are sampled, the others greedy."""
        rows = step.rows
        if step.chunks:
            logits = self._run_mixed(step)
            chosen = logits.argmax(dim=-1)
            seats = self._upload([*step.seats, *(chunk.seat for chunk in step.chunks if chunk.is_last)])
        else:
            self._run_decoding(step)
            logits, chosen, seats = self._logits[:rows], self._chosen[:rows], self._inputs[0, :rows]
        if draws:
            draw(logits, draws, chosen)
        self._last.index_copy_(0, seats, chosen)
        return self._fetched(logits, chosen)

    @torch.inference_mode()
    def give(self, step: Step, tokens: list[int]) -> None:
        """Replace what the rows of `step` were given by `tokens`, chosen by the host."""
        seats = self._upload([*step.seats, *(chunk.seat for chunk in step.chunks if chunk.is_last)])
        self._last.index_copy_(0, seats, self._upload(tokens))

    def _fetched(self, logits: Tensor, chosen: Tensor) -> Launched:
        if self._device.type != "cuda":
            return Launched(logits, chosen.clone(), None)
        tokens = torch.empty(len(chosen), dtype=torch.int64, pin_memory=True)
        tokens.copy_(chosen, non_blocking=True)
        arrived = torch.cuda.Event()  # type: ignore[no-untyped-call]  # torch has no types here
        arrived.record()
        return Launched(logits, tokens, arrived)

    # --- decoding alone ------------------------------------------------------------------------

    def _run_decoding(self, step: Step) -> None:
        rows = rows_held(len(step.seats))
        spare = rows - len(step.seats)
        host = np.zeros((3, rows + 1), dtype=np.int64)
        host[0, :rows] = step.seats + [self._seats] * spare
        host[1, : len(step.seats)] = step.begins
        host[2, : len(step.seats)] = step.positions
        self._inputs[:, : rows + 1].copy_(self._pinned(host), non_blocking=True)
        bound = self.decoder.attention.bound(max(step.positions) + 1, self.decoder.context_tokens)
        self._graphs.run((rows, bound), lambda: self._decode(rows, bound))

    @torch.inference_mode()
    def _decode(self, rows: int, bound: int) -> None:
        """Compute `rows` rows from the inputs in place into the outputs in place; doing it again changes nothing."""
        assert self.cache is not None
        seats, begins, positions = self._inputs[:, :rows]
        spans = Spans(
            queries=self._counting[: rows + 1],
            begins=self._inputs[1, : rows + 1].int(),
            lengths=(positions + 1).int(),
            queries_max=1,
            lengths_max=bound,
        )
        batch = Batch(ids=self._last[seats], positions=positions, places=begins + positions, decoding=spans)
        logits = self.decoder.forward(batch, self.cache)
        self._logits[:rows].copy_(logits)
        self._chosen[:rows].copy_(logits.argmax(dim=-1))

    # --- with prompts --------------------------------------------------------------------------

    def _run_mixed(self, step: Step) -> Tensor:
        assert self.cache is not None
        arrays = _arrays(step)
        cuts = np.cumsum([len(array) for array in arrays])[:-1]
        moved = self._moved(np.concatenate(arrays))
        (
            seats,
            begins,
            positions,
            ids,
            places,
            last,
            queries,
            prompt_begins,
            prompt_lengths,
            copied_from,
            copied_to,
        ) = moved.tensor_split(cuts.tolist())
        rows = len(step.seats)
        decoding = None
        bound = self.decoder.attention.bound
        context = self.decoder.context_tokens
        if rows:
            decoding = Spans(
                queries=self._counting[: rows + 1],
                begins=begins.int(),
                lengths=(positions[:rows] + 1).int(),
                queries_max=1,
                lengths_max=bound(max(step.positions) + 1, context),
            )
        entering = Spans(
            queries=queries.int(),
            begins=prompt_begins.int(),
            lengths=prompt_lengths.int(),
            queries_max=max(len(chunk.tokens) for chunk in step.chunks),
            lengths_max=bound(max(chunk.start + len(chunk.tokens) for chunk in step.chunks), context),
        )
        batch = Batch(
            ids=torch.cat((self._last[seats], ids)) if rows else ids,
            positions=positions,
            places=places,
            decoding=decoding,
            entering=entering,
            last=last,
            copied_from=copied_from if len(copied_from) else None,
            copied_to=copied_to if len(copied_to) else None,
        )
        return self.decoder.forward(batch, self.cache)

    # --- copies --------------------------------------------------------------------------------

    def _upload(self, values: list[int]) -> Tensor:
        return self._moved(np.array(values, dtype=np.int64))

    def _moved(self, array: NDArray[np.int64]) -> Tensor:
        return self._pinned(array).to(self._device, non_blocking=self._device.type == "cuda")

    def _pinned(self, array: NDArray[np.int64]) -> Tensor:
        """Return the array where a copy need not wait; torch keeps pinned memory until its copies are done."""
        tensor = torch.from_numpy(array)
        return tensor.pin_memory() if self._device.type == "cuda" else tensor


def _arrays(step: Step) -> list[NDArray[np.int64]]:
    """Return what a step with prompts uploads, in the order in which `_run_mixed` takes it apart."""
    rows, chunks = len(step.seats), step.chunks
    lengths = [len(chunk.tokens) for chunk in chunks]
    ends = rows + np.cumsum(lengths)
    places = [np.arange(chunk.start, chunk.start + len(chunk.tokens)) for chunk in chunks]
    decoding = np.array(step.positions, dtype=np.int64)
    begins = np.array(step.begins, dtype=np.int64)
    copied_from = [np.arange(place, place + count) for chunk in chunks for place, count in chunk.pieces]
    copied_to = [np.arange(chunk.begin, chunk.begin + sum(n for _, n in chunk.pieces)) for chunk in chunks]
    nothing = np.zeros(0, dtype=np.int64)
    arrays = [
        np.array(step.seats, dtype=np.int64),
        # One more than there are rows, as the kernel wants it.
        np.append(begins, 0),
        np.concatenate([decoding, *places]),
        np.concatenate([np.array(chunk.tokens, dtype=np.int64) for chunk in chunks]),
        np.concatenate(
            [begins + decoding, *(chunk.begin + place for chunk, place in zip(chunks, places, strict=True))]
        ),
        np.array([*range(rows), *(end - 1 for end, chunk in zip(ends, chunks, strict=True) if chunk.is_last)]),
        np.concatenate([[0], np.cumsum(lengths)]),
        np.array([*(chunk.begin for chunk in chunks), 0]),
        np.array([chunk.start + length for chunk, length in zip(chunks, lengths, strict=True)]),
        np.concatenate([nothing, *copied_from]),
        np.concatenate([nothing, *copied_to]),
    ]
    return [array.astype(np.int64) for array in arrays]
