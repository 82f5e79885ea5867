"""One request in flight at an engine that generates text, and its choices as they end."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from pipeline.domain.parameters import Sampling
from pipeline.ports.engine import EngineRequest, EngineResult
from workers.engine.answers import (
    body_digest,
    choice_seed,
    failure,
    generation_body,
    generation_choice,
    generation_usage,
    seed_of,
)
from workers.engine.generation import check_tokens, ends_of, output_bound
from workers.engine.logprobs import TokenLogprobs, answer_logprobs, tokens_of_text
from workers.engine.pieces import Pieces
from workers.engine.text import answer_text


@dataclass(slots=True, eq=False)
class Asked:
    """A request whose choices are computed, each a row of the batch; the last that ends makes the result."""

    request: EngineRequest
    sampling: Sampling
    prompt: list[int]
    #: Output tokens that each choice may have: what the request asks for, or what the context leaves.
    output_max: int
    #: Tokens that end a choice.
    ends: frozenset[int]
    digest: bytes = field(init=False)
    _seed: int = field(init=False)
    _choices: dict[int, dict[str, Any]] = field(default_factory=dict)
    _output_tokens: int = 0
    _errors: dict[int, Exception] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        request: EngineRequest,
        sampling: Sampling,
        prompt: list[int],
        *,
        vocabulary: int,
        tokens_max: int,
        end_tokens: frozenset[int],
    ) -> Asked:
        """Return a request to a model with these `end_tokens`, which has `tokens_max` for the prompt and a choice.

        Raises:
            RequestRefusedError: It names a token beyond the `vocabulary`, is empty, or leaves no room for an answer.
        """
        check_tokens(sampling, vocabulary)
        output_max = output_bound(request, prompt, sampling, tokens_max=tokens_max)
        return cls(request, sampling, prompt, output_max, ends_of(sampling, end_tokens))

    def __post_init__(self) -> None:
        self.digest = body_digest(self.request.body)
        self._seed = seed_of(self.digest) if self.sampling.seed is None else self.sampling.seed

    @property
    def tokens_max(self) -> int:
        """Return how long the prompt and one choice may get together."""
        return len(self.prompt) + self.output_max

    @property
    def is_over(self) -> bool:
        """Say whether every choice has ended."""
        return len(self._choices) + len(self._errors) == self.sampling.n

    @property
    def length_order(self) -> tuple[int, int]:
        """Return the key by which requests that came together are sorted, what may run longest first.

        A long row started last would run alone at the end, with every other slot empty.
        """
        return -self.output_max, -len(self.prompt)

    def seed(self, index: int) -> int:
        """Return the sampling seed of a choice, signed and of 64 bits: others for each, the same in a rerun."""
        return choice_seed(self._seed, index)

    def end(
        self,
        index: int,
        tokenizer: Any,  # noqa: ANN401 -- transformers has no types
        *,
        output: list[int],
        is_stopped: bool,
        told: list[TokenLogprobs],
        pieces: Pieces,
    ) -> None:
        """Keep a choice that ended.

        Args:
            index: Which one.
            tokenizer: What turns tokens into text.
            output: All of its tokens; these are counted.
            is_stopped: Whether it came to an end, and not to its bound.
            told: Log-probabilities of `output`, where the request asks for them.
            pieces: The tokenizer's vocabulary.
        """
        endpoint, sampling = self.request.endpoint, self.sampling
        # The end token is not text, yet it was computed and is counted, as OpenAI counts it.
        text_tokens = output[:-1] if output and output[-1] in self.ends else output
        text = answer_text(tokenizer, text_tokens, sampling.stop, sampling.min_tokens)
        logprobs = None
        if sampling.logprobs is not None:
            logprobs = answer_logprobs(endpoint, pieces, tokens_of_text(tokenizer, text_tokens, text), told)
        self._choices[index] = generation_choice(
            endpoint, index=index, text=text, logprobs=logprobs, finish_reason="stop" if is_stopped else "length"
        )
        self._output_tokens += len(output)

    def fail(self, index: int, error: Exception) -> None:
        """Keep what went wrong with a choice; it is what goes wrong with the request."""
        self._errors[index] = error

    def result(self, *, model: str, fingerprint: str, now: datetime) -> EngineResult:
        """Return the answer, once all choices have ended; the prompt counts once."""
        assert self.is_over
        if self._errors:
            return failure(self.request, self._errors[min(self._errors)])
        body = generation_body(
            self.request.endpoint,
            digest=self.digest,
            created=int(now.timestamp()),
            model=model,
            choices=[self._choices[index] for index in range(self.sampling.n)],
            usage=generation_usage(len(self.prompt), self._output_tokens),
            fingerprint=fingerprint,
        )
        return EngineResult(self.request.key, 200, body, len(self.prompt), self._output_tokens)
