"""Rows on their way through an engine: tokenized, waiting, growing token by token, answered."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import torch
from torch import Tensor

from pipeline.domain.errors import RequestRefusedError
from pipeline.domain.parameters import Sampling, sampling_of
from pipeline.ports.engine import EngineRequest, EngineResult
from pipeline.ports.meters import EngineIdentity, EngineMeters
from workers.engine.answers import (
    body_digest,
    failure,
    generation_body,
    generation_usage,
    refusal,
    seed_of,
    unwrapped,
    utc_now,
)
from workers.engine.counters import Counters
from workers.engine.generation import endpoints_of, output_bound
from workers.engine.text import StopFinder, answer_text, prompts_of
from workers.engine.torch_chat.memory import MemoryLimit, is_out_of_memory, too_large
from workers.engine.torch_chat.sampler import choose

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
    #: Keep generating past the end token, up to the bound; for measurements.
    ignore_end: bool = False


@dataclass(slots=True, eq=False)
class Row:
    """A row in flight. Its phase is where it is held: waiting list, or slot."""

    request: EngineRequest
    digest: bytes
    sampling: Sampling
    seed: int
    prompt: list[int]
    #: Rows of an earlier one enter first.
    generation: int
    #: Output tokens this row may have: its bound, or what the context leaves.
    output_max: int
    stop_finder: StopFinder | None
    output: list[int] = field(default_factory=list)

    @property
    def tokens_max(self) -> int:
        """Return how long prompt and answer together may become."""
        return len(self.prompt) + self.output_max

    @property
    def sequence(self) -> list[int]:
        """Return what the cache must hold before the next token: a row that was put back has an answer begun."""
        return self.prompt + self.output if self.output else self.prompt


def _order(row: Row) -> tuple[int, int, int]:
    return (-row.generation, row.output_max, len(row.prompt))


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
        options: TorchOptions,
        identity: EngineIdentity,
        now: Callable[[], datetime] = utc_now,
    ) -> None:
        """Serve a model of `context_tokens` under the name `model`; `end_tokens` are the ids that end an answer."""
        self.model = model
        self.endpoints = endpoints_of(tokenizer)
        self._context_tokens = context_tokens
        self._tokenizer = tokenizer
        self._end_tokens = frozenset() if options.ignore_end else end_tokens
        self._options = options
        self.identity = identity
        self._fingerprint = identity.fingerprint
        self._now = now
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
        return max(0, self._options.slots + self._options.lookahead - self.in_flight())

    def in_flight(self) -> int:
        """Return how many added rows have not come back yet."""
        return len(self._waiting) + self._running() + len(self._ended)

    def add(self, requests: Sequence[EngineRequest]) -> None:
        """Tokenize rows in bulk and queue them, the longest of about as many as are in flight first."""
        for request, prompt in zip(requests, prompts_of(self._tokenizer, requests), strict=True):
            try:
                self._waiting.append(self._row(request, unwrapped(prompt)))
            except RequestRefusedError as error:
                self._ended.append(refusal(request, error))
            except Exception as error:  # noqa: BLE001 -- one row's failure is that row's error, never a raise
                self._ended.append(failure(request, error))
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
        self._waiting = [row for row in self._waiting if row.request.key not in gone]
        self._ended = [result for result in self._ended if result.key not in gone]
        self._forget(gone)

    def close(self) -> None:
        """Free the device memory and forget every row."""
        self._waiting, self._ended = [], []

    # --- entering ------------------------------------------------------------------------------

    def _row(self, request: EngineRequest, prompt: list[int]) -> Row:
        sampling = sampling_of(request.endpoint, request.body)
        tokens_max = min(self._context_tokens, self._cache_tokens_max())
        output_max = output_bound(request, prompt, sampling, tokens_max=tokens_max)
        digest = body_digest(request.body)
        return Row(
            request=request,
            digest=digest,
            sampling=sampling,
            seed=seed_of(digest) if sampling.seed is None else sampling.seed,
            prompt=prompt,
            generation=self._arrived // (self._options.slots + self._options.lookahead),
            output_max=output_max,
            stop_finder=StopFinder(self._tokenizer, sampling.stop) if sampling.stop else None,
        )

    # --- leaving -------------------------------------------------------------------------------

    def _extend(self, row: Row, token: int) -> EngineResult | None:
        """Add `token` to the answer and return the result if that ends it."""
        row.output.append(token)
        try:
            if token in self._end_tokens:
                return self._result(row, "stop")
            if row.stop_finder is not None and row.stop_finder.found(row.output):
                return self._result(row, "stop")
            return self._result(row, "length") if len(row.output) >= row.output_max else None
        except Exception as error:  # noqa: BLE001 -- one row's text is that row's error, its neighbours go on
            return failure(row.request, error)

    def _result(self, row: Row, finish_reason: str) -> EngineResult:
        # The end token is not text, yet it was computed and is counted, as OpenAI counts it.
        tokens = row.output[:-1] if row.output[-1] in self._end_tokens else row.output
        body = generation_body(
            row.request.endpoint,
            digest=row.digest,
            created=int(self._now().timestamp()),
            model=self.model,
            text=answer_text(self._tokenizer, tokens, row.sampling.stop),
            finish_reason=finish_reason,
            usage=generation_usage(len(row.prompt), len(row.output)),
            fingerprint=self._fingerprint,
        )
        return EngineResult(row.request.key, 200, body, len(row.prompt), len(row.output))

    def _choose(self, logits: Tensor, rows: Sequence[Row]) -> list[int]:
        """Return the next token of each row from its logits, float32, which may be changed."""
        return choose(logits, rows)

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
            self._ended += [too_large(row.request) for row in self._waiting if row.request.key == given_up]
            self._waiting = [row for row in self._waiting if row.request.key != given_up]
        _LOG.warning(
            "engine_out_of_memory",
            extra={"rows": len(rows), "bytes_tried": bytes_tried, "bytes_max": self._memory.bytes_max},
        )
