"""The few calls of vLLM that the engine makes, behind names of our own."""

from __future__ import annotations

import gc
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from workers.engine.logprobs import TokenLogprobs


@dataclass(frozen=True, slots=True)
class Grown:
    """What one choice got in a step; positional on purpose: there is one for each row that is watched."""

    name: str
    #: Tokens that are new since it was told last: of a row that is not watched, all of them at its end.
    tokens: Sequence[int]
    #: Of each of these, where they were asked for: as many alternatives as asked for, and perhaps the chosen one more.
    told: Sequence[TokenLogprobs]
    #: Why it ended: vLLM's `stop`, `length`, `abort`, `error` or `repetition`; None while it runs.
    finish: str | None
    #: Prompt tokens taken from the prefix cache; None where vLLM does not say.
    cached_tokens: int | None


class UnfitError(ValueError):
    """vLLM does not take a request as it is; `parameter` is what it names, if it does."""

    def __init__(self, message: str, parameter: str | None = None) -> None:
        """Keep what vLLM says."""
        super().__init__(message)
        self.parameter = parameter


class Core(Protocol):
    """A loaded model and its batcher."""

    def submit(self, name: str, prompt: list[int], settings: Mapping[str, Any], *, is_watched: bool) -> None:
        """Queue one choice; of one that is watched every new token is told.

        Raises:
            ValueError: The request cannot be run as it is; `UnfitError` where vLLM says so in its own name.
        """

    def step(self) -> list[Grown]:
        """Compute one step."""

    def running(self) -> int:
        """Return how many rows have begun and not ended."""

    def abort(self, names: Sequence[str]) -> None:
        """Forget these choices."""

    def forget_prefixes(self) -> bool:
        """Forget the prefix cache; False where something still uses it."""

    def close(self) -> None:
        """Free the model."""


class VllmCore:
    """vLLM's synchronous `LLMEngine`, in this process; implements `Core`."""

    def __init__(self, engine: Any, *, is_eager: bool) -> None:  # noqa: ANN401 -- vLLM is not there where types are checked
        """Drive `engine`; where `is_eager`, nothing of a step is compiled, vLLM's sampler included."""
        self._engine = engine
        self._is_eager = is_eager

    def submit(self, name: str, prompt: list[int], settings: Mapping[str, Any], *, is_watched: bool) -> None:
        """Queue one choice."""
        from vllm import SamplingParams
        from vllm.exceptions import VLLMClientError
        from vllm.inputs.engine import tokens_input
        from vllm.sampling_params import RequestOutputKind, StructuredOutputsParams

        fields = dict(settings)
        fields["output_kind"] = RequestOutputKind.DELTA if is_watched else RequestOutputKind.FINAL_ONLY
        try:
            if form := fields.pop("structured_outputs", None):
                fields["structured_outputs"] = StructuredOutputsParams(**form)
            self._engine.add_request(name, tokens_input(list(prompt)), SamplingParams(**fields))
        except VLLMClientError as error:
            raise UnfitError(str(error.args[0]), getattr(error, "parameter", None)) from error

    def step(self) -> list[Grown]:
        """Compute one step."""
        import torch

        if not self._is_eager:
            return [_grown(output) for output in self._engine.step()]
        with torch.compiler.set_stance("force_eager"):
            return [_grown(output) for output in self._engine.step()]

    def running(self) -> int:
        """Return how many rows have begun and not ended."""
        running, _waiting = self._engine.engine_core.engine_core.scheduler.get_request_counts()
        return int(running)

    def abort(self, names: Sequence[str]) -> None:
        """Forget these choices."""
        if names:
            self._engine.abort_request(list(names))

    def forget_prefixes(self) -> bool:
        """Forget the prefix cache."""
        return bool(self._engine.reset_prefix_cache())

    def close(self) -> None:
        """Free the model; once is enough."""
        if self._engine is not None:
            self._engine.engine_core.shutdown()
            self._engine = None
            # Its parts know one another, so they go when they are looked for, and their memory only then.
            gc.collect()


def _grown(output: Any) -> Grown:  # noqa: ANN401 -- as above
    (choice,) = output.outputs
    return Grown(
        output.request_id,
        choice.token_ids,
        [_told(*each) for each in zip(choice.token_ids, choice.logprobs or (), strict=False)],
        choice.finish_reason,
        output.num_cached_tokens,
    )


def _told(token: int, ranked: Any) -> TokenLogprobs:  # noqa: ANN401 -- as above
    """Return a position's entry; the chosen token is among the ranked, last where it was not asked for."""
    best = sorted(ranked.items(), key=lambda item: item[1].rank)
    return TokenLogprobs(ranked[token].logprob, [(other, each.logprob) for other, each in best])
