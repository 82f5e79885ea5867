"""A tiny random chat model of letters: whatever it writes is text, so that an answer can be read as it was written."""

from __future__ import annotations

import string
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from tests.workers.engine.conftest import TEMPLATE

#: As the byte-level alphabet writes them: a space is a letter of its own, and so is the end of a line.
LETTERS = [*string.ascii_letters, *string.digits, *".,:;!?'-{}\"[]", "\u0120", "\u010a"]


def letters_folder(folder: Path, *, noise: float = 0.0, peak: float = 0.3) -> Path:
    """Save the model in `folder`, its weights disturbed by normal noise of the given size; `peak` sharpens its choices."""
    folder.mkdir(parents=True)
    torch.manual_seed(7)
    config = LlamaConfig(
        vocab_size=len(LETTERS) + 1, hidden_size=48, intermediate_size=96, num_hidden_layers=2, num_attention_heads=6,
        num_key_value_heads=2, max_position_embeddings=256, eos_token_id=len(LETTERS), initializer_range=peak,
    )  # fmt: skip
    model = LlamaForCausalLM(config)
    with torch.no_grad():
        for weights in model.parameters():
            weights.add_(noise * torch.randn_like(weights))
    model.save_pretrained(folder)
    vocab = {letter: i for i, letter in enumerate([*LETTERS, "<end>"])}
    backend = Tokenizer(models.BPE(vocab=vocab, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<end>", chat_template=TEMPLATE).save_pretrained(folder)  # noqa: S106 -- a text token, no secret
    return folder
