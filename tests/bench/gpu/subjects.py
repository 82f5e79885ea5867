"""What the GPU benchmark runs: models of random weights, prompts of random tokens, and a tokenizer that passes them on."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from pipeline.domain.endpoints import Endpoint
from pipeline.ports.engine import EngineRequest

CONTEXT_TOKENS: Final = 4096
#: Shapes of Llama 3.2 1B, of Llama 3.1 8B, and one for smoke tests.
SHAPES: Final[dict[str, dict[str, Any]]] = {
    "tiny": {
        "vocab_size": 512, "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2,
        "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16, "tie_word_embeddings": True,
    },
    "1b": {
        "vocab_size": 128_256, "hidden_size": 2048, "intermediate_size": 8192, "num_hidden_layers": 16,
        "num_attention_heads": 32, "num_key_value_heads": 8, "head_dim": 64, "tie_word_embeddings": True,
    },
    "8b": {
        "vocab_size": 128_256, "hidden_size": 4096, "intermediate_size": 14_336, "num_hidden_layers": 32,
        "num_attention_heads": 32, "num_key_value_heads": 8, "head_dim": 128, "tie_word_embeddings": False,
    },
}  # fmt: skip


def random_model(shape: str, device: torch.device, dtype: torch.dtype) -> Any:  # noqa: ANN401 -- transformers has no types
    """Return a model of random weights, made on the device."""
    config = LlamaConfig(**SHAPES[shape], max_position_embeddings=CONTEXT_TOKENS, attn_implementation="sdpa")
    default = torch.get_default_dtype()
    torch.manual_seed(1)
    torch.set_default_dtype(dtype)
    try:
        with torch.device(device):
            return LlamaForCausalLM(config).eval()
    finally:
        torch.set_default_dtype(default)


@dataclass(frozen=True, slots=True)
class Work:
    """One request: its prompt's tokens, and how many to generate."""

    tokens: list[int]
    output: int


def workload(count: int, *, vocabulary: int, scale: float = 1.0) -> list[Work]:
    """Return requests as bulk jobs have them: prompts of 32 to 1,024 tokens, answers of 16 to 256, both log-uniform."""
    rng = random.Random(20261121)
    made = []
    for _ in range(count):
        prompt = max(4, int(scale * 32 * 32 ** rng.random()))
        output = max(2, int(scale * 16 * 16 ** rng.random()))
        made.append(Work([rng.randrange(vocabulary) for _ in range(prompt)], output))
    return made


def even_work(count: int, prompt: int, output: int, *, vocabulary: int) -> list[Work]:
    """Return requests that are all of one size."""
    rng = random.Random(7)
    return [Work([rng.randrange(vocabulary) for _ in range(prompt)], output) for _ in range(count)]


def requests_of(work: list[Work]) -> list[EngineRequest]:
    """Return the engine's requests: prompts written as numbers, which `TokenIds` reads."""
    return [
        EngineRequest(
            key,
            Endpoint.COMPLETIONS,
            {
                "model": "bench",
                "prompt": " ".join(map(str, each.tokens)),
                "max_tokens": each.output,
                "temperature": 0,
            },
        )
        for key, each in enumerate(work)
    ]


class TokenIds:
    """A tokenizer for which a text is its tokens' numbers: the engine is measured, text is not."""

    chat_template = None
    eos_token_id = None
    all_special_ids: tuple[int, ...] = ()
    added_tokens_decoder: Mapping[int, object] = MappingProxyType({})

    def __call__(self, texts: list[str], *, add_special_tokens: bool) -> dict[str, list[list[int]]]:
        del add_special_tokens
        return {"input_ids": [[int(word) for word in text.split()] for text in texts]}

    def decode(self, tokens: list[int], **_: object) -> str:
        return " ".join(map(str, tokens))
