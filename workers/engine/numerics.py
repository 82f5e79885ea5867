"""What a variant's answers depend on besides its weights: the engine's version and the kernels of this machine."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import MappingProxyType
from typing import Final

from pipeline.domain.gates import gate_key
from pipeline.domain.models import EngineKind, ModelSpec
from workers.engine.choice import engine_for

#: The libraries that compute, by engine.
_LIBRARIES: Final[Mapping[EngineKind, tuple[str, ...]]] = MappingProxyType(
    {
        EngineKind.AUTO: (),  # never what runs: see `engine_for`
        EngineKind.TORCH: ("torch", "transformers"),
        EngineKind.OPENVINO: ("openvino", "openvino-genai"),
        EngineKind.ENCODER: ("torch", "transformers", "openvino"),
        EngineKind.ECHO: (),
    }
)
#: Instruction sets that libraries choose kernels by, the best first.
_INSTRUCTION_SETS: Final = ("amx_bf16", "avx512_bf16", "avx512_vnni", "avx512f", "avx_vnni", "avx2", "asimd")

assert set(_LIBRARIES) == set(EngineKind)


def key_of(spec: ModelSpec, device: str | None) -> str:
    """Return the gate key of a variant on this machine."""
    engine = engine_for(spec, device)
    return gate_key(
        revision=spec.revision,
        recipe=spec.recipe,
        engine=engine,
        engine_version=engine_version(engine),
        numerics=numerics_of(device),
    )


def engine_version(engine: EngineKind) -> str:
    """Return the versions of the libraries that compute, such as `torch-2.13.0 transformers-5.5.4`."""
    return " ".join(f"{library}-{_installed(library)}" for library in _LIBRARIES[engine])


@cache
def numerics_of(device: str | None) -> str:
    """Return which kernels run on `device`, such as `x86_64-avx2` or `cuda-9.0`; None is the best device."""
    if device != "cpu" and (capability := _compute_capability()) is not None:
        return f"cuda-{capability}"
    return f"{platform.machine()}-{_instruction_set()}"


def _installed(library: str) -> str:
    try:
        # The build, such as +cpu, changes kernels and not versions: `numerics_of` tells devices apart.
        return version(library).partition("+")[0]
    except PackageNotFoundError:
        return "none"


def _instruction_set(cpuinfo: Path = Path("/proc/cpuinfo")) -> str:
    try:
        words = frozenset(cpuinfo.read_text().split())
    except OSError:
        return "unknown"
    return next((name for name in _INSTRUCTION_SETS if name in words), "base")


def _compute_capability() -> str | None:
    try:
        import pynvml
    except ImportError:
        return None
    try:
        pynvml.nvmlInit()
        major, minor = pynvml.nvmlDeviceGetCudaComputeCapability(pynvml.nvmlDeviceGetHandleByIndex(0))
    except pynvml.NVMLError:
        return None
    else:
        return f"{major}.{minor}"
