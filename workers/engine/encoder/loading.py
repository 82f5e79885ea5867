"""An `EncoderEngine` from a prepared model folder."""

from __future__ import annotations

import json
from dataclasses import dataclass
from enum import StrEnum
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final, TypeVar

import torch
from transformers import AutoModel, AutoTokenizer

from pipeline.domain.errors import ModelUnavailableError
from pipeline.domain.models import ModelSpec
from workers.engine.encoder.batch import TextTokenizer
from workers.engine.encoder.engine import EncoderEngine
from workers.engine.encoder.forward import Forward
from workers.engine.encoder.heads import EmbeddingHead
from workers.engine.encoder.int8_linear import is_int8_available, quantize_linears
from workers.engine.encoder.packing import BatchBounds
from workers.engine.encoder.pooling import Pooling, pooling_of
from workers.engine.encoder.torch_forward import TorchForward
from workers.engine.generation import options_of
from workers.engine.quiet import quiet_transformers

#: Batches side by side on a CPU; beyond, each gets more threads.
_STREAMS_MAX: Final = 8
#: Tokens of a batch. On a CPU, where a batch's activations stay in the cache, more cost more, not less.
_BATCH_TOKENS_CPU: Final = 2048
_BATCH_TOKENS_DEVICE: Final = 32_768
_BATCH_ROWS_MAX: Final = 1024


Choice = TypeVar("Choice", bound=StrEnum)


class Backend(StrEnum):
    """The library that runs the model."""

    TORCH = "torch"
    OPENVINO = "openvino"


class Precision(StrEnum):
    """Numbers the model computes in."""

    FLOAT32 = "float32"
    BFLOAT16 = "bfloat16"
    #: Linear layers alone, weights and activations.
    INT8 = "int8"


@dataclass(frozen=True, slots=True, kw_only=True)
class EncoderOptions:
    """Settings of the engine."""

    #: `torch` or `openvino`; empty: torch.
    backend: str = ""
    #: `float32`, `bfloat16` or `int8`; empty: float32 on a CPU, bfloat16 on an accelerator.
    precision: str = ""
    #: Batches that compute side by side; 0: one a thread on a CPU, one on an accelerator.
    streams: int = 0
    #: Tokens of one batch, padding included; 0: what suits the device.
    batch_tokens: int = 0
    #: Rows kept waiting: the more, the closer in length the texts of a batch.
    rows_waiting_max: int = 4096
    #: Whether leading dimensions are an embedding of their own, so that `dimensions` can be honoured.
    matryoshka: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class _Plan:
    """The options with every default decided."""

    backend: Backend
    precision: Precision
    device: torch.device
    streams: int
    #: Threads of a stream; None: the library's own choice.
    threads: int | None


def load(spec: ModelSpec, folder: Path, *, device: str | None, threads: int | None) -> EncoderEngine:
    """Return an engine for the encoder in `folder`; options of the spec are the fields of `EncoderOptions`.

    Raises:
        ModelUnavailableError: An option or a pooling is unknown, or the weights cannot be loaded.
    """
    options = options_of(EncoderOptions, dict(spec.options))
    config: dict[str, Any] = json.loads((folder / "config.json").read_text())
    plan = _plan(options, device=device, threads=threads)
    try:
        with quiet_transformers():
            tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    except (OSError, ValueError, KeyError) as error:
        raise ModelUnavailableError(f"{spec.name} cannot be loaded as an encoder: {error}") from error
    pooling = pooling_of(folder, tokens_max=_positions(config))
    takes_types = "token_type_ids" in tokenizer.model_input_names
    forward = _torch_forward(spec, folder, plan, pooling, takes_types=takes_types)
    head = EmbeddingHead(spec.name, dimensions=forward.width, matryoshka=options.matryoshka)
    default = _BATCH_TOKENS_CPU if plan.device.type == "cpu" else _BATCH_TOKENS_DEVICE
    return EncoderEngine(
        spec.name,
        forward=forward,
        tokenizer=TextTokenizer(tokenizer),
        head=head,
        tokens_max=pooling.tokens_max,
        bounds=BatchBounds(tokens_max=options.batch_tokens or default, rows_max=_BATCH_ROWS_MAX),
        rows_waiting_max=options.rows_waiting_max,
    )


def _plan(options: EncoderOptions, *, device: str | None, threads: int | None) -> _Plan:
    place = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    is_cpu = place.type == "cpu"
    backend = _choice(Backend, "backend", options.backend or Backend.TORCH)
    default = Precision.FLOAT32 if is_cpu else Precision.BFLOAT16
    precision = _choice(Precision, "precision", options.precision or default)
    if backend is Backend.OPENVINO and not is_cpu:
        raise ModelUnavailableError(f"the openvino backend runs on cpu, not on {place}")
    if backend is Backend.OPENVINO and find_spec("openvino") is None:
        raise ModelUnavailableError(
            "OpenVINO is not installed", hint="pip install -r locks/openvino.txt --no-deps, or backend torch"
        )
    if backend is Backend.TORCH and precision is Precision.INT8 and not (is_cpu and is_int8_available()):
        raise ModelUnavailableError(
            f"int8 on torch needs an x86 processor and torch's oneDNN; this is {place}", hint="precision float32"
        )
    cores = threads or torch.get_num_threads()
    streams = options.streams or (min(cores, _STREAMS_MAX) if is_cpu else 1)
    return _Plan(
        backend=backend,
        precision=precision,
        device=place,
        streams=streams,
        threads=max(1, cores // streams) if is_cpu else None,
    )


def _choice(kind: type[Choice], name: str, given: str) -> Choice:
    try:
        return kind(given)
    except ValueError as error:
        raise ModelUnavailableError(f"{name} {given!r} is not known", hint=", ".join(kind)) from error


def _positions(config: dict[str, Any]) -> int:
    """Return how many tokens the model has positions for."""
    positions = int(config.get("max_position_embeddings") or 512)
    # RoBERTa and its kin number positions from the padding id on.
    return positions - 2 if config.get("model_type") in {"roberta", "xlm-roberta", "camembert"} else positions


def _torch_forward(spec: ModelSpec, folder: Path, plan: _Plan, pooling: Pooling, *, takes_types: bool) -> Forward:
    dtype = torch.bfloat16 if plan.precision is Precision.BFLOAT16 else torch.float32
    try:
        with quiet_transformers():
            module = AutoModel.from_pretrained(folder, dtype=dtype, use_safetensors=True, trust_remote_code=False)
    except (OSError, ValueError, KeyError) as error:
        raise ModelUnavailableError(f"{spec.name} cannot be loaded as an encoder: {error}") from error
    module.eval().to(device=plan.device)
    if plan.precision is Precision.INT8:
        quantize_linears(module)
    return TorchForward(
        module,
        pooling=pooling,
        width=module.config.hidden_size,
        streams=plan.streams,
        threads=plan.threads,
        takes_types=takes_types,
    )
