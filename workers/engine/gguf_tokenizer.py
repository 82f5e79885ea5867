"""A fast tokenizer from a GGUF file's own metadata.

transformers 5.5 reads a `llama` GGUF's tokenizer as CodeLlama's whatever its metadata say: it puts the
begin token in front of every text, takes the end token from the wrong id and does not split digits. A
byte-level BPE vocabulary (`tokenizer.ggml.model == "gpt2"`) is therefore rebuilt here from the metadata.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from pipeline.domain.errors import ModelUnavailableError

#: `tokenizer.ggml.token_type` of tokens that are matched before BPE: control and user-defined.
_CONTROL: Final = 3
_USER_DEFINED: Final = 4

_GPT2_SPLIT: Final = None
_LLAMA3_SPLIT: Final = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_QWEN2_SPLIT: Final = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
#: How text is split before BPE, by `tokenizer.ggml.pre` (llama.cpp, src/llama-vocab.cpp).
_SPLITS: Final[Mapping[str, str | None]] = {
    "default": _GPT2_SPLIT,
    "gpt-2": _GPT2_SPLIT,
    "smollm": _GPT2_SPLIT,
    "llama-bpe": _LLAMA3_SPLIT,
    "qwen2": _QWEN2_SPLIT,
}
#: Vocabularies in which every digit stands alone.
_DIGITS_ALONE: Final = frozenset({"smollm"})


def tokenizer_from_metadata(metadata: Mapping[str, Any]) -> Any:  # noqa: ANN401 -- transformers has no types
    """Return a `PreTrainedTokenizerFast` for the `tokenizer.*` metadata of a GGUF file.

    Raises:
        ModelUnavailableError: The vocabulary is not byte-level BPE with a known split.
    """
    from tokenizers import AddedToken, Tokenizer, decoders, models  # type: ignore[import-untyped]  # ships no types
    from transformers import PreTrainedTokenizerFast

    kind, split = metadata.get("tokenizer.ggml.model"), metadata.get("tokenizer.ggml.pre", "default")
    if kind != "gpt2" or split not in _SPLITS:
        raise ModelUnavailableError(
            f"the GGUF file's tokenizer ({kind}, {split}) is not supported",
            hint="byte-level BPE with one of the splits " + ", ".join(sorted(_SPLITS)) + ", or a safetensors folder",
        )
    tokens: list[str] = metadata["tokenizer.ggml.tokens"]
    merges = [tuple(merge.split(" ", 1)) for merge in metadata["tokenizer.ggml.merges"]]
    backend = Tokenizer(models.BPE(vocab={token: i for i, token in enumerate(tokens)}, merges=merges))
    backend.pre_tokenizer = _pre_tokenizer(split)
    backend.decoder = decoders.ByteLevel()
    types = metadata.get("tokenizer.ggml.token_type", [])
    for token, token_type in zip(tokens, types, strict=False):
        if token_type in {_CONTROL, _USER_DEFINED}:
            special = token_type == _CONTROL
            backend.add_tokens([AddedToken(token, special=special, normalized=False)])
            if special:
                backend.add_special_tokens([AddedToken(token, special=True, normalized=False)])
    named = {
        f"{role}_token": tokens[metadata[key]]
        for role, key in _ROLE_KEYS.items()
        if key in metadata and metadata[key] < len(tokens)
    }
    if metadata.get("tokenizer.ggml.add_bos_token") and "bos_token" in named:
        backend.post_processor = _begin_with(named["bos_token"], metadata[_ROLE_KEYS["bos"]])
    tokenizer_class: Any = PreTrainedTokenizerFast
    return tokenizer_class(
        tokenizer_object=backend,
        chat_template=metadata.get("tokenizer.chat_template"),
        model_max_length=metadata.get(f"{metadata['general.architecture']}.context_length", 2048),
        clean_up_tokenization_spaces=False,
        **named,
    )


_ROLE_KEYS: Final[Mapping[str, str]] = {
    "bos": "tokenizer.ggml.bos_token_id",
    "eos": "tokenizer.ggml.eos_token_id",
    "unk": "tokenizer.ggml.unknown_token_id",
    "pad": "tokenizer.ggml.padding_token_id",
}


def _pre_tokenizer(split: str) -> Any:  # noqa: ANN401 -- tokenizers has no common type for these
    from tokenizers import Regex, pre_tokenizers

    pattern = _SPLITS[split]
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=pattern is None)
    if pattern is not None:
        return pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(pattern), "isolated"), byte_level])
    if split in _DIGITS_ALONE:
        return pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), byte_level])
    return byte_level


def _begin_with(token: str, token_id: int) -> Any:  # noqa: ANN401 -- as above
    from tokenizers import processors

    return processors.TemplateProcessing(single=f"{token} $A", special_tokens=[(token, token_id)])
