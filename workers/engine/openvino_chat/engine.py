"""OpenVINO GenAI's continuous batcher behind the engine's port: one `step` here is one of its."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

import numpy as np
import openvino
import openvino_genai

from pipeline.domain.errors import RequestRefusedError
from pipeline.domain.parameters import Sampling, sampling_of
from pipeline.ports.engine import EngineRequest, EngineResult
from pipeline.ports.meters import EngineIdentity, EngineMeters
from workers.engine.answers import drafted, utc_now
from workers.engine.asked import Asked
from workers.engine.counters import Counters
from workers.engine.generation import endpoints_of
from workers.engine.openvino_chat.leaders import Leaders
from workers.engine.pieces import Pieces
from workers.engine.text import StopFinder, decoded, prompts_of

#: Seeds are signed here, as OpenAI's are, and unsigned there.
_SEED_MASK: Final = 2**64 - 1
_RUNNING: Final = "RUNNING"
#: Fields of `Sampling` that the batcher does not honour as OpenAI means them. Its penalties lower positive logits
#: and raise negative ones, where OpenAI's formula lowers them all; its log-probabilities are one per position; the
#: rest it has not, or it has not been held against vLLM's meaning.
_BEYOND: Final = (
    "presence_penalty",
    "frequency_penalty",
    "repetition_penalty",
    "logprobs",
    "logit_bias",
    "min_tokens",
    "top_k",
    "min_p",
    "ignore_eos",
    "constraint",
)
_NEUTRAL: Final = Sampling()


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenVinoOptions:
    """Settings of the engine."""

    #: Rows in flight: the batcher computes all that it was given, whatever its own bound says.
    slots: int = 256
    #: Tokens of one step, prompts and answers together.
    step_tokens: int = 2048
    #: Memory for keys and values, in GiB.
    cache_gib: int = 2
    #: Compute a prefix that rows have in common once.
    shares_prefixes: bool = True
    #: Keep generating past the end token, up to the bound; for measurements.
    ignore_end: bool = False


@dataclass(slots=True, eq=False)
class _Row:
    """A choice in flight, and the batcher's handle on it."""

    asked: Asked
    #: Which of the request's choices.
    index: int
    handle: Any
    stop_finder: StopFinder | None
    #: Read step by step where a stop string is looked for; else at the end.
    output: list[int] = field(default_factory=list)


class OpenVinoEngine:
    """One causal language model; implements `Engine` for chat and text completions."""

    name = "openvino"

    def __init__(
        self,
        model: str,
        *,
        pipeline: Any,  # noqa: ANN401 -- openvino_genai has no types
        tokenizer: Any,  # noqa: ANN401 -- nor has transformers
        end_tokens: frozenset[int],
        tokens_max: int,
        options: OpenVinoOptions,
        identity: EngineIdentity,
        now: Callable[[], datetime] = utc_now,
    ) -> None:
        """Serve `pipeline` under the name `model`; `end_tokens` are the ids that end an answer.

        A row has `tokens_max` tokens at most, prompt and answer: what the model's context and the cache hold.
        """
        self.model = model
        self.endpoints = endpoints_of(tokenizer)
        self._pipeline = pipeline
        self._tokenizer = tokenizer
        self._pieces = Pieces(tokenizer)
        #: Counted once: a tokenizer builds its whole vocabulary to tell its size, for longer than a row takes to enter.
        self._vocabulary = len(tokenizer)
        self._end_tokens = frozenset() if options.ignore_end else end_tokens
        self._tokens_max = tokens_max
        self._options = options
        self.identity = identity
        self._now = now
        #: The requests whose choices run, by key, and the choices.
        self._asked: dict[int, Asked] = {}
        self._rows: list[_Row] = []
        #: Requests that were not handed to the batcher yet, in the order in which they will be.
        self._waiting: list[Asked] = []
        self._leaders = Leaders()
        #: Rows that ended without the model.
        self._ended: list[EngineResult] = []
        self._next_id = 0
        self._counters = Counters()
        #: Measured: with split-fuse the batcher computes whatever it holds, look-ahead included, past `max_num_seqs`.
        self._rows_max = options.slots
        self._generated = 0

    def room(self) -> int:
        """Return how many slots are free."""
        waiting = sum(asked.sampling.n for asked in self._waiting)
        return max(0, self._rows_max - len(self._rows) - waiting - len(self._ended))

    def in_flight(self) -> int:
        """Return how many added rows have not come back yet."""
        return len(self._asked) + len(self._ended)

    def add(self, requests: Sequence[EngineRequest]) -> None:
        """Tokenize rows in bulk and queue them for the batcher, the longest first."""
        drafts, ended = drafted(requests, prompts_of(self._tokenizer, requests), self._draft)
        self._ended += ended
        self._asked.update({draft.request.key: draft for draft in drafts})
        self._waiting += sorted(drafts, key=lambda draft: draft.length_order)

    def step(self) -> Sequence[EngineResult]:
        """Hand rows to the batcher, run one step of it, and return the rows that finished."""
        self._admit()
        results, self._ended = self._ended, []
        if not self._rows:
            return results
        self._pipeline.step()
        if leaders := self._leaders.keys():
            leading = [row for row in self._rows if row.asked.request.key in leaders]
            self._leaders.computed(row.asked.request.key for row in leading if _has_begun(row))
        self._counters.note_step(self._pipeline.get_metrics().scheduled_requests, self._rows_max)
        running: list[_Row] = []
        for row in self._rows:
            if not self._has_ended(row):
                running.append(row)
                continue
            try:
                self._end(row)
            except Exception as error:  # noqa: BLE001 -- one row's text is that row's error, its neighbours go on
                row.asked.fail(row.index, error)
            if row.asked.is_over:
                results.append(self._result(row.asked))
        self._rows = running
        return results

    def meters(self) -> EngineMeters:
        """Return the counters.

        The batcher does not tell how much of a prompt it had from its prefix cache, so neither the tokens
        cached nor those computed are known. It computes flat tokens, without padding.
        """
        return self._counters.meters(tokens_generated=self._generated, tokens_padding=0)

    def abort(self, keys: Sequence[int]) -> None:
        """Forget these rows, wherever they are."""
        gone = frozenset(keys)
        self._ended = [result for result in self._ended if result.key not in gone]
        for key in gone & self._asked.keys():
            del self._asked[key]
        self._waiting = [asked for asked in self._waiting if asked.request.key not in gone]
        self._leaders.forget(gone)
        for row in self._rows:
            if row.asked.request.key in gone:
                row.handle.cancel()
        self._rows = [row for row in self._rows if row.asked.request.key not in gone]

    def close(self) -> None:
        """Forget every row and let go of the model."""
        self.abort(list(self._asked))
        self._ended = []
        self._pipeline = None

    # --- entering ------------------------------------------------------------------------------

    def _draft(self, request: EngineRequest, prompt: list[int]) -> Asked:
        sampling = sampling_of(request.endpoint, request.body)
        _refuse_beyond(sampling)
        return Asked.of(
            request,
            sampling,
            prompt,
            vocabulary=self._vocabulary,
            tokens_max=self._tokens_max,
            end_tokens=self._end_tokens,
        )

    def _admit(self) -> None:
        """Hand over what waits, but for rows whose beginning another is computing just now."""
        waiting, self._waiting = self._waiting, []
        for asked in waiting:
            if not self._options.shares_prefixes or self._leaders.may_enter(asked.request.key, asked.prompt):
                self._enter(asked)
            else:
                self._waiting.append(asked)

    def _enter(self, asked: Asked) -> None:
        """Hand each choice to the batcher as a request of its own: the seeds of one of many are not ours to set."""
        for index in range(asked.sampling.n):
            try:
                handle = self._pipeline.add_request(
                    self._next_id,
                    openvino.Tensor(np.array([asked.prompt], dtype=np.int64)),
                    self._generation(asked, index),
                )
            except RuntimeError as error:
                asked.fail(index, error)
                continue
            self._next_id += 1
            stops = asked.sampling.stop
            finder = StopFinder(self._tokenizer, stops) if stops else None
            self._rows.append(_Row(asked=asked, index=index, handle=handle, stop_finder=finder))
        if asked.is_over:
            self._leaders.forget([asked.request.key])
            self._ended.append(self._result(asked))

    def _generation(self, asked: Asked, index: int) -> openvino_genai.GenerationConfig:
        sampling = asked.sampling
        config = openvino_genai.GenerationConfig()
        config.max_new_tokens = asked.output_max
        config.stop_token_ids = set(asked.ends)
        config.ignore_eos = not asked.ends
        config.do_sample = sampling.temperature > 0
        if config.do_sample:
            config.temperature = sampling.temperature
            config.top_p = sampling.top_p
            config.rng_seed = asked.seed(index) & _SEED_MASK
        return config

    # --- leaving -------------------------------------------------------------------------------

    def _has_ended(self, row: _Row) -> bool:
        if row.stop_finder is not None:
            while row.handle.can_read():
                for output in row.handle.read().values():
                    if self._takes(row, output.generated_ids):
                        row.handle.stop()
                        return True
        return bool(row.handle.get_status().name != _RUNNING)

    def _takes(self, row: _Row, tokens: Sequence[int]) -> bool:
        """Add tokens to the row's answer; True once a stop string stands in it."""
        assert row.stop_finder is not None
        for token in tokens:
            row.output.append(token)
            if token not in row.asked.ends and row.stop_finder.found(row.output):
                return True
        return False

    def _end(self, row: _Row) -> None:
        """Read a choice that ended."""
        if row.stop_finder is None:
            (output,) = row.handle.read_all()
            row.output = list(output.generated_ids)
        self._generated += len(row.output)
        is_ended = bool(row.output) and row.output[-1] in row.asked.ends
        tokens = row.output[:-1] if is_ended else row.output
        stops = row.asked.sampling.stop
        row.asked.end(
            row.index,
            self._tokenizer,
            output=row.output,
            is_stopped=is_ended or any(stop in decoded(self._tokenizer, tokens) for stop in stops),
            told=[],
            pieces=self._pieces,
        )

    def _result(self, asked: Asked) -> EngineResult:
        del self._asked[asked.request.key]
        return asked.result(model=self.model, fingerprint=self.identity.fingerprint, now=self._now())


def _has_begun(row: _Row) -> bool:
    """Say whether the row's prompt is computed: it has a token of its answer, or has ended."""
    return bool(row.output or row.handle.can_read() or row.handle.get_status().name != _RUNNING)


def is_beyond(request: EngineRequest) -> bool:
    """Say whether the row asks for what the batcher cannot do as OpenAI means it."""
    return _beyond(sampling_of(request.endpoint, request.body)) is not None


def _beyond(sampling: Sampling) -> str | None:
    """Return the name of the first parameter that is beyond the batcher."""
    name = next((name for name in _BEYOND if getattr(sampling, name) != getattr(_NEUTRAL, name)), None)
    return sampling.constraint.param.partition(".")[0] if sampling.constraint and name == "constraint" else name


def _refuse_beyond(sampling: Sampling) -> None:
    if name := _beyond(sampling):
        raise RequestRefusedError(
            f"Parameter '{name}' is not supported by the engine that runs this model.",
            code="unsupported_parameter",
            param=f"body.{name}",
        )
