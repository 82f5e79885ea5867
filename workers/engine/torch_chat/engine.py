"""Rows on their way through an engine: tokenized, waiting, growing token by token, answered."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import torch
from torch import Tensor

from pipeline.domain.parameters import sampling_of
from pipeline.ports.engine import EngineRequest, EngineResult
from pipeline.ports.meters import EngineIdentity, EngineMeters
from workers.engine.answers import drafted, utc_now
from workers.engine.asked import Asked
from workers.engine.counters import Counters
from workers.engine.generation import endpoints_of
from workers.engine.grammars import Grammars
from workers.engine.pieces import Pieces
from workers.engine.text import StopFinder, prompts_of
from workers.engine.torch_chat.memory import MemoryLimit, is_out_of_memory, too_large
from workers.engine.torch_chat.rows import Row
from workers.engine.torch_chat.sampler import choose
from workers.engine.torch_chat.told import RawLogprobs

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class TorchOptions:
    """Settings of the engine."""

    #: Rows that decode together.
    slots: int = 64
    #: Tokenized rows kept waiting, so that a slot that frees is filled in the next step.
    lookahead: int = 64
    #: Prompt tokens that enter in one step; a longer prompt enters alone.
    prefill_tokens: int = 2048
    #: Memory for keys and values.
    cache_bytes_max: int = 2 * 1024**3
    #: Copy a prefix from a row in flight that begins alike, instead of computing it.
    shares_prefixes: bool = True
    #: Keep generating past the end token, up to the bound; for measurements.
    ignore_end: bool = False


def _order(row: Row) -> tuple[int, int, int]:
    return (-row.generation, row.asked.output_max, len(row.prompt))


class RowEngine:
    """What the two engines of this package do alike with rows; what runs them is `_pass`'s."""

    name = "torch"

    def __init__(
        self,
        model: str,
        *,
        context_tokens: int,
        tokenizer: Any,  # noqa: ANN401 -- transformers has no types
        end_tokens: frozenset[int],
        vocabulary: int,
        options: TorchOptions,
        identity: EngineIdentity,
        now: Callable[[], datetime] = utc_now,
    ) -> None:
        """Serve a model of `context_tokens` under the name `model`; `end_tokens` are the ids that end an answer.

        `vocabulary` is how many logits it gives.
        """
        self.model = model
        self.endpoints = endpoints_of(tokenizer)
        self._context_tokens = context_tokens
        self._tokenizer = tokenizer
        self._pieces = Pieces(tokenizer)
        self._grammars = Grammars(tokenizer, end_tokens, vocabulary)
        self._vocabulary = vocabulary
        self._end_tokens = frozenset() if options.ignore_end else end_tokens
        self._options = options
        self.identity = identity
        self._now = now
        #: The requests whose choices wait or run, by key.
        self._asked: dict[int, Asked] = {}
        #: Sorted so that of the earliest generation the row expected to run longest is last, where it is popped.
        self._waiting: list[Row] = []
        self._arrived = 0
        self._memory = MemoryLimit(options.cache_bytes_max)
        #: Rows that ended without the model.
        self._ended: list[EngineResult] = []
        self._counters = Counters()
        self._prefilled = self._cached = self._padding = 0

    def room(self) -> int:
        """Return how many more rows are worth taking: the free slots and a bounded look-ahead."""
        held = len(self._waiting) + self._running() + len(self._ended)
        return max(0, self._options.slots + self._options.lookahead - held)

    def in_flight(self) -> int:
        """Return how many added rows have not come back yet."""
        return len(self._asked) + len(self._ended)

    def add(self, requests: Sequence[EngineRequest]) -> None:
        """Tokenize rows in bulk and queue them, the longest of about as many as are in flight first."""
        taken, ended = drafted(requests, prompts_of(self._tokenizer, requests), self._rows)
        for rows in taken:
            self._asked[rows[0].asked.request.key] = rows[0].asked
            self._waiting += rows
        self._ended += ended
        self._arrived += len(requests)
        # A long row started last would run alone at the end, with every other slot empty. Yet a short one that each
        # later long one overtook would hold its pack open, and with it the lease of the next: hence generations.
        self._waiting.sort(key=_order)

    def step(self) -> Sequence[EngineResult]:
        """Admit rows into free slots, run one step of the model, and return the rows that finished."""
        results, self._ended = self._ended, []
        try:
            results += self._pass()
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            is_short = True
        else:
            is_short = False
        # Not inside `except`: the error's frames hold the tensors whose memory is wanted back.
        if is_short:
            self._retreat()
        return results

    def meters(self) -> EngineMeters:
        """Return the counters; each row computed in a step is one output token."""
        return self._counters.meters(
            tokens_prefilled=self._prefilled,
            tokens_cached=self._cached,
            tokens_generated=self._counters.slot_steps_busy,
            tokens_padding=self._padding,
        )

    def abort(self, keys: Sequence[int]) -> None:
        """Forget these rows, wherever they are."""
        gone = frozenset(keys)
        for key in gone & self._asked.keys():
            del self._asked[key]
        self._waiting = [row for row in self._waiting if row.asked.request.key not in gone]
        self._ended = [result for result in self._ended if result.key not in gone]
        self._forget(gone)

    def close(self) -> None:
        """Free the device memory and forget every row."""
        self._asked, self._waiting, self._ended = {}, [], []

    # --- entering ------------------------------------------------------------------------------

    def _rows(self, request: EngineRequest, prompt: list[int]) -> list[Row]:
        """Return a row for each choice; they wait side by side, so that all but the first share its prompt's keys."""
        sampling = sampling_of(request.endpoint, request.body)
        asked = Asked.of(
            request,
            sampling,
            prompt,
            vocabulary=self._vocabulary,
            tokens_max=min(self._context_tokens, self._cache_tokens_max()),
            end_tokens=self._end_tokens,
        )
        return [
            Row(
                asked=asked,
                index=index,
                seed=asked.seed(index),
                generation=self._arrived // (self._options.slots + self._options.lookahead),
                stop_finder=StopFinder(self._tokenizer, sampling.stop, sampling.min_tokens) if sampling.stop else None,
                matcher=self._grammars.matcher(sampling.constraint) if sampling.constraint else None,
            )
            for index in range(sampling.n)
        ]

    # --- leaving -------------------------------------------------------------------------------

    def _extend(self, row: Row, token: int) -> bool:
        """Add `token` to the choice and say whether that ends it."""
        try:
            is_stopped = row.takes(token)
            if not is_stopped and len(row.output) < row.asked.output_max:
                return False
            row.asked.end(
                row.index,
                self._tokenizer,
                output=row.output,
                is_stopped=is_stopped,
                told=row.told,
                pieces=self._pieces,
            )
        except Exception as error:  # noqa: BLE001 -- one row's text is that row's error, its neighbours go on
            row.asked.fail(row.index, error)
        return True

    def _results_of(self, ended: Iterable[Row]) -> list[EngineResult]:
        """Return the results of the requests whose last choice is among the rows that `ended`."""
        over = [row.asked for row in ended if row.asked.is_over]
        # Two choices of one request may end in the same step.
        asked = [each for each in dict.fromkeys(over) if self._asked.pop(each.request.key, None) is not None]
        return [each.result(model=self.model, fingerprint=self.identity.fingerprint, now=self._now()) for each in asked]

    def _choose(self, logits: Tensor, rows: Sequence[Row]) -> list[int]:
        """Return the next token of each row from its logits, float32, which may be changed."""
        raw = RawLogprobs(logits, rows)
        tokens = choose(logits, rows)
        raw.note(tokens)
        return tokens

    # --- what runs the rows ----------------------------------------------------------------------

    def _pass(self) -> list[EngineResult]:
        """Move waiting rows in while there is room, run the model once and return the rows that ended."""
        raise NotImplementedError

    def _retreat(self) -> None:
        """Put the rows that run back to wait, after memory ran out, and plan for less."""
        raise NotImplementedError

    def _running(self) -> int:
        """Return how many rows run."""
        raise NotImplementedError

    def _forget(self, keys: frozenset[int]) -> None:
        """Take rows out that will not be asked for any more."""
        raise NotImplementedError

    def _cache_tokens_max(self) -> int:
        """Return the longest row that memory holds, alone."""
        raise NotImplementedError

    def _put_back(self, rows: Sequence[Row], bytes_tried: int, *, alone: int | None) -> None:
        """Let `rows` wait again after `bytes_tried` were too much; see `MemoryLimit.note_failure`."""
        # Does nothing where CUDA was never used.
        torch.cuda.empty_cache()
        self._waiting += rows
        self._waiting.sort(key=_order)
        given_up = self._memory.note_failure(bytes_tried, alone)
        if given_up is not None:
            # Its other choices would not fit either: they are as long.
            self._ended.append(too_large(self._asked.pop(given_up).request))
            self._waiting = [row for row in self._waiting if row.asked.request.key != given_up]
        _LOG.warning(
            "engine_out_of_memory",
            extra={"rows": len(rows), "bytes_tried": bytes_tried, "bytes_max": self._memory.bytes_max},
        )
