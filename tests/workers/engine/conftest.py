from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from pipeline.domain.models import EngineKind, ModelSpec, Recipe
from pipeline.ports.engine import Engine
from workers.engine.choice import OPENVINO_LIBRARIES, are_installed
from workers.engine.registry import load_engine

TEMPLATE = "{% for m in messages %}{{ m['role'] + ':' + m['content'] + '\n' }}{% endfor %}"

Load = Callable[..., Any]


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    # Models this small gain nothing from threads, and lose much on a machine that runs other tests too.
    torch.set_num_threads(1)


def save_tokenizer(folder: Path) -> None:
    # One token per byte: every text has tokens, and most token sequences are no whole characters.
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    backend = Tokenizer(models.BPE(vocab={letter: i for i, letter in enumerate([*alphabet, "<end>"])}, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<end>", chat_template=TEMPLATE).save_pretrained(folder)  # noqa: S106 -- a text token, no secret


@pytest.fixture(scope="session")
def llama_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("llama")
    torch.manual_seed(7)
    config = LlamaConfig(
        vocab_size=257, hidden_size=48, intermediate_size=96, num_hidden_layers=3, num_attention_heads=6,
        num_key_value_heads=2, max_position_embeddings=256, eos_token_id=256, initializer_range=0.3,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(folder)
    save_tokenizer(folder)
    return folder


@pytest.fixture(scope="session")
def gpt2_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("gpt2")
    torch.manual_seed(8)
    config = GPT2Config(
        vocab_size=257, n_embd=48, n_layer=2, n_head=4, n_positions=256, eos_token_id=256, bos_token_id=256,
        initializer_range=0.3,
    )  # fmt: skip
    GPT2LMHeadModel(config).save_pretrained(folder)
    save_tokenizer(folder)
    return folder


@pytest.fixture
def load(tmp_path: Path) -> Load:
    def load(folder: Path, recipe: Recipe = Recipe.FLOAT32, **options: str | int | bool) -> Engine:
        settings: dict[str, str | int | float | bool] = dict(options)
        spec = ModelSpec(name="tiny", source=str(folder), engine=EngineKind.TORCH, recipe=recipe, options=settings)
        return load_engine(spec, cache_dir=tmp_path, device="cpu")

    return load


@pytest.fixture(scope="session")
def load_openvino(tmp_path_factory: pytest.TempPathFactory) -> Load:
    if not are_installed(*OPENVINO_LIBRARIES):
        pytest.skip("OpenVINO is not in vLLM's environment: make unit")
    # One folder for all tests: an export takes seconds, and is kept.
    cache_dir = tmp_path_factory.mktemp("exported")

    def load(folder: Path, **options: str | int | bool) -> Engine:
        settings: dict[str, str | int | float | bool] = {"cache_gib": 1, **options}
        spec = ModelSpec(name="tiny", source=str(folder), engine=EngineKind.OPENVINO, options=settings)
        return load_engine(spec, cache_dir=cache_dir, device="cpu", threads=1)

    return load
