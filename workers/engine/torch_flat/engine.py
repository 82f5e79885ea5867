"""The continuous batcher over a flat cache: while the device computes one step, the host reads the one before."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from pipeline.ports.engine import EngineResult
from workers.engine.torch_chat.engine import RowEngine, TorchOptions
from workers.engine.torch_chat.memory import MemoryLimit
from workers.engine.torch_chat.rows import Row
from workers.engine.torch_flat.extents import Extents, grains
from workers.engine.torch_flat.flights import Flights, Plan, plan_step
from workers.engine.torch_flat.launcher import SCRATCH_TOKENS, Launched, Launcher

#: Rows enter when this share of the seats and of the cache is free: a step with prompts is not captured, and
#: with one row at a time none would be.
ENTER_SHARE: Final = 1 / 16
#: How much larger than the present cache the limit must have become to be worth a new one.
GROWTH_MIN: Final = 1.1


@dataclass(frozen=True, slots=True, kw_only=True)
class FlatOptions(TorchOptions):
    """Settings of the engine, by what suits a GPU."""

    slots: int = 512
    lookahead: int = 512
    #: Prompt tokens that enter in one step; a longer prompt enters over several.
    prefill_tokens: int = 8192
    #: Memory for keys and values; 0: what the device has free, less a tenth and what a step needs.
    cache_bytes_max: int = 0
    #: Capture decode steps as CUDA graphs.
    graphs: bool = True
    #: Fuse elementwise operations with torch.compile.
    fuse: bool = True


class FlatEngine(RowEngine):
    """One Llama-shaped model on CUDA; implements `Engine`.

    A step is launched before the last one's tokens are read, so an end token is seen one step late: the row
    is computed once more, and that token dropped.
    """

    def __init__(self, model: str, *, launcher: Launcher, **rest: Any) -> None:  # noqa: ANN401 -- whatever `RowEngine` takes
        """Run rows by `launcher`; the rest is `RowEngine`'s."""
        super().__init__(model, context_tokens=launcher.decoder.context_tokens, **rest)
        self._launcher = launcher
        self._bytes_per_token = launcher.decoder.cache_shape.bytes_per_token
        #: The largest cache there will be, in tokens.
        self._cache_tokens = launcher.cache_tokens
        self._memory = MemoryLimit(self._cache_tokens * self._bytes_per_token)
        self._flights = self._none_flying()
        #: The step on its way, if any.
        self._underway: tuple[Plan, Launched] | None = None

    def close(self) -> None:
        """Free the cache and forget every row."""
        super().close()
        self._underway = None
        self._launcher.resize(0)
        self._flights = self._none_flying()

    def _pass(self) -> list[EngineResult]:
        # Where the host chooses tokens, it must know the last ones first, and then nothing is launched ahead.
        results = self._landed() if self._flights.host_bound else []
        self._enter()
        plan = plan_step(self._flights.flying)
        if plan is None:
            return results + self._landed()
        self._count(plan)
        if self._flights.host_bound:
            results += self._landed()
            return results + self._extended(plan, self._chosen_by_host(plan))
        launched = self._launcher.launch(plan.step, plan.draws)
        results += self._landed()
        self._underway = (plan, launched)
        return results

    def _landed(self) -> list[EngineResult]:
        """Wait for the step on its way and return the rows that ended in it."""
        if self._underway is None:
            return []
        (plan, launched), self._underway = self._underway, None
        return self._extended(plan, launched.tokens())

    def _chosen_by_host(self, plan: Plan) -> list[int]:
        launched = self._launcher.launch(plan.step, ())
        if not plan.flights:
            return []
        tokens = self._choose(launched.logits.float(), [flight.row for flight in plan.flights])
        self._launcher.give(plan.step, tokens)
        return tokens

    def _extended(self, plan: Plan, tokens: list[int]) -> list[EngineResult]:
        landed = zip(plan.flights, tokens, strict=True)
        ended = [flight for flight, token in landed if not flight.has_ended and self._extend(flight.row, token)]
        self._flights.leave(ended)
        self._memory.note_clean()
        return self._results_of([flight.row for flight in ended])

    def _count(self, plan: Plan) -> None:
        self._counters.note_step(len(plan.flights), self._options.slots)
        self._prefilled += plan.tokens_prefilled
        self._cached += plan.tokens_copied

    # --- entering ------------------------------------------------------------------------------

    def _enter(self) -> None:
        """Move waiting rows into flight while seats, memory and the next step's prompt tokens last."""
        if not self._flights.flying and self._waiting:
            self._make_cache()
        budget = self._flights.grant(self._options.prefill_tokens)
        if not self._is_time_to_enter():
            return
        while self._waiting and budget > 0:
            taken = self._flights.enter(self._waiting[-1], budget)
            if taken is None:
                break
            self._waiting.pop()
            budget -= taken

    def _is_time_to_enter(self) -> bool:
        flights = self._flights
        if not any(flight.is_decoding for flight in flights.flying) or any(f.is_entering for f in flights.flying):
            return True
        seats = min(len(self._waiting), int(self._options.slots * ENTER_SHARE))
        return (
            len(flights.free_seats) >= seats
            and flights.extents.free_tokens >= self._launcher.cache_tokens * ENTER_SHARE
        )

    def _make_cache(self) -> None:
        """Have a cache of what memory allows, and of what the next row needs; only while nothing is in it."""
        present = self._launcher.cache_tokens
        wanted = self._wanted_tokens()
        if present < self._needed_tokens() or wanted >= present * GROWTH_MIN:
            self._launcher.resize(wanted)
        self._flights = self._none_flying()

    def _wanted_tokens(self) -> int:
        return max(self._memory.bytes_max // self._bytes_per_token, self._needed_tokens())

    def _needed_tokens(self) -> int:
        return SCRATCH_TOKENS + (grains(self._waiting[-1].tokens_max) if self._waiting else 0)

    def _none_flying(self) -> Flights:
        extents = Extents(self._launcher.cache_tokens, kept=SCRATCH_TOKENS)
        seats = list(range(self._options.slots - 1, -1, -1))
        return Flights(extents=extents, free_seats=seats, shares_prefixes=self._options.shares_prefixes)

    def _cache_tokens_max(self) -> int:
        """Return the longest row that the largest cache holds alone."""
        return (self._cache_tokens - SCRATCH_TOKENS) // grains(1) * grains(1)

    # --- leaving -------------------------------------------------------------------------------

    def _running(self) -> int:
        return len(self._flights.flying)

    def _forget(self, keys: frozenset[int]) -> None:
        self._flights.leave([flight for flight in self._flights.flying if flight.row.asked.request.key in keys])

    def _retreat(self) -> None:
        """Put every row back to wait with what it has said so far; the next cache is smaller."""
        rows = [flight.row for flight in self._flights.flying]
        tokens = self._launcher.cache_tokens or self._wanted_tokens()
        self._underway = None
        self._launcher.resize(0)
        self._flights = self._none_flying()
        self._put_back(rows, tokens * self._bytes_per_token, alone=self._alone(rows, tokens))

    def _alone(self, rows: list[Row], tokens: int) -> int | None:
        """Return the key of the row that failed in a cache of `tokens`, if that is no more than it needs itself."""
        row = rows[0] if len(rows) == 1 else self._waiting[-1] if not rows else None
        if row is None or tokens > SCRATCH_TOKENS + grains(row.tokens_max):
            return None
        return row.asked.request.key
