"""Which engine runs a variant here, where the variant leaves it open. Importing this imports nothing heavy."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Final

from pipeline.domain.models import RECIPES, DeviceClass, EngineKind, ModelSpec
from workers.accelerators import find_accelerators

#: What the openvino engine needs beyond torch and transformers: the batcher, and the exporter.
OPENVINO_LIBRARIES: Final = ("openvino_genai", "optimum.intel")


def engine_for(spec: ModelSpec, device: str | None) -> EngineKind:
    """Return the engine that runs the variant on `device`: the recipe decides, then what is fastest there.

    On CPUs that is OpenVINO where it is installed (measured: docs/benchmarks/engines.json), on CUDA torch.
    """
    if spec.engine is not EngineKind.AUTO:
        return spec.engine
    if spec.recipe not in RECIPES[EngineKind.OPENVINO]:
        return EngineKind.TORCH
    if spec.recipe not in RECIPES[EngineKind.TORCH]:
        return EngineKind.OPENVINO
    is_fast_here = device_class(device) is DeviceClass.CPU and are_installed(*OPENVINO_LIBRARIES)
    return EngineKind.OPENVINO if is_fast_here else EngineKind.TORCH


def device_class(device: str | None) -> DeviceClass:
    """Return the class of a device such as `cpu` or `cuda:0`; None is the accelerator if there is one."""
    if device is not None:
        return DeviceClass.CUDA if device.startswith("cuda") else DeviceClass.CPU
    return DeviceClass.CUDA if find_accelerators() else DeviceClass.CPU


def are_installed(*libraries: str) -> bool:
    """Say whether all of these modules could be imported, importing at most their parent packages."""
    try:
        return all(find_spec(library) is not None for library in libraries)
    except ModuleNotFoundError:  # a submodule's parent is not there
        return False
