"""The continuous batcher over a slot cache: rows enter free slots between steps, and leave the moment they are done."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pipeline.ports.engine import EngineResult
from workers.engine.torch_chat.decoder import Decoder, Prefill
from workers.engine.torch_chat.engine import RowEngine
from workers.engine.torch_chat.prefixes import PREFIX_SOURCES_MAX, PREFIX_TOKENS_MIN, shared_tokens
from workers.engine.torch_chat.rows import Row
from workers.engine.torch_chat.slots import bucket


class TorchEngine(RowEngine):
    """One causal language model over a slot cache; implements `Engine` for chat and text completions."""

    def __init__(self, model: str, *, decoder: Decoder, **rest: Any) -> None:  # noqa: ANN401 -- whatever `RowEngine` takes
        """Serve `decoder`; the rest is `RowEngine`'s."""
        super().__init__(model, context_tokens=decoder.context_tokens, **rest)
        self._decoder = decoder
        self._shares_prefixes = decoder.shares_prefixes and self._options.shares_prefixes
        #: Slot i holds row i: the rows in flight are always the first slots.
        self._slots: list[Row] = []

    def close(self) -> None:
        """Free the cache and forget every row."""
        super().close()
        self._slots = []
        self._decoder.cache.release()

    def _pass(self) -> list[EngineResult]:
        prefills = self._admit()
        if not self._slots:
            return []
        decoding = self._slots[: len(self._slots) - len(prefills)]
        logits = self._decoder.forward(
            [row.output[-1] for row in decoding],
            [len(row.prompt) + len(row.output) - 1 for row in decoding],
            prefills,
        )
        self._count(prefills)
        chosen = zip(self._slots, self._choose(logits, self._slots), strict=True)
        ended = [slot for slot, (row, token) in enumerate(chosen) if self._extend(row, token)]
        results = self._results_of([self._slots[slot] for slot in ended])
        self._vacate(ended)
        self._memory.note_clean()
        return results

    def _retreat(self) -> None:
        """Put every row back to wait with what it has said so far, and plan for less memory."""
        rows, self._slots = self._slots, []
        tried = self._bytes(len(rows), max(len(row.sequence) for row in rows))
        self._decoder.cache.release()
        self._put_back(rows, tried, alone=rows[0].asked.request.key if len(rows) == 1 else None)

    def _running(self) -> int:
        return len(self._slots)

    def _forget(self, keys: frozenset[int]) -> None:
        self._vacate([slot for slot, row in enumerate(self._slots) if row.asked.request.key in keys])

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

    def _prefill(self, row: Row) -> Prefill:
        """Return how `row` enters the next slot: whole, or from the prefix it shares with a row already there."""
        source, start = 0, 0
        sequence = row.sequence
        if self._shares_prefixes and len(sequence) > PREFIX_TOKENS_MIN:
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
            shared = shared_tokens(prompt, other)
            if shared > best[1]:
                best = (slot, shared)
            tried += 1
            if tried == PREFIX_SOURCES_MAX:
                break
        return best

    def _count(self, prefills: Sequence[Prefill]) -> None:
        self._counters.note_step(len(self._slots), self._options.slots)
        if not prefills:
            return
        lengths = [len(prefill.tokens) for prefill in prefills]
        self._prefilled += sum(lengths)
        self._cached += sum(prefill.start for prefill in prefills)
        if self._decoder.pads_prompts:
            self._padding += max(lengths) * len(lengths) - sum(lengths)

    def _vacate(self, ended: Sequence[int]) -> None:
        """Take the rows of these slots out, moving the last rows into the holes so that no step computes a hole."""
        for slot in sorted(ended, reverse=True):
            last = self._slots.pop()
            if slot < len(self._slots):
                # Everything but the newest token's keys, which its own next step writes.
                self._decoder.cache.copy(len(self._slots), slot, len(last.prompt) + len(last.output) - 1)
                self._slots[slot] = last
