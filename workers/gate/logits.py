"""Next-token distributions of two models over the same tokens: the reference's own answers, teacher-forced.

Both read prompt and answer as the reference's tokenizer has them, and what is compared is every distribution that
an answer token was drawn from. No generation takes place, so one early difference does not make all that follows
incomparable.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol

import numpy as np
from numpy.typing import NDArray

from pipeline.domain.endpoints import Endpoint
from pipeline.domain.errors import GateError, ModelUnavailableError
from pipeline.ports.engine import EngineRequest
from workers.engine.quiet import quiet_transformers
from workers.engine.text import prompts_of
from workers.gate.divergence import Divergence, kl_per_position, summary
from workers.gate.items import Item

#: Sequences read, unless told: the figure settles long before.
SEQUENCES_MAX: Final = 64
#: Tokens of one sequence, prompt and answer; logits of 1024 positions of 150,000 words are 600 MB.
TOKENS_MAX: Final = 1024

_OPENVINO_FILE: Final = "openvino_model.xml"


class LogitsReader(Protocol):
    """One model that shows its next-token logits."""

    def read(self, tokens: Sequence[int], start: int) -> NDArray[Any]:
        """Return the logits that predict `tokens[start:]`, as (len(tokens) - start, vocabulary); `start` is over 0."""

    def close(self) -> None:
        """Free the memory; the reader is not used afterwards."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenSequence:
    """Prompt and answer as tokens; the answer begins at `start`."""

    tokens: tuple[int, ...]
    start: int


def open_reader(folder: Path, *, device: str | None = None, dtype: str = "float32") -> LogitsReader:
    """Return a reader for the model in `folder`: OpenVINO's form of one, or transformers'.

    Args:
        folder: Holds `openvino_model.xml`, or `config.json` and safetensors.
        device: For transformers' form, such as `cuda:0`; None takes the accelerator if there is one.
        dtype: For transformers' form: float32, bfloat16 or float16.

    Raises:
        ModelUnavailableError: Neither is there, or it cannot be loaded.
    """
    if (folder / _OPENVINO_FILE).is_file():
        from workers.gate.openvino_logits import OpenVinoLogits

        return OpenVinoLogits(folder / _OPENVINO_FILE)
    if any(folder.glob("*.safetensors")):
        from workers.gate.torch_logits import TorchLogits

        return TorchLogits(folder, device=device, dtype=dtype)
    raise ModelUnavailableError(
        f"{folder.name} shows no logits", hint=f"a folder with {_OPENVINO_FILE} or *.safetensors"
    )


def sequences_of(folder: Path, endpoint: Endpoint, answered: Sequence[tuple[Item, str]]) -> list[TokenSequence]:
    """Return prompt and answer of each item as the tokens of the tokenizer in `folder`.

    Answers without a token, and prompts that the template refuses, are left out; long ones are cut at `TOKENS_MAX`.
    """
    from transformers import AutoTokenizer

    with quiet_transformers():
        tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    requests = [EngineRequest(key, endpoint, item.body) for key, (item, _) in enumerate(answered)]
    sequences: list[TokenSequence] = []
    for prompt, (_, answer) in zip(prompts_of(tokenizer, requests), answered, strict=True):
        if isinstance(prompt, Exception) or not prompt:
            continue
        output = tokenizer(answer, add_special_tokens=False)["input_ids"]
        tokens = (*prompt, *output)[:TOKENS_MAX]
        if len(tokens) > len(prompt):
            sequences.append(TokenSequence(tokens=tokens, start=len(prompt)))
    return sequences


def divergence(
    sequences: Sequence[TokenSequence], *, variant: LogitsReader, reference: LogitsReader
) -> Divergence | None:
    """Return KL(reference || variant) over the answers' positions; None where there is none.

    Raises:
        GateError: The vocabularies differ in size, so that no token means the same.
    """
    parts: list[tuple[NDArray[np.float64], NDArray[np.bool_]]] = []
    for each in sequences:
        first, second = reference.read(each.tokens, each.start), variant.read(each.tokens, each.start)
        if first.shape != second.shape:
            raise GateError(f"the vocabularies differ: {first.shape[-1]} tokens on the reference, {second.shape[-1]}")
        parts.append(kl_per_position(first, second))
    return summary(parts)
