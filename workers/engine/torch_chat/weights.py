"""A Llama-shaped model's weights, laid out for running: taken from transformers' modules layer by layer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import torch
from torch import Tensor

from workers.engine.torch_chat.linear import Linear, Projection
from workers.engine.torch_chat.quantized import MakeProjection
from workers.engine.torch_chat.slots import CacheShape

#: `model_type`s of transformers whose layers are Llama's, biases aside.
LLAMA_SHAPED: Final = frozenset({"llama", "mistral", "qwen2"})


def is_llama_shaped(config: Any) -> bool:  # noqa: ANN401 -- transformers has no types
    """Return whether the direct forward computes exactly what transformers would for this config."""
    windowed = any(kind != "full_attention" for kind in getattr(config, "layer_types", None) or ())
    rope = getattr(config, "rope_parameters", None) or {}
    return (
        config.model_type in LLAMA_SHAPED
        and not windowed
        and (config.model_type != "mistral" or config.sliding_window is None)
        and config.hidden_act == "silu"
        and rope.get("rope_type", "default") in {"default", "linear", "llama3"}
    )


@dataclass(frozen=True, slots=True)
class LlamaLayer:
    """One block's weights; projections that share an input are stacked along their outputs."""

    input_norm: Tensor
    qkv: Projection
    output: Projection
    mlp_norm: Tensor
    gate_up: Projection
    down: Projection


class LlamaWeights:
    """What a direct forward needs of a model. The output head is never quantized: it decides between neighbours."""

    def __init__(self, model: Any, *, device: torch.device, make: MakeProjection = Linear) -> None:  # noqa: ANN401 -- transformers has no types
        """Take the weights out of a transformers `...ForCausalLM`, which is of no use afterwards.

        Each layer is moved to `device`, made into projections and dropped before the next, so that the device
        never holds more than the result and one layer, and the host never more than the model and one layer.
        """
        config = model.config
        self.heads: int = config.num_attention_heads
        self.key_heads: int = config.num_key_value_heads
        self.head_dim: int = getattr(config, "head_dim", None) or config.hidden_size // self.heads
        self.epsilon: float = config.rms_norm_eps
        self.intermediate: int = config.intermediate_size
        self.embedding: Tensor = model.model.embed_tokens.weight.data.to(device)
        head = model.lm_head.weight
        is_tied = head is model.model.embed_tokens.weight
        self.head: Projection = Linear(self.embedding if is_tied else head.data.to(device))
        self.norm: Tensor = model.model.norm.weight.data.to(device)
        self._rotary = model.model.rotary_emb.to(device)
        self.layers: list[LlamaLayer] = []
        for layer in model.model.layers:
            self.layers.append(_taken(layer.to(device), make))
            _drop(layer)

    @property
    def cache_shape(self) -> CacheShape:
        """Return what keys and values of one token need."""
        return CacheShape(
            layers=len(self.layers),
            key_heads=self.key_heads,
            head_dim=self.head_dim,
            dtype=self.embedding.dtype,
            device=self.embedding.device,
        )

    @torch.inference_mode()
    def rotation(self, tokens: int) -> tuple[Tensor, Tensor]:
        """Return cosine and sine of the first `tokens` positions' angles, (positions, 1, head dimension / 2)."""
        positions = torch.arange(tokens, device=self.embedding.device)[None]
        cos, sin = self._rotary(self.embedding[:1, None], positions)
        half = self.head_dim // 2
        # The two halves of a rotation table are equal.
        return cos[0, :, None, :half].contiguous(), sin[0, :, None, :half].contiguous()


def _taken(layer: Any, make: MakeProjection) -> LlamaLayer:  # noqa: ANN401 -- transformers has no types
    attention, mlp = layer.self_attn, layer.mlp
    return LlamaLayer(
        input_norm=layer.input_layernorm.weight.data,
        qkv=_stacked(make, attention.q_proj, attention.k_proj, attention.v_proj),
        output=_stacked(make, attention.o_proj),
        mlp_norm=layer.post_attention_layernorm.weight.data,
        gate_up=_stacked(make, mlp.gate_proj, mlp.up_proj),
        down=_stacked(make, mlp.down_proj),
    )


def _stacked(make: MakeProjection, *linears: Any) -> Projection:  # noqa: ANN401 -- as above
    has_bias = all(linear.bias is not None for linear in linears)
    bias = torch.cat([linear.bias.data for linear in linears]) if has_bias else None
    weights = [linear.weight.data for linear in linears]
    return make(weights[0] if len(weights) == 1 else torch.cat(weights), bias)


def _drop(layer: Any) -> None:  # noqa: ANN401 -- as above
    """Let go of the layer's own memory: what was taken as it is lives on in the result."""
    for parameter in layer.parameters():
        parameter.data = torch.empty(0, dtype=parameter.dtype)
