"""A GGUF file, dequantized once into a folder of bf16 safetensors that later loads map into memory."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final

from pipeline.domain.errors import ModelUnavailableError
from workers.engine.gguf_tokenizer import tokenizer_from_metadata
from workers.engine.quiet import quiet_transformers

#: Part of the prepared folder's name; raised when the preparation changes.
PREPARATION: Final = 1

#: What these architectures are called in transformers.
_ARCHITECTURES: Final[Mapping[str, str]] = {"llama": "LlamaForCausalLM", "qwen2": "Qwen2ForCausalLM"}

_CONFIG_KEYS: Final[Mapping[str, str]] = {
    "hidden_size": "embedding_length",
    "intermediate_size": "feed_forward_length",
    "num_hidden_layers": "block_count",
    "num_attention_heads": "attention.head_count",
    "max_position_embeddings": "context_length",
    "rms_norm_eps": "attention.layer_norm_rms_epsilon",
}

_NAMES: Final[Mapping[str, str]] = {
    "token_embd.weight": "model.embed_tokens.weight",
    "output_norm.weight": "model.norm.weight",
    "output.weight": "lm_head.weight",
}
_LAYER_NAMES: Final[Mapping[str, str]] = {
    "attn_norm": "input_layernorm",
    "ffn_norm": "post_attention_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}

_END_OF_TURN: Final = "<|im_end|>"
#: ChatML, for instruct models whose file carries no template but whose vocabulary has its marks.
CHATML_TEMPLATE: Final = (
    "{% for message in messages %}{{'<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + '\\n'}}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)


def content_hash(file: Path) -> str:
    """Return the name of the prepared folder: SHA-256 of the file's bytes and of how it is prepared."""
    with file.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256")
    return f"{digest.hexdigest()[:32]}-{PREPARATION}"


def convert(file: Path, folder: Path) -> None:
    """Write `file` into `folder` as config, tokenizer and bf16 safetensors.

    The tensors are dequantized here: transformers' `from_pretrained(gguf_file=...)` needs accelerate, reads
    the metadata three times (a minute for a small model) and gets the tokenizer wrong.

    Raises:
        ModelUnavailableError: The architecture or the tokenizer is not supported, or the file is damaged.
    """
    try:
        import gguf
    except ImportError as error:
        raise ModelUnavailableError("reading a GGUF file needs the package gguf", hint="nightrate[worker]") from error
    try:
        reader = gguf.GGUFReader(str(file))
        metadata = {name: field.contents() for name, field in reader.fields.items()}
    except (OSError, ValueError, IndexError, KeyError) as error:
        raise ModelUnavailableError(f"{file.name} is not a readable GGUF file: {error}") from error
    tokenizer = tokenizer_from_metadata(metadata)
    vocabulary = tokenizer.get_vocab()
    if _END_OF_TURN in vocabulary and (tokenizer.chat_template is None or _END_OF_TURN in tokenizer.chat_template):
        # A chat turn ends here; some files name the pre-training separator instead.
        tokenizer.eos_token = _END_OF_TURN
        tokenizer.chat_template = tokenizer.chat_template or CHATML_TEMPLATE
    with quiet_transformers():
        config = _config(metadata, tied=all(tensor.name != "output.weight" for tensor in reader.tensors))
        for role in ("bos", "eos", "pad"):
            setattr(config, f"{role}_token_id", getattr(tokenizer, f"{role}_token_id"))
        config.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
    _save_tensors(reader.tensors, metadata, folder / "model.safetensors")


def _config(metadata: Mapping[str, Any], *, tied: bool) -> Any:  # noqa: ANN401 -- transformers has no types
    from transformers import AutoConfig

    architecture = metadata["general.architecture"]
    if architecture not in _ARCHITECTURES:
        raise ModelUnavailableError(
            f"GGUF files of architecture {architecture} are not supported",
            hint="one of " + ", ".join(sorted(_ARCHITECTURES)) + ", or a safetensors folder",
        )
    if metadata.get(f"{architecture}.rope.scaling.type", "none") != "none":
        raise ModelUnavailableError("GGUF files with rescaled rotary positions are not supported", hint="safetensors")
    settings = {name: metadata[f"{architecture}.{key}"] for name, key in _CONFIG_KEYS.items()}
    heads = settings["num_attention_heads"]
    config = AutoConfig.for_model(
        architecture,
        **settings,
        num_key_value_heads=metadata.get(f"{architecture}.attention.head_count_kv", heads),
        rope_parameters={
            "rope_type": "default",
            "rope_theta": metadata.get(f"{architecture}.rope.freq_base", 10_000.0),
        },
        vocab_size=len(metadata["tokenizer.ggml.tokens"]),
        tie_word_embeddings=tied,
        dtype="bfloat16",
    )
    config.architectures = [_ARCHITECTURES[architecture]]
    return config


def _save_tensors(tensors: Iterable[Any], metadata: Mapping[str, Any], file: Path) -> None:
    """Dequantize `tensors` and write them to `file` in bf16 under transformers' names."""
    import gguf
    import torch
    from safetensors.torch import save_file

    architecture = metadata["general.architecture"]
    heads = metadata[f"{architecture}.attention.head_count"]
    key_heads = metadata.get(f"{architecture}.attention.head_count_kv", heads)
    state: dict[str, torch.Tensor] = {}
    for tensor in tensors:
        values = gguf.dequantize(tensor.data, tensor.tensor_type)
        name = _name(tensor.name)
        if architecture == "llama" and name.endswith((".q_proj.weight", ".k_proj.weight")):
            values = _rotary_halves(values, heads if ".q_proj." in name else key_heads)
        state[name] = torch.from_numpy(values.copy()).to(torch.bfloat16)
    save_file(state, file, metadata={"format": "pt"})


def _name(gguf_name: str) -> str:
    """Return transformers' name of a GGUF tensor."""
    if gguf_name in _NAMES:
        return _NAMES[gguf_name]
    parts = gguf_name.split(".")
    if len(parts) == len(("blk", "0", "attn_q", "weight")) and parts[0] == "blk" and parts[2] in _LAYER_NAMES:
        return f"model.layers.{parts[1]}.{_LAYER_NAMES[parts[2]]}.{parts[3]}"
    raise ModelUnavailableError(f"the GGUF tensor {gguf_name} has no counterpart", hint="a safetensors folder")


def _rotary_halves(values: Any, heads: int) -> Any:  # noqa: ANN401 -- a numpy array of either float width
    """Undo llama.cpp's interleaving: rows (heads, half, 2) of a projection become (heads, 2, half).

    llama.cpp rotates neighbouring pairs, transformers the two halves of a head (convert_hf_to_gguf.py, `permute`).
    """
    rows, columns = values.shape
    return values.reshape(heads, rows // heads // 2, 2, columns).swapaxes(1, 2).reshape(rows, columns)
