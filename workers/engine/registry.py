"""From a model's spec to a loaded engine. Importing this imports no torch."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Final, assert_never

from pipeline.domain.errors import ModelUnavailableError
from pipeline.domain.models import RECIPES, DeviceClass, EngineKind, ModelSpec, Recipe
from pipeline.ports.engine import Engine
from workers.engine.choice import are_installed, device_class, engine_for
from workers.engine.echo import EchoEngine
from workers.engine.models import prepared_folder
from workers.engine.relay import RelayEngine
from workers.engine.revision import revision_of
from workers.engine.vllm_chat.build import build_device, check_build, fits

if TYPE_CHECKING:  # an HTTP client, which other engines do not need
    from workers.engine.vision.sources import ImageAccess

_LOG = logging.getLogger(__name__)

_SHARED_OPTIONS: Final = ("slots", "shares_prefixes", "ignore_end")


def load_engine(
    spec: ModelSpec,
    *,
    cache_dir: Path,
    device: str | None = None,
    threads: int | None = None,
    images: ImageAccess | None = None,
) -> Engine:
    """Load the model of `spec` and return its engine.

    Args:
        spec: The model, its source and its engine's options.
        cache_dir: Where prepared models are kept between runs.
        device: Such as `cpu` or `cuda:0`; None takes the accelerator if there is one.
        threads: CPU threads; None leaves torch's choice.
        images: From where images may be read; None: from the requests themselves alone.

    Raises:
        ModelUnavailableError: The source, an option or a library is not usable here.
    """
    if spec.engine is EngineKind.ECHO:
        if spec.options:
            raise ModelUnavailableError("the echo engine has no options")
        return EchoEngine(spec.name)
    try:
        import torch  # noqa: F401 -- tells a missing extra from a defect below
        import transformers  # noqa: F401 -- as above
    except ImportError as error:
        raise ModelUnavailableError(
            f"{spec.name} needs {error.name}, which is not installed", hint="pip install 'nightrate[worker]'"
        ) from error
    if spec.engine is EngineKind.VLLM:
        check_build(spec, device)
    folder = prepared_folder(spec.source, cache_dir=cache_dir, revision=spec.revision)
    place = _Place(folder, revision_of(folder, cache_dir=cache_dir), cache_dir, device, threads, images)
    if spec.engine is EngineKind.AUTO:
        return _load_fastest(spec, place)
    return _load(spec, spec.engine, place)


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a model lies and where it is to run."""

    folder: Path
    #: Hash of what lies there.
    revision: str
    cache_dir: Path
    device: str | None
    threads: int | None
    images: ImageAccess | None


def _load_fastest(spec: ModelSpec, place: _Place) -> Engine:
    """Load the fastest engine; where that is OpenVINO, with torch as its deputy for what is beyond it."""
    engine = engine_for(spec, place.device)
    if engine is EngineKind.OPENVINO and spec.recipe in RECIPES[EngineKind.TORCH]:
        from workers.engine.openvino_chat.engine import is_beyond

        try:
            fast = _load(spec, engine, place)
        except ModelUnavailableError as error:
            if not spec.is_reference:
                raise
            # Not every architecture has an export; the reference runs on anything.
            _LOG.warning("openvino_cannot_run_this", extra={"model": spec.name, "reason": error.message})
            return _load(_shared(spec), EngineKind.TORCH, place)
        return RelayEngine(fast, lambda: _load(_shared(spec), EngineKind.TORCH, place), is_beyond)
    return _load(spec, engine, place)


def _shared(spec: ModelSpec) -> ModelSpec:
    """Return the variant with the options that mean the same to every engine."""
    return replace(spec, options={name: spec.options[name] for name in _SHARED_OPTIONS if name in spec.options})


def _load(spec: ModelSpec, engine: EngineKind, place: _Place) -> Engine:
    match engine:
        case EngineKind.TORCH:
            from workers.engine.torch_chat.loading import load

            return load(spec, place.folder, revision=place.revision, device=place.device, threads=place.threads)
        case EngineKind.OPENVINO:
            _check_openvino(spec, place.device)
            from workers.engine.openvino_chat.loading import load as load_openvino

            return load_openvino(
                spec, place.folder, revision=place.revision, cache_dir=place.cache_dir, threads=place.threads
            )
        case EngineKind.VLLM:
            from workers.engine.vllm_chat.loading import load as load_vllm

            return load_vllm(
                spec,
                place.folder,
                revision=place.revision,
                cache_dir=place.cache_dir,
                device=place.device,
                threads=place.threads,
            )
        case EngineKind.ENCODER:
            from workers.engine.encoder.loading import load as load_encoder

            return load_encoder(
                spec,
                place.folder,
                revision=place.revision,
                cache_dir=place.cache_dir,
                device=place.device,
                threads=place.threads,
            )
        case EngineKind.VISION:
            return _load_vision(spec, place)
        case EngineKind.ECHO:
            return EchoEngine(spec.name)
        case EngineKind.AUTO:
            raise AssertionError("`engine_for` has chosen")
        case _:
            assert_never(engine)


def _load_vision(spec: ModelSpec, place: _Place) -> Engine:
    if not are_installed("PIL"):
        raise ModelUnavailableError(
            f"{spec.name} needs pillow, which is not installed", hint="pip install 'nightrate[worker]'"
        )
    from workers.engine.vision.loading import load
    from workers.engine.vision.sources import ImageAccess

    return load(
        spec,
        place.folder,
        revision=place.revision,
        device=place.device,
        threads=place.threads,
        access=place.images or ImageAccess(),
    )


def _check_openvino(spec: ModelSpec, device: str | None) -> None:
    if device is not None and device_class(device) is not DeviceClass.CPU:
        raise ModelUnavailableError(f"the openvino engine runs on cpu, not on {device}")
    if not are_installed("openvino_genai"):
        raise ModelUnavailableError(
            f"{spec.name} needs OpenVINO, which is not installed",
            hint="pip install -r locks/openvino.txt --no-deps",
        )


def is_available(spec: ModelSpec, *, device: str | None = None) -> bool:
    """Say whether this installation could load the variant on `device`, without importing anything heavy.

    A hub id is taken at its word: whether the hub has it is only known by asking.
    """
    engine = engine_for(spec, device)
    if engine is EngineKind.ECHO:
        return True
    if engine is EngineKind.VLLM:
        return are_installed("torch", "transformers") and fits(spec, device) and _is_source_here(spec.source)
    beside = {EngineKind.OPENVINO: ["openvino_genai"], EngineKind.VISION: ["PIL"]}
    return (
        are_installed("torch", "transformers", *beside.get(engine, []))
        and _runs_on(spec, engine, device)
        and _is_source_here(spec.source)
    )


def engines_at_once() -> int:
    """Return how many engines a worker keeps loaded here.

    Where vLLM is installed one: it takes most of a card for itself, and what it keeps with the process is one engine's.
    """
    return 1 if build_device() is not None else 2


def _runs_on(spec: ModelSpec, engine: EngineKind, device: str | None) -> bool:
    if engine is EngineKind.OPENVINO and device is not None and device_class(device) is not DeviceClass.CPU:
        return False
    if spec.recipe is Recipe.FLOAT8 and device_class(device) is DeviceClass.CPU:
        return False
    return spec.device is None or spec.device is device_class(device)


def _is_source_here(source: str) -> bool:
    scheme, separator, rest = source.partition(":")
    return not separator or scheme != "wheel" or find_spec(rest.partition("/")[0]) is not None
