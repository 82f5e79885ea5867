"""A `TorchEngine` from a prepared model folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from pipeline.domain.errors import ModelUnavailableError
from pipeline.domain.models import ModelSpec, Recipe
from pipeline.ports.meters import EngineIdentity
from workers.engine.generation import end_tokens, options_of
from workers.engine.quiet import quiet_transformers
from workers.engine.torch_chat.decoder import Decoder
from workers.engine.torch_chat.engine import TorchOptions
from workers.engine.torch_chat.generic import GenericDecoder
from workers.engine.torch_chat.linear import has_fast_bf16
from workers.engine.torch_chat.llama import LlamaDecoder
from workers.engine.torch_chat.modules import replace_linears
from workers.engine.torch_chat.quantized import check_recipe, maker_of
from workers.engine.torch_chat.slot_engine import TorchEngine
from workers.engine.torch_chat.weights import LlamaWeights, is_llama_shaped

_DTYPES: Final = {
    Recipe.FLOAT32: torch.float32,
    Recipe.BFLOAT16: torch.bfloat16,
    Recipe.FLOAT16: torch.float16,
}
_QUANTIZED: Final = frozenset({Recipe.INT8, Recipe.FLOAT8})


def load(spec: ModelSpec, folder: Path, *, revision: str, device: str | None, threads: int | None) -> TorchEngine:
    """Return an engine for the model in `folder`.

    Options of the spec are the fields of `TorchOptions`, and `context_tokens` (default: the model's own). The
    native recipe is bf16 where the device computes in it, else float32; so is what a quantized one leaves as it is.

    Raises:
        ModelUnavailableError: An option is unknown, the device cannot compute under the recipe, or the weights
            cannot be loaded.
    """
    if threads is not None:
        torch.set_num_threads(threads)
    settings = dict(spec.options)
    place = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    check_recipe(spec.recipe, place)
    dtype = _dtype(spec.recipe, place)
    context = settings.pop("context_tokens", None)
    options = options_of(TorchOptions, settings)
    try:
        with quiet_transformers():
            tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
            model: Any = AutoModelForCausalLM.from_pretrained(
                folder, dtype=dtype, attn_implementation="sdpa", use_safetensors=True, trust_remote_code=False
            )
    except (OSError, ValueError, KeyError) as error:
        raise ModelUnavailableError(f"{spec.name} cannot be loaded as a causal language model: {error}") from error
    decoder = decoder_of(spec, model, place, int(context) if context else None)
    return TorchEngine(
        spec.name,
        decoder=decoder,
        tokenizer=tokenizer,
        end_tokens=end_tokens(
            tokenizer, [getattr(config, "eos_token_id", None) for config in (model.generation_config, model.config)]
        ),
        options=options,
        identity=EngineIdentity(
            engine=TorchEngine.name,
            version=torch.__version__.partition("+")[0],
            precision=_precision(spec.recipe, dtype),
            revision=revision,
            device=str(place),
        ),
    )


def decoder_of(spec: ModelSpec, model: Any, device: torch.device, context: int | None) -> Decoder:  # noqa: ANN401 -- transformers has no types
    """Return the decoder of a model under the recipe of `spec`, on `device`; the model is of no use afterwards."""
    config = model.config.get_text_config()
    tokens = min(filter(None, (context, config.max_position_embeddings)))
    make = maker_of(spec.recipe, device)
    if is_llama_shaped(config):
        return LlamaDecoder(LlamaWeights(model.eval(), device=device, make=make), context_tokens=tokens)
    model = model.to(device).eval()
    if spec.recipe in _QUANTIZED and not replace_linears(model, make):
        raise ModelUnavailableError(f"{spec.name} has no layer that {spec.recipe} could be applied to")
    # Inside the window every layer attends to everything, which is what the slot cache offers.
    window = getattr(config, "sliding_window", None)
    return GenericDecoder(model, context_tokens=min(filter(None, (tokens, window))))


def _precision(recipe: Recipe, dtype: torch.dtype) -> str:
    """Return what the weights are in, and, for a quantized recipe, what everything around them is in."""
    name = str(dtype).removeprefix("torch.")
    return f"{recipe}_{name}" if recipe in _QUANTIZED else name


def _dtype(recipe: Recipe, device: torch.device) -> torch.dtype:
    if recipe in _DTYPES:
        return _DTYPES[recipe]
    if device.type == "cpu":
        return torch.bfloat16 if has_fast_bf16() else torch.float32
    return torch.bfloat16
