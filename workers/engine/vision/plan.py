"""The options of a model of images, and in what numbers and batches it runs."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

import torch

from pipeline.domain.errors import ModelUnavailableError
from pipeline.domain.limits import IMAGE_BYTES_MAX, IMAGE_PIXELS_MAX
from pipeline.domain.models import RECIPES, EngineKind, Recipe, recipes_of
from workers.engine.encoder.int8_linear import is_int8_available

#: Images of a batch. A CPU is busy with a few, and more no longer fit its caches.
_BATCH_CPU: Final = 8
_BATCH_ACCELERATOR: Final = 256
_FETCHERS: Final = 16
#: On a CPU; beyond, each gets more threads.
_STREAMS_MAX: Final = 8
_DECODERS_MAX: Final = 16


class Precision(StrEnum):
    """Numbers the model computes in."""

    FLOAT32 = "float32"
    BFLOAT16 = "bfloat16"
    #: Linear layers alone, weights and activations.
    INT8 = "int8"


@dataclass(frozen=True, slots=True, kw_only=True)
class VisionOptions:
    """Settings of the engine."""

    #: Images of one batch; 0: what suits the device.
    batch_images: int = 0
    #: Threads that fetch: how many servers are asked at once.
    fetchers: int = _FETCHERS
    #: Threads that decode; 0: one a core.
    decoders: int = 0
    #: Rows kept waiting.
    rows_waiting_max: int = 1024
    #: Of one image's file, in bytes, and of its width times its height.
    image_bytes_max: int = IMAGE_BYTES_MAX
    image_pixels_max: int = IMAGE_PIXELS_MAX
    #: Whether leading dimensions are an embedding of their own, so that `dimensions` can be honoured.
    matryoshka: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """The options with every default decided."""

    precision: Precision
    device: torch.device
    batch_images: int
    decoders: int
    #: Batches that compute side by side: on a CPU one a thread, for threads that share a batch wait for each other.
    streams: int
    #: Threads of a stream; None: the library's own choice.
    threads: int | None


def plan_of(options: VisionOptions, *, recipe: Recipe, device: str | None, threads: int | None) -> Plan:
    """Return how to run a model of these options under this recipe: natively bfloat16 on an accelerator, else float32.

    Raises:
        ModelUnavailableError: An option makes no sense, or the recipe is not to be had here.
    """
    if recipe not in RECIPES[EngineKind.VISION]:
        raise ModelUnavailableError(f"the vision engine has no recipe {recipe}", hint=recipes_of(EngineKind.VISION))
    for name in ("fetchers", "rows_waiting_max", "image_bytes_max", "image_pixels_max"):
        if getattr(options, name) < 1:
            raise ModelUnavailableError(f"{name} is {getattr(options, name)}", hint="1 or more")
    place = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    is_cpu = place.type == "cpu"
    native = Precision.FLOAT32 if is_cpu else Precision.BFLOAT16
    precision = native if recipe is Recipe.NATIVE else Precision(recipe)
    if precision is Precision.INT8 and not (is_cpu and is_int8_available()):
        raise ModelUnavailableError(f"torch has no int8 kernels for {place} here", hint="recipe float32 or bfloat16")
    cores = threads or torch.get_num_threads()
    streams = min(cores, _STREAMS_MAX) if is_cpu else 1
    return Plan(
        precision=precision,
        device=place,
        batch_images=options.batch_images or (_BATCH_CPU if is_cpu else _BATCH_ACCELERATOR),
        decoders=options.decoders or min(_DECODERS_MAX, cores),
        streams=streams,
        threads=max(1, cores // streams) if is_cpu else None,
    )
