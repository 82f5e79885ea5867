from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import BertConfig, BertForSequenceClassification, BertModel, PreTrainedTokenizerFast

from pipeline.domain.models import EngineKind, ModelSpec, Recipe
from pipeline.ports.engine import Engine
from workers.engine.registry import load_engine

Load = Callable[..., Engine]


def save_pair_tokenizer(folder: Path) -> None:
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    names = ["[PAD]", "[CLS]", "[SEP]"]
    backend = Tokenizer(models.BPE(vocab={token: i for i, token in enumerate([*names, *alphabet])}, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 1), ("[SEP]", 2)]
    )
    PreTrainedTokenizerFast(
        tokenizer_object=backend,
        pad_token="[PAD]",  # noqa: S106 -- a text token, no secret
        cls_token="[CLS]",  # noqa: S106 -- as above
        sep_token="[SEP]",  # noqa: S106 -- as above
        model_input_names=["input_ids", "token_type_ids", "attention_mask"],
    ).save_pretrained(folder)


def bert_config(**more: object) -> BertConfig:
    return BertConfig(
        vocab_size=259, hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4,
        max_position_embeddings=128, initializer_range=0.2, **more,
    )  # fmt: skip


@pytest.fixture(scope="session")
def bi_encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bi-encoder")
    torch.manual_seed(11)
    BertModel(bert_config()).save_pretrained(folder)
    save_pair_tokenizer(folder)
    return folder


@pytest.fixture(scope="session")
def cross_encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cross-encoder")
    torch.manual_seed(12)
    BertForSequenceClassification(bert_config(num_labels=1)).save_pretrained(folder)
    save_pair_tokenizer(folder)
    return folder


@pytest.fixture(scope="session")
def classifier(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("classifier")
    torch.manual_seed(13)
    labels = {0: "calm", 1: "glad", 2: "cross"}
    BertForSequenceClassification(bert_config(num_labels=3, id2label=labels)).save_pretrained(folder)
    save_pair_tokenizer(folder)
    return folder


@pytest.fixture(scope="session")
def load_encoder(tmp_path_factory: pytest.TempPathFactory) -> Load:
    # One folder for all tests: an export takes seconds, and is kept.
    cache_dir = tmp_path_factory.mktemp("exported")

    def load(folder: Path, recipe: str = Recipe.NATIVE, **options: str | int | bool) -> Engine:
        spec = ModelSpec(
            name="tiny", source=str(folder), engine=EngineKind.ENCODER, recipe=Recipe(recipe), options=options
        )
        return load_engine(spec, cache_dir=cache_dir, device="cpu", threads=1)

    return load
