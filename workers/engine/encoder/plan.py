"""The options of an encoder, and which library runs it, in what numbers, on how many streams."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from importlib.util import find_spec
from typing import Final, TypeVar

import torch

from pipeline.domain.errors import ModelUnavailableError
from pipeline.domain.models import Recipe
from workers.engine.encoder.int8_linear import is_int8_available

#: Batches side by side on a CPU; beyond, each gets more threads.
_STREAMS_MAX: Final = 8
#: Tokens of a batch. On a CPU, where a batch's activations stay in the cache, more cost more, not less.
_BATCH_TOKENS_CPU: Final = 2048
_BATCH_TOKENS_ACCELERATOR: Final = 32_768

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
    #: Linear layers alone, weights only.
    INT8_WEIGHTS = "int8_weights"


_PRECISIONS: Final = {
    Backend.TORCH: (Precision.FLOAT32, Precision.BFLOAT16, Precision.INT8),
    Backend.OPENVINO: (Precision.FLOAT32, Precision.INT8, Precision.INT8_WEIGHTS),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class EncoderOptions:
    """Settings of the engine."""

    #: `torch` or `openvino`; empty: see `plan_of`.
    backend: str = ""
    #: Batches that compute side by side; 0: one a thread on a CPU, one on an accelerator.
    streams: int = 0
    #: Tokens of one batch, padding included; 0: what suits the device.
    batch_tokens: int = 0
    #: Rows kept waiting: the more, the closer in length the texts of a batch.
    rows_waiting_max: int = 4096
    #: Whether leading dimensions are an embedding of their own, so that `dimensions` can be honoured.
    matryoshka: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """The options with every default decided."""

    backend: Backend
    precision: Precision
    device: torch.device
    streams: int
    #: Threads of a stream; None: the library's own choice.
    threads: int | None
    batch_tokens: int


def plan_of(options: EncoderOptions, *, recipe: Recipe, device: str | None, threads: int | None) -> Plan:
    """Return how to run a model of these options under this recipe on this machine.

    The native recipe is torch in bfloat16 on an accelerator. On a CPU it is float32, on OpenVINO where it is installed:
    a model's reference may always run, so it is not where numbers are made coarser. 8-bit integers, on torch, are cheaper
    and a recipe to ask the gate about.

    Raises:
        ModelUnavailableError: An option is unknown, or what it asks for is not to be had here.
    """
    place = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    is_cpu = place.type == "cpu"
    cores = threads or torch.get_num_threads()
    streams = options.streams or (min(cores, _STREAMS_MAX) if is_cpu else 1)
    wanted = None if recipe is Recipe.NATIVE else _choice(Precision, "recipe", recipe)
    backend, precision = _library(options, wanted, is_cpu=is_cpu)
    _refuse_what_is_not_here(backend, precision, place)
    return Plan(
        backend=backend,
        precision=precision,
        device=place,
        streams=streams,
        threads=max(1, cores // streams) if is_cpu else None,
        batch_tokens=options.batch_tokens or (_BATCH_TOKENS_CPU if is_cpu else _BATCH_TOKENS_ACCELERATOR),
    )


def _library(options: EncoderOptions, wanted: Precision | None, *, is_cpu: bool) -> tuple[Backend, Precision]:
    precision = wanted or (Precision.FLOAT32 if is_cpu else Precision.BFLOAT16)
    if options.backend:
        return _choice(Backend, "backend", options.backend), precision
    if is_cpu and _has_openvino() and precision in {Precision.FLOAT32, Precision.INT8_WEIGHTS}:
        return Backend.OPENVINO, precision
    return Backend.TORCH, precision


def _refuse_what_is_not_here(backend: Backend, precision: Precision, place: torch.device) -> None:
    if precision not in _PRECISIONS[backend]:
        raise ModelUnavailableError(
            f"the {backend} backend has no recipe {precision}", hint=", ".join(_PRECISIONS[backend])
        )
    if backend is Backend.OPENVINO and place.type != "cpu":
        raise ModelUnavailableError(f"the openvino backend runs on cpu, not on {place}")
    if backend is Backend.OPENVINO and not _has_openvino():
        raise ModelUnavailableError(
            "the openvino backend needs OpenVINO, which is not installed",
            hint="pip install -r locks/openvino.txt --no-deps",
        )
    if backend is Backend.TORCH and precision is Precision.INT8 and not (place.type == "cpu" and is_int8_available()):
        raise ModelUnavailableError(f"torch has no int8 kernels for {place} here", hint="recipe float32 or bfloat16")


def _has_openvino() -> bool:
    return all(find_spec(name) is not None for name in ("openvino", "optimum", "nncf"))


def _choice(kind: type[Choice], name: str, given: str) -> Choice:
    try:
        return kind(given)
    except ValueError as error:
        raise ModelUnavailableError(f"{name} {given!r} is not known", hint=", ".join(kind)) from error
