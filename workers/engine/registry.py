"""From a model's spec to a loaded engine. Importing this imports no torch."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import assert_never

from pipeline.domain.errors import ModelUnavailableError
from pipeline.domain.models import EngineKind, ModelSpec
from pipeline.ports.engine import Engine
from workers.engine.echo import EchoEngine
from workers.engine.models import prepared_folder


def load_engine(spec: ModelSpec, *, cache_dir: Path, device: str | None = None, threads: int | None = None) -> Engine:
    """Load the model of `spec` and return its engine.

    Args:
        spec: The model, its source and its engine's options.
        cache_dir: Where prepared models are kept between runs.
        device: Such as `cpu` or `cuda:0`; None takes the accelerator if there is one.
        threads: CPU threads; None leaves torch's choice.

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
    folder = prepared_folder(spec.source, cache_dir=cache_dir)
    match spec.engine:
        case EngineKind.TORCH:
            from workers.engine.torch_chat.loading import load

            return load(spec, folder, device=device, threads=threads)
        case EngineKind.OPENVINO:
            if device not in {None, "cpu"}:
                raise ModelUnavailableError(f"the openvino engine runs on cpu, not on {device}")
            if find_spec("openvino_genai") is None:
                raise ModelUnavailableError(
                    f"{spec.name} needs OpenVINO, which is not installed",
                    hint="pip install -r locks/openvino.txt --no-deps",
                )
            from workers.engine.openvino_chat.loading import load as load_openvino

            return load_openvino(spec, folder, cache_dir=cache_dir, threads=threads)
        case EngineKind.ENCODER:
            from workers.engine.encoder.loading import load as load_encoder

            return load_encoder(spec, folder, cache_dir=cache_dir, device=device, threads=threads)
        case _:
            assert_never(spec.engine)


def is_available(spec: ModelSpec) -> bool:
    """Say whether this installation could load the model, without importing anything heavy.

    A hub id is taken at its word: whether the hub has it is only known by asking.
    """
    if spec.engine is EngineKind.ECHO:
        return True
    if find_spec("torch") is None or find_spec("transformers") is None:
        return False
    if spec.engine is EngineKind.OPENVINO and find_spec("openvino_genai") is None:
        return False
    scheme, separator, rest = spec.source.partition(":")
    if separator and scheme == "wheel":
        return find_spec(rest.partition("/")[0]) is not None
    return True
