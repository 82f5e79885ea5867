"""The continuous batcher: rows enter free slots between steps, and leave the moment they are done."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

import torch

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
from workers.engine.torch_chat.decoder import Decoder, Prefill
from workers.engine.torch_chat.memory import MemoryLimit, is_out_of_memory, too_large
from workers.engine.torch_chat.sampler import choose
from workers.engine.torch_chat.slots import bucket

_LOG = logging.getLogger(__name__)

#: A shared prefix shorter than this is cheaper to compute than to look for and copy.
PREFIX_TOKENS_MIN: Final = 16
#: Slots compared with a prompt for the longest shared prefix.
PREFIX_SOURCES_MAX: Final = 8


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
class _Row:
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
        return len(self.prompt) + self.output_max

    @property
    def sequence(self) -> list[int]:
        """What the cache must hold before the next token: a row that was put back has an answer begun."""
        return self.prompt + self.output if self.output else self.prompt


def _order(row: _Row) -> tuple[int, int, int]:
    return (-row.generation, row.output_max, len(row.prompt))


class TorchEngine:
    """One causal language model; implements `Engine` for chat and text completions."""

    name = "torch"

    def __init__(
        self,
        model: str,
        *,
        decoder: Decoder,
        tokenizer: Any,  # noqa: ANN401 -- transformers has no types
        end_tokens: frozenset[int],
        options: TorchOptions,
        identity: EngineIdentity,
        now: Callable[[], datetime] = utc_now,
    ) -> None:
        """Serve `decoder` under the name `model`; `end_tokens` are the ids that end an answer."""
        self.model = model
        self.endpoints = endpoints_of(tokenizer)
        self._decoder = decoder
        self._tokenizer = tokenizer
        self._end_tokens = frozenset() if options.ignore_end else end_tokens
        self._options = options
        self.identity = identity
        self._fingerprint = identity.fingerprint
        self._now = now
        #: Sorted so that of the earliest generation the row expected to run longest is last, where it is popped.
        self._waiting: list[_Row] = []
        self._arrived = 0
        self._memory = MemoryLimit(options.cache_bytes_max)
        #: Slot i holds row i: the rows in flight are always the first slots.
        self._slots: list[_Row] = []
        #: Rows that ended without the model.
        self._ended: list[EngineResult] = []
        self._counters = Counters()
        self._prefilled = self._cached = self._padding = 0

    def room(self) -> int:
        """Return how many more rows are worth taking: the free slots and a bounded look-ahead."""
        return max(0, self._options.slots + self._options.lookahead - self.in_flight())

    def in_flight(self) -> int:
        """Return how many added rows have not come back yet."""
        return len(self._waiting) + len(self._slots) + len(self._ended)

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

    def _pass(self) -> list[EngineResult]:
        results: list[EngineResult] = []
        prefills = self._admit()
        if not self._slots:
            return results
        decoding = self._slots[: len(self._slots) - len(prefills)]
        logits = self._decoder.forward(
            [row.output[-1] for row in decoding],
            [len(row.prompt) + len(row.output) - 1 for row in decoding],
            prefills,
        )
        self._count(prefills)
        ended: list[int] = []
        for slot, (row, token) in enumerate(zip(self._slots, choose(logits, self._slots), strict=True)):
            result = self._extend(row, token)
            if result is not None:
                results.append(result)
                ended.append(slot)
        self._vacate(ended)
        self._memory.note_clean()
        return results

    def _retreat(self) -> None:
        """Put every row back to wait with what it has said so far, and plan for less memory."""
        rows, self._slots = self._slots, []
        assert rows, "without rows nothing is allocated"
        tried = self._bytes(len(rows), max(len(row.sequence) for row in rows))
        self._decoder.cache.release()
        # Does nothing where CUDA was never used.
        torch.cuda.empty_cache()
        given_up = self._memory.note_failure(tried, [row.request.key for row in rows])
        self._ended += [too_large(row.request) for row in rows if row.request.key == given_up]
        self._waiting += [row for row in rows if row.request.key != given_up]
        self._waiting.sort(key=_order)
        _LOG.warning(
            "engine_out_of_memory",
            extra={"rows": len(rows), "bytes_tried": tried, "bytes_max": self._memory.bytes_max},
        )

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
        self._vacate([slot for slot, row in enumerate(self._slots) if row.request.key in gone])

    def close(self) -> None:
        """Free the cache and forget every row."""
        self._waiting, self._slots, self._ended = [], [], []
        self._decoder.cache.release()

    # --- entering ------------------------------------------------------------------------------

    def _row(self, request: EngineRequest, prompt: list[int]) -> _Row:
        sampling = sampling_of(request.endpoint, request.body)
        tokens_max = min(self._decoder.context_tokens, self._cache_tokens_max())
        output_max = output_bound(request, prompt, sampling, tokens_max=tokens_max)
        digest = body_digest(request.body)
        return _Row(
            request=request,
            digest=digest,
            sampling=sampling,
            seed=seed_of(digest) if sampling.seed is None else sampling.seed,
            prompt=prompt,
            generation=self._arrived // (self._options.slots + self._options.lookahead),
            output_max=output_max,
            stop_finder=StopFinder(self._tokenizer, sampling.stop) if sampling.stop else None,
        )

    def _cache_tokens_max(self) -> int:
        """Return the longest row that fits the cache's byte budget alone, in whole buckets."""
        tokens = self._options.cache_bytes_max // self._decoder.cache.shape.bytes_per_token
        return tokens // bucket(1) * bucket(1)

    def _admit(self) -> list[Prefill]:
        """Move waiting rows into free slots while slots, memory and this step's prompt tokens last."""
        prefills: list[Prefill] = []
        budget = self._options.prefill_tokens
        longest = max((row.tokens_max for row in self._slots), default=0)
        while self._waiting and len(self._slots) < self._options.slots:
            row = self._waiting[-1]
            longest = max(longest, row.tokens_max)
            if not self._fits(len(self._slots) + 1, longest):
                break
            prefill = self._prefill(row)
            if prefills and len(prefill.tokens) > budget:
                break
            budget -= len(prefill.tokens)
            self._waiting.pop()
            self._slots.append(row)
            prefills.append(prefill)
        if self._slots:
            self._decoder.cache.reserve(self._slots_held(len(self._slots)), self._tokens_after_step())
        return prefills

    def _fits(self, rows: int, tokens: int) -> bool:
        """Return whether `rows` slots of `tokens` stay inside the byte budget, to the end of their answers.

        The cache is one rectangle that never shrinks while rows are in it, so its present sides count too.
        """
        if self._bytes(rows, tokens) > self._options.cache_bytes_max and not self._slots:
            # Nobody is in it: start over with the shape that this row needs.
            self._decoder.cache.release()
        # One row may always try: what it may not exceed was checked when it came.
        return not self._slots or self._bytes(rows, tokens) <= self._memory.bytes_max

    def _bytes(self, rows: int, tokens: int) -> int:
        cache = self._decoder.cache
        slots = max(self._slots_held(rows), cache.slots)
        return slots * max(bucket(tokens), cache.tokens) * cache.shape.bytes_per_token

    def _slots_held(self, rows: int) -> int:
        """Return the slots to hold memory for: the next power of two, so that the cache is seldom copied."""
        return min(self._options.slots, 1 << (rows - 1).bit_length())

    def _tokens_after_step(self) -> int:
        return max(len(row.prompt) + len(row.output) for row in self._slots)

    def _count(self, prefills: Sequence[Prefill]) -> None:
        self._counters.note_step(len(self._slots), self._options.slots)
        if not prefills:
            return
        lengths = [len(prefill.tokens) for prefill in prefills]
        self._prefilled += sum(lengths)
        self._cached += sum(prefill.start for prefill in prefills)
        if self._decoder.pads_prompts:
            self._padding += max(lengths) * len(lengths) - sum(lengths)

    def _prefill(self, row: _Row) -> Prefill:
        """Return how `row` enters the next slot: whole, or from the prefix it shares with a row already there."""
        source, start = 0, 0
        sequence = row.sequence
        if self._decoder.shares_prefixes and len(sequence) > PREFIX_TOKENS_MIN:
            source, start = self._longest_prefix(sequence)
        return Prefill(slot=len(self._slots), tokens=sequence[start:], start=start, source=source)

    def _longest_prefix(self, prompt: list[int]) -> tuple[int, int]:
        """Return the slot whose prompt shares the longest prefix with `prompt`, and its length; 0, 0 if none."""
        head, best, tried = prompt[:PREFIX_TOKENS_MIN], (0, 0), 0
        # The newest slots first: rows of one source arrive together.
        for slot in range(len(self._slots) - 1, -1, -1):
            other = self._slots[slot].prompt
            if other[:PREFIX_TOKENS_MIN] != head:
                continue
            shared = _shared(prompt, other)
            if shared > best[1]:
                best = (slot, shared)
            tried += 1
            if tried == PREFIX_SOURCES_MAX:
                break
        return best

    # --- leaving -------------------------------------------------------------------------------

    def _extend(self, row: _Row, token: int) -> EngineResult | None:
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

    def _result(self, row: _Row, finish_reason: str) -> EngineResult:
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

    def _vacate(self, ended: Sequence[int]) -> None:
        """Take the rows of these slots out, moving the last rows into the holes so that no step computes a hole."""
        for slot in sorted(ended, reverse=True):
            last = self._slots.pop()
            if slot < len(self._slots):
                # Everything but the newest token's keys, which its own next step writes.
                self._decoder.cache.copy(len(self._slots), slot, len(last.prompt) + len(last.output) - 1)
                self._slots[slot] = last


def _shared(prompt: list[int], other: list[int]) -> int:
    """Return how many leading tokens are equal, leaving at least one of `prompt` to compute."""
    low, high = 0, min(len(prompt) - 1, len(other))
    while low < high:
        middle = (low + high + 1) // 2
        if prompt[low:middle] == other[low:middle]:
            low = middle
        else:
            high = middle - 1
    return low
