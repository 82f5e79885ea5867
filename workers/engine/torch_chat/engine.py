"""The continuous batcher: rows enter free slots between steps, and leave the moment they are done."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from pipeline.domain.errors import RequestRefusedError
from pipeline.domain.parameters import sampling_of
from pipeline.ports.engine import EngineRequest, EngineResult
from pipeline.ports.meters import EngineIdentity, EngineMeters
from workers.engine.answers import failure, refusal, unwrapped, utc_now
from workers.engine.asked import Asked
from workers.engine.counters import Counters
from workers.engine.generation import check_tokens, endpoints_of, ends_of, output_bound
from workers.engine.grammars import Grammars
from workers.engine.pieces import Pieces
from workers.engine.text import StopFinder, prompts_of
from workers.engine.torch_chat.decoder import Decoder, Prefill
from workers.engine.torch_chat.rows import Row
from workers.engine.torch_chat.sampler import choose
from workers.engine.torch_chat.slots import bucket
from workers.engine.torch_chat.told import RawLogprobs

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
    #: Copy a prefix from a row in flight that begins alike, instead of computing it.
    shares_prefixes: bool = True
    #: Keep generating past the end token, up to the bound; for measurements.
    ignore_end: bool = False


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
        vocabulary: int,
        options: TorchOptions,
        identity: EngineIdentity,
        now: Callable[[], datetime] = utc_now,
    ) -> None:
        """Serve `decoder` under the name `model`; `end_tokens` are the ids that end an answer.

        `vocabulary` is how many logits the decoder gives.
        """
        self.model = model
        self.endpoints = endpoints_of(tokenizer)
        self._decoder = decoder
        self._tokenizer = tokenizer
        self._pieces = Pieces(tokenizer)
        self._grammars = Grammars(tokenizer, end_tokens, vocabulary)
        self._end_tokens = frozenset() if options.ignore_end else end_tokens
        self._vocabulary = vocabulary
        self._options = options
        self._shares_prefixes = decoder.shares_prefixes and options.shares_prefixes
        self.identity = identity
        self._now = now
        #: The requests whose choices wait or run, by key.
        self._asked: dict[int, Asked] = {}
        #: Sorted so that of the earliest generation the row expected to run longest is last, where it is popped.
        self._waiting: list[Row] = []
        self._arrived = 0
        #: Slot i holds row i: the rows in flight are always the first slots.
        self._slots: list[Row] = []
        #: Rows that ended without the model.
        self._ended: list[EngineResult] = []
        self._counters = Counters()
        self._prefilled = self._cached = self._padding = 0

    def room(self) -> int:
        """Return how many more rows are worth taking: the free slots and a bounded look-ahead."""
        held = len(self._waiting) + len(self._slots) + len(self._ended)
        return max(0, self._options.slots + self._options.lookahead - held)

    def in_flight(self) -> int:
        """Return how many added rows have not come back yet."""
        return len(self._asked) + len(self._ended)

    def add(self, requests: Sequence[EngineRequest]) -> None:
        """Tokenize rows in bulk and queue them, the longest of about as many as are in flight first."""
        for request, prompt in zip(requests, prompts_of(self._tokenizer, requests), strict=True):
            try:
                self._waiting += self._rows(request, unwrapped(prompt))
            except RequestRefusedError as error:
                self._ended.append(refusal(request, error))
            except Exception as error:  # noqa: BLE001 -- one row's failure is that row's error, never a raise
                self._ended.append(failure(request, error))
        self._arrived += len(requests)
        # A long row started last would run alone at the end, with every other slot empty. Yet a short one that each
        # later long one overtook would hold its pack open, and with it the lease of the next: hence generations.
        self._waiting.sort(key=lambda row: (-row.generation, row.asked.output_max, len(row.prompt)))

    def step(self) -> Sequence[EngineResult]:
        """Admit rows into free slots, run one step of the model, and return the rows that finished."""
        results, self._ended = self._ended, []
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
        raw = RawLogprobs(logits, self._slots)
        tokens = choose(logits, self._slots)
        raw.note(tokens)
        ended: list[int] = []
        for slot, (row, token) in enumerate(zip(self._slots, tokens, strict=True)):
            if not self._extend(row, token):
                continue
            ended.append(slot)
            if row.asked.is_over:
                del self._asked[row.asked.request.key]
                results.append(
                    row.asked.result(model=self.model, fingerprint=self.identity.fingerprint, now=self._now())
                )
        self._vacate(ended)
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
        self._vacate([slot for slot, row in enumerate(self._slots) if row.asked.request.key in gone])

    def close(self) -> None:
        """Free the cache and forget every row."""
        self._asked, self._waiting, self._slots, self._ended = {}, [], [], []
        self._decoder.cache.release()

    # --- entering ------------------------------------------------------------------------------

    def _rows(self, request: EngineRequest, prompt: list[int]) -> list[Row]:
        """Return a row for each choice; they wait side by side, so that all but the first share its prompt's keys."""
        sampling = sampling_of(request.endpoint, request.body)
        check_tokens(sampling, self._vocabulary)
        tokens_max = min(self._decoder.context_tokens, self._cache_tokens_max())
        output_max = output_bound(request, prompt, sampling, tokens_max=tokens_max)
        asked = Asked(request, sampling, prompt, output_max, ends_of(sampling, self._end_tokens))
        rows = [
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
        self._asked[request.key] = asked
        return rows

    def _cache_tokens_max(self) -> int:
        """Return the longest row that fits the cache's byte budget alone, in whole buckets."""
        tokens = self._options.cache_bytes_max // self._decoder.cache.shape.bytes_per_token
        return tokens // bucket(1) * bucket(1)

    def _admit(self) -> list[Prefill]:
        """Move waiting rows into free slots while slots, memory and this step's prompt tokens last."""
        prefills: list[Prefill] = []
        budget = self._options.prefill_tokens
        longest = max((row.asked.tokens_max for row in self._slots), default=0)
        while self._waiting and len(self._slots) < self._options.slots:
            row = self._waiting[-1]
            longest = max(longest, row.asked.tokens_max)
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
        return self._bytes(rows, tokens) <= self._options.cache_bytes_max

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

    def _prefill(self, row: Row) -> Prefill:
        """Return how `row` enters the next slot: whole, or from the prefix it shares with a row already there."""
        source, start = 0, 0
        if self._shares_prefixes and len(row.prompt) > PREFIX_TOKENS_MIN:
            source, start = self._longest_prefix(row.prompt)
        return Prefill(slot=len(self._slots), tokens=row.prompt[start:], start=start, source=source)

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
