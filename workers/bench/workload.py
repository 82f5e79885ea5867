"""The workload that engines are tuned and compared on: mixed chat prompts, the same for everyone who asks."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from pipeline.domain.endpoints import Endpoint
from pipeline.ports.engine import EngineRequest

SEED: Final = 20261121
#: A word is one token or two, and the chat template adds some ten.
_WORDS_MIN: Final = 10
_WORDS_MAX: Final = 300
_OUTPUTS: Final = (16, 24, 32, 48, 64, 96, 128)
_TASKS: Final = (
    "Summarize",
    "Translate to French",
    "Classify the mood of",
    "List the places in",
    "Continue",
    "Explain",
)
_WORDS: Final = [
    "the",
    "night",
    "train",
    "left",
    "a",
    "valley",
    "before",
    "dawn",
    "and",
    "river",
    "carried",
    "small",
    "lights",
    "while",
    "one",
    "clerk",
    "counted",
    "tickets",
    "under",
    "old",
    "lamps",
    "because",
    "nobody",
    "had",
    "told",
    "him",
    "that",
    "winter",
    "was",
    "over",
    "or",
    "where",
    "his",
    "brother",
    "went",
    "after",
    "supper",
]


@dataclass(frozen=True, slots=True)
class Ask:
    """One prompt, and how many tokens its answer has."""

    prompt: str
    output_tokens: int


def mixed_asks(seed: int = SEED) -> Iterator[Ask]:
    """Yield asks without end: prompts of some 20 to 400 tokens, most of them short; answers of 16 to 128."""
    rng = random.Random(seed)  # noqa: S311 -- a workload, not a secret
    while True:
        count = int(_WORDS_MIN * (_WORDS_MAX / _WORDS_MIN) ** rng.random())
        words = " ".join(rng.choice(_WORDS) for _ in range(count))
        yield Ask(f"{rng.choice(_TASKS)} the following text: {words}", rng.choice(_OUTPUTS))


def chat_requests(asks: Iterator[Ask], *, model: str, endpoint: Endpoint) -> Iterator[EngineRequest]:
    """Yield greedy requests for these asks, numbered from 0, for a model that chats or one that completes."""
    for key, ask in enumerate(asks):
        body: dict[str, Any] = {"model": model, "max_tokens": ask.output_tokens, "temperature": 0}
        if endpoint is Endpoint.CHAT_COMPLETIONS:
            body["messages"] = [{"role": "user", "content": ask.prompt}]
        else:
            body["prompt"] = ask.prompt
        yield EngineRequest(key, endpoint, body)
