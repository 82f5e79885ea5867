"""Every kind of model against the library used directly, one image at a time."""

from __future__ import annotations

import base64
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModel, AutoModelForImageClassification, CLIPModel, CLIPVisionModelWithProjection, ViTModel
from transformers.models.auto.image_processing_auto import AutoImageProcessor

from pipeline.domain.endpoints import Endpoint
from pipeline.domain.errors import ModelUnavailableError
from pipeline.domain.models import Recipe
from pipeline.ports.engine import EngineRequest
from tests.workers.engine.driving import answers
from tests.workers.engine.vision.conftest import LABELS, Load
from tests.workers.engine.vision.pictures import classify, data_uri, embed, inline, part, picture, stored

FolderOf = Callable[[str], Path]
SEEDS = range(5)


def _pooled(folder: Path, given: dict[str, Any]) -> torch.Tensor:
    return torch.flatten(AutoModel.from_pretrained(folder).eval()(**given).pooler_output[0])


def _first(folder: Path, given: dict[str, Any]) -> torch.Tensor:
    first: torch.Tensor = (
        ViTModel.from_pretrained(folder, add_pooling_layer=False).eval()(**given).last_hidden_state[0, 0]
    )
    return first


def _projected(folder: Path, given: dict[str, Any]) -> torch.Tensor:
    embeds: torch.Tensor = CLIPVisionModelWithProjection.from_pretrained(folder).eval()(**given).image_embeds[0]
    return embeds


def _features(folder: Path, given: dict[str, Any]) -> torch.Tensor:
    features: torch.Tensor = CLIPModel.from_pretrained(folder).eval().get_image_features(**given).pooler_output[0]
    return features


def _logits(folder: Path, given: dict[str, Any]) -> torch.Tensor:
    logits: torch.Tensor = AutoModelForImageClassification.from_pretrained(folder).eval()(**given).logits[0]
    return logits


def expected(folder: Path, read: Callable[[Path, dict[str, Any]], torch.Tensor], seed: int) -> torch.Tensor:
    processor = AutoImageProcessor.from_pretrained(folder, backend="pil")
    with torch.no_grad():
        return read(folder, dict(processor(images=picture(seed), return_tensors="pt")))


@pytest.mark.parametrize(
    ("name", "read", "positions"),
    [
        ("vit", _pooled, 17),
        ("vit_without_pooler", _first, 17),
        ("dinov2", _pooled, 17),
        ("resnet", _pooled, 16),
        ("siglip_tower", _pooled, 16),
        ("clip_tower", _projected, 17),
        ("clip", _features, 17),
    ],
)
def test_embeddings_are_the_librarys_at_length_one(
    folder_of: FolderOf,
    load_vision: Load,
    name: str,
    read: Callable[[Path, dict[str, Any]], torch.Tensor],
    positions: int,
) -> None:
    engine = load_vision(folder_of(name), batch_images=3)

    results = answers(engine, [embed(seed, inline(seed)) for seed in SEEDS])

    for seed in SEEDS:
        vector = torch.tensor(results[seed].body["data"][0]["embedding"])
        wanted = torch.nn.functional.normalize(expected(folder_of(name), read, seed), dim=-1)
        assert torch.allclose(vector, wanted, atol=2e-5)
        assert results[seed].body["usage"] == {"prompt_tokens": positions, "total_tokens": positions}
    engine.close()


@pytest.mark.parametrize(("name", "positions"), [("vit_classifier", 17), ("resnet_classifier", 16)])
def test_labels_are_the_librarys(folder_of: FolderOf, load_vision: Load, name: str, positions: int) -> None:
    engine = load_vision(folder_of(name), batch_images=2)
    images = [inline(seed) for seed in SEEDS]

    results = answers(engine, [classify(0, images), classify(1, images, use_activation=False)])

    for seed, shown, raw in zip(SEEDS, results[0].body["data"], results[1].body["data"], strict=True):
        logits = expected(folder_of(name), _logits, seed)
        assert np.allclose(raw["probs"], logits, atol=1e-5)
        assert np.allclose(shown["probs"], torch.softmax(logits, -1), atol=1e-5)
        assert (shown["index"], shown["num_classes"], shown["label"]) == (seed, 3, LABELS[int(logits.argmax())])
    assert results[0].input_tokens == positions * len(images) == results[0].body["usage"]["prompt_tokens"]
    engine.close()


@pytest.mark.parametrize(("recipe", "likeness"), [(Recipe.BFLOAT16, 0.999), (Recipe.INT8, 0.99)])
def test_smaller_recipes_stay_close(folder_of: FolderOf, load_vision: Load, recipe: Recipe, likeness: float) -> None:
    engine = load_vision(folder_of("dinov2"), recipe)

    results = answers(engine, [embed(seed, inline(seed)) for seed in SEEDS])

    for seed in SEEDS:
        vector = torch.tensor(results[seed].body["data"][0]["embedding"])
        wanted = torch.nn.functional.normalize(expected(folder_of("dinov2"), _pooled, seed), dim=-1)
        assert float(vector @ wanted) > likeness
    assert engine.identity.precision == recipe
    engine.close()


def test_vllms_messages_mean_the_same_as_an_input(folder_of: FolderOf, load_vision: Load) -> None:
    engine = load_vision(folder_of("vit"))
    messages = [{"role": "user", "content": [inline(1)]}]

    results = answers(
        engine, [embed(0, inline(1)), EngineRequest(1, Endpoint.EMBEDDINGS, {"model": "tiny", "messages": messages})]
    )

    assert results[0].body == results[1].body
    engine.close()


def test_encoding_and_dimensions_are_honoured_as_for_texts(folder_of: FolderOf, load_vision: Load) -> None:
    engine = load_vision(folder_of("vit"), matryoshka=True)

    results = answers(
        engine, [embed(0, inline(1)), embed(1, inline(1), encoding_format="base64"), embed(2, inline(1), dimensions=8)]
    )

    whole = np.array(results[0].body["data"][0]["embedding"])
    assert np.allclose(np.frombuffer(base64.b64decode(results[1].body["data"][0]["embedding"]), "<f4"), whole)
    assert np.allclose(results[2].body["data"][0]["embedding"], whole[:8] / np.linalg.norm(whole[:8]), atol=1e-6)
    engine.close()


@pytest.mark.parametrize(
    ("request_", "code", "param"),
    [
        (embed(0, "some text"), "unsupported_input", "body.input"),
        (embed(0, inline(0), dimensions=3), "unsupported_parameter", "body.dimensions"),
        (classify(0, inline(0)), "unsupported_endpoint", "body.model"),
    ],
)
def test_what_the_model_cannot_answer_is_refused_by_name(
    folder_of: FolderOf, load_vision: Load, request_: EngineRequest, code: str, param: str
) -> None:
    engine = load_vision(folder_of("vit"))

    error = answers(engine, [request_])[0].body["error"]

    assert (error["code"], error["param"]) == (code, param)
    engine.close()


def test_a_folder_that_is_no_model_of_images_is_refused(tmp_path: Path, folder_of: FolderOf, load_vision: Load) -> None:
    for file in folder_of("vit").iterdir():
        if file.name != "preprocessor_config.json":
            (tmp_path / file.name).write_bytes(file.read_bytes())

    with pytest.raises(ModelUnavailableError, match="cannot be loaded as a model of images"):
        load_vision(tmp_path)


def test_weights_that_are_not_there_are_not_made_up(tmp_path: Path, folder_of: FolderOf, load_vision: Load) -> None:
    for file in folder_of("vit").iterdir():
        text = file.read_bytes()
        if file.name == "config.json":
            text = text.replace(b'"num_hidden_layers": 2', b'"num_hidden_layers": 3')
        (tmp_path / file.name).write_bytes(text)

    with pytest.raises(ModelUnavailableError, match="no weights for"):
        load_vision(tmp_path)


@pytest.mark.parametrize("options", [{"batches": 3}, {"fetchers": 0}])
def test_options_that_make_no_sense_are_refused(folder_of: FolderOf, load_vision: Load, options: Any) -> None:  # noqa: ANN401 -- as parametrized
    with pytest.raises(ModelUnavailableError, match=next(iter(options))):
        load_vision(folder_of("vit"), **options)


def test_a_photograph_taken_sideways_is_read_upright(folder_of: FolderOf, load_vision: Load) -> None:
    upright = picture(3, (48, 80))
    exif = upright.getexif()
    exif[0x0112] = 6  # taken turned to the left: to be turned a quarter to the right
    sideways = stored(upright.rotate(90, expand=True), "PNG", exif=exif)
    engine = load_vision(folder_of("vit"))

    results = answers(engine, [embed(0, part(data_uri(stored(upright)))), embed(1, part(data_uri(sideways)))])

    assert np.allclose(*(results[key].body["data"][0]["embedding"] for key in (0, 1)), atol=1e-6)
    engine.close()
