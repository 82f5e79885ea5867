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
from workers.engine.torch_chat.engine import RowEngine, TorchOptions
from workers.engine.torch_chat.generic import GenericDecoder
from workers.engine.torch_chat.linear import has_fast_bf16
from workers.engine.torch_chat.llama import LlamaDecoder
from workers.engine.torch_chat.modules import replace_linears
from workers.engine.torch_chat.quantized import check_recipe, maker_of
from workers.engine.torch_chat.slot_engine import TorchEngine
from workers.engine.torch_chat.weights import LlamaWeights, is_llama_shaped
from workers.engine.torch_flat.engine import FlatOptions
from workers.engine.torch_flat.loading import flat_engine, pointwise_for

_DTYPES: Final = {
    Recipe.FLOAT32: torch.float32,
    Recipe.BFLOAT16: torch.bfloat16,
    Recipe.FLOAT16: torch.float16,
}
_QUANTIZED: Final = frozenset({Recipe.INT8, Recipe.FLOAT8})


def load(spec: ModelSpec, folder: Path, *, revision: str, device: str | None, threads: int | None) -> RowEngine:
    """Return an engine for the model in `folder`.

    Options of the spec are the fields of `TorchOptions`, on CUDA of `FlatOptions`, and `context_tokens` (default: the model's own). The
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
    # Before the weights, which take minutes: an option of neither engine is refused at once.
    options = options_of(FlatOptions if place.type == "cuda" else TorchOptions, settings)
    tokenizer, model = _loaded(spec, folder, dtype)
    rest = {
        "tokenizer": tokenizer,
        "end_tokens": end_tokens(
            tokenizer, [getattr(config, "eos_token_id", None) for config in (model.generation_config, model.config)]
        ),
        "identity": EngineIdentity(
            engine=TorchEngine.name,
            version=torch.__version__.partition("+")[0],
            precision=precision_of(spec.recipe, dtype),
            revision=revision,
            device=str(place),
        ),
    }
    return engine_of(spec, model, place, options, context=int(context) if context else None, **rest)


def engine_of(
    spec: ModelSpec,
    model: Any,  # noqa: ANN401 -- transformers has no types
    device: torch.device,
    options: TorchOptions,
    *,
    context: int | None = None,
    **rest: Any,  # noqa: ANN401 -- whatever `RowEngine` takes
) -> RowEngine:
    """Return the engine of a loaded model under the recipe of `spec`; the model is of no use afterwards.

    Llama-shaped models run over a flat cache on CUDA (with `FlatOptions`) and over a slot cache elsewhere, all
    others by transformers' own modules.
    """
    config = model.config.get_text_config()
    rest["vocabulary"] = config.vocab_size
    tokens = min(filter(None, (context, config.max_position_embeddings)))
    if is_llama_shaped(config) and isinstance(options, FlatOptions):
        pointwise = pointwise_for(device, model.dtype, options)
        weights = LlamaWeights(model.eval(), device=device, make=maker_of(spec.recipe, device, pointwise))
        return flat_engine(spec.name, weights, context_tokens=tokens, options=options, pointwise=pointwise, **rest)
    if isinstance(options, FlatOptions):
        options = _without_flat(options)
    return TorchEngine(spec.name, decoder=_decoder(spec, model, device, tokens), options=options, **rest)


def _loaded(spec: ModelSpec, folder: Path, dtype: torch.dtype) -> tuple[Any, Any]:
    try:
        with quiet_transformers():
            tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
            model = AutoModelForCausalLM.from_pretrained(
                folder, dtype=dtype, attn_implementation="sdpa", use_safetensors=True, trust_remote_code=False
            )
    except (OSError, ValueError, KeyError) as error:
        raise ModelUnavailableError(f"{spec.name} cannot be loaded as a causal language model: {error}") from error
    return tokenizer, model


def _without_flat(options: FlatOptions) -> TorchOptions:
    """Return the options of the slot cache for what cannot run over the flat one; its sizes are that engine's own."""
    plain = TorchOptions()
    return TorchOptions(
        slots=min(options.slots, 2 * plain.slots),
        lookahead=min(options.lookahead, 2 * plain.lookahead),
        prefill_tokens=min(options.prefill_tokens, plain.prefill_tokens),
        cache_bytes_max=options.cache_bytes_max or plain.cache_bytes_max,
        shares_prefixes=options.shares_prefixes,
        ignore_end=options.ignore_end,
    )


def _decoder(spec: ModelSpec, model: Any, device: torch.device, tokens: int) -> Decoder:  # noqa: ANN401 -- as above
    config = model.config.get_text_config()
    make = maker_of(spec.recipe, device)
    if is_llama_shaped(config):
        return LlamaDecoder(LlamaWeights(model.eval(), device=device, make=make), context_tokens=tokens)
    model = model.to(device).eval()
    if spec.recipe in _QUANTIZED and not replace_linears(model, make):
        raise ModelUnavailableError(f"{spec.name} has no layer that {spec.recipe} could be applied to")
    # Inside the window every layer attends to everything, which is what the slot cache offers.
    window = getattr(config, "sliding_window", None)
    return GenericDecoder(model, context_tokens=min(filter(None, (tokens, window))))


def precision_of(recipe: Recipe, dtype: torch.dtype) -> str:
    """Return what the weights are in, and, for a quantized recipe, what everything around them is in."""
    name = str(dtype).removeprefix("torch.")
    return f"{recipe}_{name}" if recipe in _QUANTIZED else name


def _dtype(recipe: Recipe, device: torch.device) -> torch.dtype:
    if recipe in _DTYPES:
        return _DTYPES[recipe]
    if device.type == "cpu":
        return torch.bfloat16 if has_fast_bf16() else torch.float32
    return torch.bfloat16
