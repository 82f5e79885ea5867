from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from tests.workers.engine.conftest import save_tokenizer


@pytest.fixture(scope="session")
def tiny_folders(tmp_path_factory: pytest.TempPathFactory) -> Callable[[float], Path]:
    """A tiny language model whose weights are rounded to steps of the given size; 0 leaves them as they are."""
    torch.set_num_threads(1)
    made: dict[float, Path] = {}

    def folder(step: float) -> Path:
        if step not in made:
            made[step] = tmp_path_factory.mktemp("tiny")
            torch.manual_seed(7)
            config = LlamaConfig(
                vocab_size=257, hidden_size=48, intermediate_size=96, num_hidden_layers=2, num_attention_heads=6,
                num_key_value_heads=2, max_position_embeddings=256, eos_token_id=256, initializer_range=0.3,
            )  # fmt: skip
            model = LlamaForCausalLM(config)
            if step:
                with torch.no_grad():
                    for weights in model.parameters():
                        weights.copy_((weights / step).round() * step)
            model.save_pretrained(made[step])
            save_tokenizer(made[step])
        return made[step]

    return folder
