from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import (
    BitImageProcessorPil,
    CLIPConfig,
    CLIPImageProcessorPil,
    CLIPModel,
    CLIPVisionConfig,
    CLIPVisionModelWithProjection,
    ConvNextImageProcessorPil,
    Dinov2Config,
    Dinov2Model,
    ResNetConfig,
    ResNetForImageClassification,
    ResNetModel,
    SiglipImageProcessorPil,
    SiglipVisionConfig,
    SiglipVisionModel,
    ViTConfig,
    ViTForImageClassification,
    ViTImageProcessorPil,
    ViTModel,
)

from pipeline.domain.models import EngineKind, ModelSpec, Recipe
from workers.engine.registry import load_engine
from workers.engine.vision.engine import VisionEngine
from workers.engine.vision.sources import ImageAccess

Load = Callable[..., VisionEngine]

SIZE = {"height": 32, "width": 32}
VIT = {
    "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 128, "image_size": 32,
    "patch_size": 8, "initializer_range": 0.2,
}  # fmt: skip
RESNET = {"embedding_size": 8, "hidden_sizes": [8, 16], "depths": [1, 1], "layer_type": "basic"}
LABELS = {0: "barn", 1: "boat", 2: "bell"}
CROPPED = {"size": {"shortest_edge": 40}, "crop_size": SIZE}


def _classifier() -> tuple[Any, Any]:
    return ViTForImageClassification(ViTConfig(**VIT, num_labels=3, id2label=LABELS)), ViTImageProcessorPil(size=SIZE)


def _resnet_classifier() -> tuple[Any, Any]:
    model = ResNetForImageClassification(ResNetConfig(**RESNET, num_labels=3, id2label=LABELS))
    return model, ConvNextImageProcessorPil(size={"shortest_edge": 32})


def _clip() -> tuple[Any, Any]:
    text = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    config = CLIPConfig(text_config={**text, "vocab_size": 64}, vision_config=VIT, projection_dim=24)
    return CLIPModel(config), CLIPImageProcessorPil(**CROPPED)


MAKERS: dict[str, Callable[[], tuple[Any, Any]]] = {
    "vit_classifier": _classifier,
    "resnet_classifier": _resnet_classifier,
    "vit": lambda: (ViTModel(ViTConfig(**VIT)), ViTImageProcessorPil(size=SIZE)),
    "vit_without_pooler": lambda: (
        ViTModel(ViTConfig(**VIT), add_pooling_layer=False),
        ViTImageProcessorPil(size=SIZE),
    ),
    "dinov2": lambda: (Dinov2Model(Dinov2Config(**VIT)), BitImageProcessorPil(**CROPPED)),
    "resnet": lambda: (ResNetModel(ResNetConfig(**RESNET)), ConvNextImageProcessorPil(size={"shortest_edge": 32})),
    "siglip_tower": lambda: (SiglipVisionModel(SiglipVisionConfig(**VIT)), SiglipImageProcessorPil(size=SIZE)),
    "clip_tower": lambda: (
        CLIPVisionModelWithProjection(CLIPVisionConfig(**VIT, projection_dim=24)),
        CLIPImageProcessorPil(**CROPPED),
    ),
    "clip": _clip,
}


@pytest.fixture(scope="session")
def folder_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    made: dict[str, Path] = {}

    def folder_of(name: str) -> Path:
        if name not in made:
            torch.manual_seed(sum(map(ord, name)))
            folder = tmp_path_factory.mktemp(name)
            model, processor = MAKERS[name]()
            model.save_pretrained(folder)
            processor.save_pretrained(folder)
            made[name] = folder
        return made[name]

    return folder_of


@pytest.fixture(scope="session")
def load_vision(tmp_path_factory: pytest.TempPathFactory) -> Load:
    cache_dir = tmp_path_factory.mktemp("cache")

    def load(
        folder: Path, recipe: Recipe = Recipe.FLOAT32, access: ImageAccess | None = None, **options: str | int | bool
    ) -> VisionEngine:
        spec = ModelSpec(name="tiny", source=str(folder), engine=EngineKind.VISION, recipe=recipe, options=options)
        engine = load_engine(spec, cache_dir=cache_dir, device="cpu", threads=1, images=access)
        assert isinstance(engine, VisionEngine)
        return engine

    return load
