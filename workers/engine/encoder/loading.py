"""An `EncoderEngine` from a prepared model folder."""

from __future__ import annotations

import json
import logging
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

from transformers import AutoModel, AutoModelForSequenceClassification, AutoTokenizer

from pipeline.domain.errors import ModelUnavailableError
from pipeline.domain.models import ModelSpec
from pipeline.ports.meters import EngineIdentity
from workers.engine.encoder.batch import TextTokenizer
from workers.engine.encoder.engine import EncoderEngine
from workers.engine.encoder.forward import Forward
from workers.engine.encoder.heads import BiEncoderHead, ClassifierHead, Head, activation_of
from workers.engine.encoder.int8_linear import quantize_linears
from workers.engine.encoder.packing import BatchBounds
from workers.engine.encoder.plan import Backend, EncoderOptions, Plan, Precision, plan_of
from workers.engine.encoder.pooling import Pooling, pooling_of, positions_of
from workers.engine.encoder.torch_forward import TorchForward
from workers.engine.freed_memory import keep_freed_memory
from workers.engine.generation import options_of
from workers.engine.models import published
from workers.engine.quiet import quiet_transformers

_LOG = logging.getLogger(__name__)

BATCH_ROWS_MAX: Final = 1024
_CLASSIFIER: Final = "ForSequenceClassification"


def load(
    spec: ModelSpec, folder: Path, *, revision: str, cache_dir: Path, device: str | None, threads: int | None
) -> EncoderEngine:
    """Return an engine for the encoder in `folder`; options of the spec are the fields of `EncoderOptions`.

    A folder whose config names a sequence classifier is served as one, any other as a bi-encoder. What OpenVINO
    runs is exported on first use and kept in `cache_dir`.

    Raises:
        ModelUnavailableError: An option or a pooling is unknown, or the weights cannot be loaded.
    """
    options = options_of(EncoderOptions, dict(spec.options))
    config: dict[str, Any] = json.loads((folder / "config.json").read_text())
    is_classifier = any(name.endswith(_CLASSIFIER) for name in config.get("architectures") or ())
    plan = plan_of(options, recipe=spec.recipe, device=device, threads=threads)
    tokens_max = positions_of(config)
    pooling = None
    if not is_classifier:
        pooling = pooling_of(folder, tokens_max=tokens_max)
        tokens_max = pooling.tokens_max
    try:
        with quiet_transformers():
            tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
            takes_types = "token_type_ids" in tokenizer.model_input_names
            if plan.backend is Backend.OPENVINO:
                try:
                    forward = _openvino_forward(folder, plan, pooling, cache_dir / "encoders", revision)
                except ModelUnavailableError as error:
                    if options.backend or plan.precision is not Precision.FLOAT32:
                        raise
                    # Not every architecture has an export; in float32 torch runs anything.
                    _LOG.warning("openvino_cannot_run_this", extra={"model": spec.name, "reason": error.message})
                    plan = replace(plan, backend=Backend.TORCH)
            if plan.backend is Backend.TORCH:
                forward = _torch_forward(folder, plan, pooling, takes_types=takes_types)
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        first = str(error).strip().partition("\n")[0]
        raise ModelUnavailableError(f"{spec.name} cannot be loaded as an encoder: {first}") from error
    return EncoderEngine(
        spec.name,
        forward=forward,
        tokenizer=TextTokenizer(tokenizer),
        head=_head(spec.name, config, options, forward.width, is_classifier=is_classifier),
        tokens_max=tokens_max,
        bounds=BatchBounds(tokens_max=plan.batch_tokens, rows_max=BATCH_ROWS_MAX),
        rows_waiting_max=options.rows_waiting_max,
        identity=_identity(plan, revision),
    )


def _identity(plan: Plan, revision: str) -> EngineIdentity:
    library = "torch" if plan.backend is Backend.TORCH else "openvino"
    return EngineIdentity(
        engine=f"{EncoderEngine.name}-{library}",
        version=version(library).partition("+")[0],
        precision=plan.precision,
        revision=revision,
        device=str(plan.device),
    )


def _head(name: str, config: dict[str, Any], options: EncoderOptions, width: int, *, is_classifier: bool) -> Head:
    if not is_classifier:
        return BiEncoderHead(name, dimensions=width, matryoshka=options.matryoshka)
    named = {int(index): str(label) for index, label in (config.get("id2label") or {}).items()}
    labels = [named.get(index, f"LABEL_{index}") for index in range(width)]
    return ClassifierHead(name, labels=labels, activation=activation_of(config, labels=width))


def _torch_forward(folder: Path, plan: Plan, pooling: Pooling | None, *, takes_types: bool) -> Forward:
    import torch

    kind: Any = AutoModelForSequenceClassification if pooling is None else AutoModel
    dtype = torch.bfloat16 if plan.precision is Precision.BFLOAT16 else torch.float32
    module = kind.from_pretrained(folder, dtype=dtype, use_safetensors=True, trust_remote_code=False)
    module.eval().to(device=plan.device)
    if plan.precision is Precision.INT8:
        quantize_linears(module)
    if plan.device.type == "cpu":
        keep_freed_memory()
    return TorchForward(
        module,
        pooling=pooling,
        width=module.config.num_labels if pooling is None else module.config.hidden_size,
        streams=plan.streams,
        threads=plan.threads,
        takes_types=takes_types,
    )


def _openvino_forward(folder: Path, plan: Plan, pooling: Pooling | None, cache_dir: Path, revision: str) -> Forward:
    import openvino

    from workers.engine.encoder.openvino_export import FILE, RECIPE_VERSION, Recipe, Task, export
    from workers.engine.encoder.openvino_forward import OpenVinoForward

    recipe = Recipe(plan.precision)
    task = Task.LABELS if pooling is None else Task.VECTORS
    version = openvino.__version__.partition("-")[0]
    exported = published(
        cache_dir / f"openvino-{version}-{recipe}-{RECIPE_VERSION}-{revision}",
        lambda work: export(folder, work, task=task, recipe=recipe),
    )
    return OpenVinoForward(exported / FILE, pooling=pooling, streams=plan.streams, threads=plan.threads)
