"""vLLM's continuous batcher behind the engine's port: one `step` here is one of its."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

from pipeline.domain.errors import RequestRefusedError
from pipeline.domain.parameters import sampling_of
from pipeline.ports.engine import EngineRequest, EngineResult
from pipeline.ports.meters import EngineIdentity, EngineMeters
from workers.engine.answers import drafted, refusal, utc_now
from workers.engine.asked import Asked
from workers.engine.counters import Counters
from workers.engine.generation import endpoints_of
from workers.engine.logprobs import TokenLogprobs
from workers.engine.pieces import Pieces
from workers.engine.text import StopFinder, prompts_of
from workers.engine.torch_chat.memory import MemoryLimit, is_out_of_memory, too_large
from workers.engine.vllm_chat.core import Core, Grown
from workers.engine.vllm_chat.options import VllmOptions
from workers.engine.vllm_chat.parameters import refuse_beyond, settings_of

_LOG = logging.getLogger(__name__)

_MESSAGE_CHARS_MAX: Final = 300


@dataclass(slots=True, eq=False)
class _Row:
    """A choice on its way."""

    asked: Asked
    #: Which of the request's choices.
    index: int
    output: list[int] = field(default_factory=list)
    told: list[TokenLogprobs] = field(default_factory=list)
    stop_finder: StopFinder | None = None

    def takes(self, grown: Grown) -> bool:
        """Add what is new, and say whether that brought the answer to an end: an end token or a stop string."""
        count = self.asked.sampling.logprobs or 0
        told = [TokenLogprobs(each.logprob, each.top[:count]) for each in grown.told]
        for i, token in enumerate(grown.tokens):
            self.output.append(token)
            self.told += told[i : i + 1]
            if token in self.asked.ends and len(self.output) > self.asked.sampling.min_tokens:
                return True
            if self.stop_finder is not None and self.stop_finder.found(self.output):
                return True
        return False


class VllmEngine:
    """One causal language model; implements `Engine` for chat and text completions."""

    name = "vllm"

    def __init__(  # noqa: PLR0913 -- what a model is, all by name
        self,
        model: str,
        *,
        core: Core,
        tokenizer: Any,  # noqa: ANN401 -- transformers has no types
        end_tokens: frozenset[int],
        vocabulary: int,
        tokens_max: int,
        options: VllmOptions,
        identity: EngineIdentity,
        now: Callable[[], datetime] = utc_now,
    ) -> None:
        """Serve `core` under the name `model`; `end_tokens` are the ids that end an answer.

        The model gives `vocabulary` logits; a row has `tokens_max` tokens at most, prompt and answer.
        """
        self.model = model
        self.endpoints = endpoints_of(tokenizer)
        self._core = core
        self._tokenizer = tokenizer
        self._pieces = Pieces(tokenizer)
        self._end_tokens = frozenset() if options.ignore_end else end_tokens
        self._vocabulary = vocabulary
        self._tokens_max = tokens_max
        self._options = options
        self.identity = identity
        self._now = now
        #: The requests whose choices wait or run, by key.
        self._asked: dict[int, Asked] = {}
        self._waiting: deque[_Row] = deque()
        #: What vLLM has, by the name it knows it under; a name is never used twice.
        self._rows: dict[str, _Row] = {}
        self._next_name = 0
        #: Requests that ended without the model.
        self._ended: list[EngineResult] = []
        #: In rows, where the torch engine's is in bytes: what is on the device besides the cache grows with them.
        self._limit = MemoryLimit(options.slots)
        self._counters = Counters()
        self._prefilled = self._cached = self._generated = 0

    def room(self) -> int:
        """Return how many more rows are worth taking: the free slots and a bounded look-ahead."""
        held = len(self._waiting) + len(self._rows) + len(self._ended)
        return max(0, self._options.slots + self._options.lookahead - held)

    def in_flight(self) -> int:
        """Return how many added rows have not come back yet."""
        return len(self._asked) + len(self._ended)

    def add(self, requests: Sequence[EngineRequest]) -> None:
        """Tokenize rows in bulk and queue them, of those that came together the longest first."""
        drafts, ended = drafted(requests, prompts_of(self._tokenizer, requests), self._draft)
        self._ended += ended
        for draft in sorted(drafts, key=lambda draft: draft.length_order):
            self._asked[draft.request.key] = draft
            self._waiting += [self._row(draft, index) for index in range(draft.sampling.n)]

    def step(self) -> Sequence[EngineResult]:
        """Hand rows to vLLM, run one step of it, and return the rows that finished.

        Raises:
            Exception: Whatever vLLM raises but for a lack of memory: it is not to be trusted any more.
        """
        self._feed()
        results, self._ended = self._ended, []
        if not self._rows:
            return results
        tried = len(self._rows)
        try:
            grown = self._core.step()
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            is_short = True
        else:
            is_short = False
        # Not inside `except`: the error's frames hold the tensors whose memory is wanted back.
        if is_short:
            self._retreat(tried)
            return results
        self._limit.note_clean()
        ended = [row for row in map(self._take, grown) if row is not None]
        self._counters.note_step(min(self._core.running() + len(ended), self._options.slots), self._options.slots)
        over = dict.fromkeys(row.asked for row in ended if row.asked.is_over)
        return results + [self._result(asked) for asked in over]

    def meters(self) -> EngineMeters:
        """Return the counters.

        Prompts that vLLM computed once more, after it had put their rows aside for lack of cache, are not told of and
        count once. It computes flat tokens, without padding.
        """
        return self._counters.meters(
            tokens_prefilled=self._prefilled,
            tokens_cached=self._cached,
            tokens_generated=self._generated,
            tokens_padding=0,
        )

    def abort(self, keys: Sequence[int]) -> None:
        """Forget these rows, wherever they are."""
        gone = frozenset(keys)
        for key in gone & self._asked.keys():
            del self._asked[key]
        self._ended = [result for result in self._ended if result.key not in gone]
        self._waiting = deque(row for row in self._waiting if row.asked.request.key not in gone)
        names = [name for name, row in self._rows.items() if row.asked.request.key in gone]
        self._core.abort(names)
        for name in names:
            del self._rows[name]

    def close(self) -> None:
        """Forget every row and free the model."""
        self._asked, self._rows, self._ended = {}, {}, []
        self._waiting.clear()
        self._core.close()

    # --- entering ------------------------------------------------------------------------------

    def _draft(self, request: EngineRequest, prompt: list[int]) -> Asked:
        sampling = sampling_of(request.endpoint, request.body)
        refuse_beyond(sampling)
        return Asked.of(
            request,
            sampling,
            prompt,
            vocabulary=self._vocabulary,
            tokens_max=self._tokens_max,
            end_tokens=self._end_tokens,
        )

    def _row(self, asked: Asked, index: int) -> _Row:
        sampling = asked.sampling
        finder = StopFinder(self._tokenizer, sampling.stop, sampling.min_tokens) if sampling.stop else None
        return _Row(asked=asked, index=index, stop_finder=finder)

    def _feed(self) -> None:
        """Hand over as many rows as run together: what waits there could not be put back in order."""
        while self._waiting and len(self._rows) < self._limit.bytes_max:
            row = self._waiting.popleft()
            asked, name = row.asked, str(self._next_name)
            self._next_name += 1
            try:
                settings = settings_of(asked, row.index)
                self._core.submit(name, asked.prompt, settings, is_watched=row.stop_finder is not None)
            except ValueError as error:
                # Its other choices would be refused too, and those that run belong to no answer.
                self.abort([asked.request.key])
                self._ended.append(refusal(asked.request, _refused(asked, error)))
            else:
                self._rows[name] = row

    # --- leaving -------------------------------------------------------------------------------

    def _take(self, grown: Grown) -> _Row | None:
        """Take what one choice got; return it if it has ended."""
        row = self._rows.get(grown.name)
        if row is None:
            return None
        try:
            is_stopped = row.takes(grown)
            if not is_stopped and grown.finish is None:
                return None
            self._end(row, grown, is_stopped=is_stopped)
        except Exception as error:  # noqa: BLE001 -- one row's text is that row's error, its neighbours go on
            row.asked.fail(row.index, error)
        del self._rows[grown.name]
        if grown.finish is None:
            self._core.abort([grown.name])
        self._count(row, grown)
        return row

    def _end(self, row: _Row, grown: Grown, *, is_stopped: bool) -> None:
        if not is_stopped and grown.finish not in {"stop", "length"}:
            raise RuntimeError(f"vLLM ended the row with {grown.finish!r}")
        row.asked.end(
            row.index,
            self._tokenizer,
            output=row.output,
            is_stopped=is_stopped or grown.finish == "stop",
            told=row.told,
            pieces=self._pieces,
        )

    def _count(self, row: _Row, grown: Grown) -> None:
        cached = min(grown.cached_tokens or 0, len(row.asked.prompt))
        self._cached += cached
        self._prefilled += len(row.asked.prompt) - cached
        self._generated += len(row.output)

    def _result(self, asked: Asked) -> EngineResult:
        del self._asked[asked.request.key]
        return asked.result(model=self.model, fingerprint=self.identity.fingerprint, now=self._now())

    # --- when memory runs out --------------------------------------------------------------------

    def _retreat(self, tried: int) -> None:
        """Take every row back, to begin again with fewer together.

        Raises:
            RuntimeError: vLLM still holds what it began; blocks of its prefix cache may stand for what was never computed.
        """
        import torch

        rows = list(self._rows.values())
        self._core.abort(list(self._rows))
        self._rows = {}
        if not self._core.forget_prefixes():
            raise RuntimeError("vLLM ran out of memory and did not let go of the rows it held")
        # Does nothing where CUDA was never used.
        torch.cuda.empty_cache()
        given_up = self._limit.note_failure(tried, rows[0].asked.request.key if tried == 1 else None)
        if given_up is not None:
            # Its other choices would not fit either: they are as long.
            asked = self._asked[given_up]
            self.abort([given_up])
            self._ended.append(too_large(asked.request))
        self._waiting.extendleft(
            self._row(row.asked, row.index) for row in reversed(rows) if row.asked.request.key in self._asked
        )
        _LOG.warning("engine_out_of_memory", extra={"rows": tried, "rows_max": self._limit.bytes_max})


def _refused(asked: Asked, error: ValueError) -> RequestRefusedError:
    """Return vLLM's refusal of a request in our form, naming the parameter as far as vLLM or the request tells."""
    constraint = asked.sampling.constraint
    name = getattr(error, "parameter", None) or (constraint.param if constraint else None)
    said = " ".join(str(error).split())[:_MESSAGE_CHARS_MAX]
    return RequestRefusedError(
        f"Invalid value for '{name}': {said}" if name else said,
        code="invalid_value",
        param=f"body.{name}" if name else None,
    )
