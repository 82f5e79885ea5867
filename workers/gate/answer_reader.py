"""The reference reads answers that others gave: their likelihood deficit (`workers.gate.deficit`), row by row.

An answer is read as text, because text is what is kept of it. Its tokens are the tokenizer's own for that text, which
may be others than were generated; read by the model that wrote them, answers show what that costs (next to nothing,
docs/benchmarks/shadow.json).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Self

import numpy as np
from numpy.typing import NDArray

from pipeline.domain.endpoints import Endpoint
from pipeline.domain.errors import RequestRefusedError
from pipeline.domain.parameters import Sampling, sampling_of
from pipeline.domain.wealth import Bounds
from pipeline.ports.engine import EngineRequest
from workers.engine.generation import end_tokens, ends_of
from workers.engine.grammars import Grammars, Matcher
from workers.engine.quiet import quiet_transformers
from workers.engine.text import prompts_of
from workers.engine.torch_chat.adjustments import adjust, is_adjusting
from workers.engine.torch_chat.sampler import drawn_from, is_greedy
from workers.gate.deficit import Floats, greedy_deficit, sampled_deficit
from workers.gate.logits import LogitsReader

#: Longer prompts are not read.
PROMPT_TOKENS_MAX: Final = 4096
#: Tokens read of an answer, the first: logits of 256 positions of 150,000 words are 150 MB.
ANSWER_TOKENS_MAX: Final = 256

#: What x may be of an answer whose every token is the likeliest, and of one that was drawn.
GREEDY_BOUNDS: Final[Bounds] = (-1.0, 0.0)
SAMPLED_BOUNDS: Final[Bounds] = (-1.0, 0.25)


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """What the reference made of one answer."""

    #: Mean over the tokens read, as a share of 1.
    x: float
    tokens: int
    #: What x could have been, known from the request alone.
    bounds: Bounds


@dataclass(slots=True, eq=False)
class _Position:
    """One token of an answer as the logits' adjustments look at it; implements `AdjustedRow`."""

    sampling: Sampling
    prompt: list[int]
    output: list[int]
    ends: frozenset[int]
    matcher: Matcher | None
    is_adjusted: bool = field(init=False)

    def __post_init__(self) -> None:
        self.is_adjusted = is_adjusting(self.sampling)


class AnswerReader:
    """Reads answers through the reference's logits."""

    def __init__(self, logits: LogitsReader, tokenizer: Any, ends: frozenset[int]) -> None:  # noqa: ANN401 -- transformers has no types
        """Read through `logits`; `tokenizer` and the end tokens `ends` are the reference's."""
        self._logits = logits
        self._tokenizer = tokenizer
        self._ends = ends
        self._grammars: Grammars | None = None

    @classmethod
    def over(cls, folder: Path, logits: LogitsReader) -> Self:
        """Return the reader of the reference whose prepared folder is `folder`."""
        from transformers import AutoConfig, AutoTokenizer, GenerationConfig

        named = []
        with quiet_transformers():
            tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
            named.append(getattr(AutoConfig.from_pretrained(folder, trust_remote_code=False), "eos_token_id", None))
            if (folder / "generation_config.json").is_file():
                named.append(GenerationConfig.from_pretrained(folder).eos_token_id)
        return cls(logits, tokenizer, end_tokens(tokenizer, named))

    def read(self, endpoint: Endpoint, body: Mapping[str, Any], answer: Mapping[str, Any]) -> Reading | None:
        """Return what the reference makes of the response body `answer` to the request `body`.

        None where there is nothing to read: no token, a prompt beyond `PROMPT_TOKENS_MAX` or that has no tokens here.
        Bytes that were no characters are read as what stands for them: whoever left those out would not see a variant
        that writes nonsense.

        Raises:
            RequestRefusedError: The form that the request asks for cannot be followed here, or not with these tokens.
        """
        sampling = sampling_of(endpoint, body)
        (prompt,) = prompts_of(self._tokenizer, [EngineRequest(0, endpoint, body)])
        if isinstance(prompt, Exception) or not 0 < len(prompt) <= PROMPT_TOKENS_MAX:
            return None
        parts = [self._choice(prompt, sampling, choice) for choice in answer["choices"]]
        values = np.concatenate(parts) if parts else np.zeros(0)
        if not values.size:
            return None
        bounds = GREEDY_BOUNDS if is_greedy(sampling) else SAMPLED_BOUNDS
        return Reading(x=float(np.clip(values.mean(), *bounds)), tokens=int(values.size), bounds=bounds)

    def close(self) -> None:
        """Free the memory; the reader is not used afterwards."""
        self._logits.close()

    def _choice(self, prompt: list[int], sampling: Sampling, choice: Mapping[str, Any]) -> Floats:
        output: list[int] = self._tokenizer(_text_of(choice), add_special_tokens=False)["input_ids"]
        ends = ends_of(sampling, self._ends)
        # Only the model itself ends an answer that no stop string, token or form could have ended.
        is_ended = choice["finish_reason"] == "stop" and not (
            sampling.stop or sampling.stop_token_ids or sampling.constraint
        )
        if is_ended and ends and len(output) < ANSWER_TOKENS_MAX:
            output = [*output, min(ends)]
        else:
            is_ended = False
        output = output[:ANSWER_TOKENS_MAX]
        if not output:
            return np.zeros(0)
        logits = self._logits.read((*prompt, *output), len(prompt))
        logits = self._shaped(logits, prompt, output, sampling, ends)
        if is_ended:
            # Which of its end tokens is not told, and does not matter.
            output[-1] = max(ends, key=lambda end: float(logits[-1, end]))
        return (greedy_deficit if is_greedy(sampling) else sampled_deficit)(logits, output)

    def _shaped(
        self, logits: NDArray[Any], prompt: list[int], output: list[int], sampling: Sampling, ends: frozenset[int]
    ) -> NDArray[Any]:
        """Return the logits after whatever the request asks for."""
        if is_greedy(sampling) and not is_adjusting(sampling):
            return logits
        import torch

        shaped = torch.from_numpy(np.ascontiguousarray(logits, dtype=np.float32)).clone()
        positions = list(self._positions(prompt, output, sampling, ends, shaped.shape[1]))
        for index, position in enumerate(positions):
            adjust(shaped[index : index + 1], [position])
            if position.matcher is not None:
                _follow(position.matcher, output[index])
        if not is_greedy(sampling):
            shaped = drawn_from(shaped, positions)
        array: NDArray[Any] = shaped.numpy()
        return array

    def _positions(
        self, prompt: list[int], output: Sequence[int], sampling: Sampling, ends: frozenset[int], vocabulary: int
    ) -> Iterator[_Position]:
        matcher = None
        if sampling.constraint is not None:
            self._grammars = self._grammars or Grammars(self._tokenizer, self._ends, vocabulary)
            matcher = self._grammars.matcher(sampling.constraint)
        for count in range(len(output)):
            yield _Position(sampling, prompt, list(output[:count]), ends, matcher)


def _text_of(choice: Mapping[str, Any]) -> str:
    return str((choice["message"]["content"] if "message" in choice else choice["text"]) or "")


def _follow(matcher: Matcher, token: int) -> None:
    try:
        matcher.accept(token)
    except RuntimeError as error:
        # The tokenizer cuts the text otherwise than it was written, across a border that the form has.
        raise RequestRefusedError("the answer's form cannot be followed in the tokens of its text") from error
