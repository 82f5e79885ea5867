"""A `VisionEngine` from a prepared model folder."""

from __future__ import annotations

import json
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from PIL import Image
from transformers import AutoModel, AutoModelForImageClassification, CLIPVisionModelWithProjection

# Not the one of the package's top: that asks for torchvision, which no processor used here needs.
from transformers.models.auto.image_processing_auto import AutoImageProcessor

from pipeline.domain.errors import ModelUnavailableError
from pipeline.domain.models import ModelSpec
from pipeline.ports.meters import EngineIdentity
from workers.engine.encoder.heads import BiEncoderHead, ClassifierHead, activation_of
from workers.engine.encoder.int8_linear import quantize_linears
from workers.engine.freed_memory import keep_freed_memory
from workers.engine.generation import options_of
from workers.engine.quiet import quiet_transformers
from workers.engine.vision.decoding import ImageLimits
from workers.engine.vision.engine import VisionEngine
from workers.engine.vision.forward import Seen, Vector, VisionForward
from workers.engine.vision.gathering import Gatherer, Pixels, Prepare
from workers.engine.vision.heads import ImageHead
from workers.engine.vision.plan import Plan, Precision, VisionOptions, plan_of
from workers.engine.vision.sources import ImageAccess, ImageSources

_CLASSIFIER: Final = "ForImageClassification"
_PROJECTED: Final = "CLIPVisionModelWithProjection"
#: Of the picture that every model is tried with.
_TRIED_SIDE: Final = 64


def load(
    spec: ModelSpec,
    folder: Path,
    *,
    revision: str,
    device: str | None,
    threads: int | None,
    access: ImageAccess,
) -> VisionEngine:
    """Return an engine for the model in `folder`; options of the spec are the fields of `VisionOptions`.

    A folder whose config names an image classifier is served as one, any other as a model of embeddings. What can
    be loaded but not run on an image is found out here: one is run.

    Raises:
        ModelUnavailableError: An option is unknown, or the weights cannot be loaded.
    """
    options = options_of(VisionOptions, dict(spec.options))
    plan = plan_of(options, recipe=spec.recipe, device=device, threads=threads)
    config: dict[str, Any] = json.loads((folder / "config.json").read_text())
    try:
        with quiet_transformers():
            prepare = _preparation(folder)
            forward = _forward(folder, config, plan)
        pixels = prepare(Image.new("RGB", (_TRIED_SIDE, _TRIED_SIDE)))
        seen = forward.run(pixels[None])
    except (OSError, ValueError, KeyError, RuntimeError, TypeError, AttributeError, ImportError) as error:
        first = str(error).strip().partition("\n")[0]
        raise ModelUnavailableError(f"{spec.name} cannot be loaded as a model of images: {first}") from error
    limits = ImageLimits(bytes_max=options.image_bytes_max, pixels_max=options.image_pixels_max)
    sources = ImageSources(access, bytes_max=options.image_bytes_max)
    return VisionEngine(
        spec.name,
        forward=forward,
        gatherer=Gatherer(sources, prepare, limits, fetchers=options.fetchers, decoders=plan.decoders),
        head=_head(spec.name, config, options, seen, is_classifier=_is_classifier(config)),
        batch_images=plan.batch_images,
        image_bytes=pixels.nbytes,
        rows_waiting_max=options.rows_waiting_max,
        identity=EngineIdentity(
            engine=f"{VisionEngine.name}-torch",
            version=version("torch").partition("+")[0],
            precision=plan.precision,
            revision=revision,
            device=str(plan.device),
        ),
    )


def _is_classifier(config: dict[str, Any]) -> bool:
    return any(_CLASSIFIER in name for name in config.get("architectures") or ())


def _preparation(folder: Path) -> Prepare:
    processor = AutoImageProcessor.from_pretrained(folder, backend="pil", trust_remote_code=False)  # type: ignore[no-untyped-call]  # transformers is half typed

    def prepare(image: Image.Image) -> Pixels:
        return np.ascontiguousarray(processor(images=[image], return_tensors="np")["pixel_values"][0], np.float32)

    return prepare


def _head(name: str, config: dict[str, Any], options: VisionOptions, seen: Seen, *, is_classifier: bool) -> ImageHead:
    width = seen.vectors.shape[1]
    if not is_classifier:
        return ImageHead(BiEncoderHead(name, dimensions=width, matryoshka=options.matryoshka))
    named = {int(index): str(label) for index, label in (config.get("id2label") or {}).items()}
    labels = [named.get(index, f"LABEL_{index}") for index in range(width)]
    return ImageHead(ClassifierHead(name, labels=labels, activation=activation_of(config, labels=width)))


def _forward(folder: Path, config: dict[str, Any], plan: Plan) -> VisionForward:
    kind: Any = AutoModel
    if _is_classifier(config):
        kind = AutoModelForImageClassification
    elif _PROJECTED in (config.get("architectures") or ()):
        kind = CLIPVisionModelWithProjection
    dtype = torch.bfloat16 if plan.precision is Precision.BFLOAT16 else torch.float32
    module, found = kind.from_pretrained(
        folder, dtype=dtype, use_safetensors=True, trust_remote_code=False, output_loading_info=True
    )
    vector = _vector(kind, module, sorted(found["missing_keys"]))
    if vector is Vector.FEATURES:
        # The other half, which reads text.
        module.text_model = None
    module.eval().to(device=plan.device)
    if plan.precision is Precision.INT8:
        quantize_linears(module)
    if plan.device.type == "cpu":
        keep_freed_memory()
    return VisionForward(module, vector=vector, dtype=dtype, streams=plan.streams, threads=plan.threads)


def _vector(kind: Any, module: Any, missing: list[str]) -> Vector:  # noqa: ANN401 -- transformers has no types
    """Return what to read of a model; raises `ValueError` where weights for it are not in the folder."""
    unpooled = [name for name in missing if "pooler" in name]
    if lost := [name for name in missing if name not in unpooled]:
        raise ValueError(f"the folder has no weights for {lost[0]}")
    if kind is AutoModelForImageClassification:
        return Vector.LOGITS
    if kind is CLIPVisionModelWithProjection:
        return Vector.PROJECTION
    if unpooled:
        return Vector.FIRST
    return Vector.FEATURES if hasattr(module, "get_image_features") else Vector.POOLER
