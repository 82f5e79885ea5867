from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from pipeline.domain.endpoints import Endpoint
from pipeline.domain.errors import ModelUnavailableError
from pipeline.domain.models import Recipe
from pipeline.ports.engine import Engine, EngineRequest
from tests.workers.engine.driving import answers
from tests.workers.engine.encoder.conftest import Load
from workers.engine.encoder import loading, plan
from workers.engine.encoder.int8_linear import Int8Linear, is_int8_available
from workers.engine.encoder.plan import Backend, EncoderOptions, Precision, plan_of

TEXTS = ["a", "night trains go north", "bread " * 12, "?"]

needs_int8 = pytest.mark.skipif(not is_int8_available(), reason="torch has no int8 kernels here")


def vectors(engine: Engine, texts: list[str]) -> np.ndarray:
    requests = [EngineRequest(i, Endpoint.EMBEDDINGS, {"model": "tiny", "input": text}) for i, text in enumerate(texts)]
    results = answers(engine, requests)
    return np.array([results[i].body["data"][0]["embedding"] for i in range(len(texts))])


@pytest.mark.parametrize(
    ("options", "likeness"),
    [
        pytest.param({"backend": "torch", "recipe": "int8"}, 0.99, marks=needs_int8),
        ({"backend": "openvino", "recipe": "float32"}, 0.99999),
        ({"backend": "openvino", "recipe": "int8"}, 0.9),
    ],
)
def test_every_backend_gives_the_vectors_of_torch(
    load_encoder: Load, bi_encoder: Path, options: dict[str, str], likeness: float
) -> None:
    if options["backend"] == "openvino":
        pytest.importorskip("optimum.exporters.openvino")
    expected = vectors(load_encoder(bi_encoder, backend="torch", recipe="float32"), TEXTS)

    found = vectors(load_encoder(bi_encoder, **options), TEXTS)

    assert (found * expected).sum(axis=1).mean() > likeness


@needs_int8
def test_a_text_has_the_same_vector_whatever_stands_beside_it(load_encoder: Load, bi_encoder: Path) -> None:
    engine = load_encoder(bi_encoder, backend="torch", recipe="int8")

    together = vectors(engine, TEXTS)

    for text, vector in zip(TEXTS, together, strict=True):
        assert np.allclose(vectors(engine, [text])[0], vector, atol=1e-5)


@needs_int8
def test_an_int8_layer_is_near_the_layer_it_replaces() -> None:
    torch.manual_seed(3)
    layer = nn.Linear(96, 80)
    x = torch.randn(5, 7, 96) * torch.logspace(-3, 3, 7)[:, None] + 1

    with torch.inference_mode():
        expected, found = layer(x), Int8Linear(layer)(x)

    # Rows of very different sizes each have a scale of their own.
    errors = (found - expected).norm(dim=-1) / expected.norm(dim=-1)
    assert float(errors.max()) < 0.03


@needs_int8
def test_an_int8_layer_cuts_nothing_off_where_every_product_is_largest() -> None:
    layer = nn.Linear(128, 64, bias=False)
    nn.init.constant_(layer.weight, 0.5)
    x = torch.ones(2, 128)
    x[:, 0] = 0

    with torch.inference_mode():
        found = Int8Linear(layer)(x)

    assert torch.allclose(found, torch.full((2, 64), 63.5), rtol=1e-4)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"backend": "onnx"}, "onnx"),
        ({"recipe": "int4_weights"}, "int4_weights"),
        ({"backend": "openvino", "recipe": "bfloat16"}, "no recipe bfloat16"),
        ({"backend": "torch", "recipe": "int8_weights"}, "no recipe int8_weights"),
        ({"slots": 3}, "slots"),
    ],
)
def test_options_that_are_not_known_are_named(
    load_encoder: Load, bi_encoder: Path, options: dict[str, str], said: str
) -> None:
    with pytest.raises(ModelUnavailableError, match=said):
        load_encoder(bi_encoder, **options)


def test_defaults_follow_the_device_and_what_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    def chosen(device: str, *, recipe: str = Recipe.NATIVE, **options: str) -> tuple[Backend, Precision]:
        made = plan_of(EncoderOptions(**options), recipe=Recipe(recipe), device=device, threads=2)
        return made.backend, made.precision

    monkeypatch.setattr(plan, "is_int8_available", lambda: True)
    monkeypatch.setattr(plan, "_has_openvino", lambda: True)
    assert chosen("cuda:0") == (Backend.TORCH, Precision.BFLOAT16)
    # The reference asks nobody whether it may run, so it is never the coarser one.
    assert chosen("cpu") == chosen("cpu", recipe="float32") == (Backend.OPENVINO, Precision.FLOAT32)
    assert chosen("cpu", backend="torch") == (Backend.TORCH, Precision.FLOAT32)
    assert chosen("cpu", recipe="int8") == (Backend.TORCH, Precision.INT8)

    monkeypatch.setattr(plan, "is_int8_available", lambda: False)
    monkeypatch.setattr(plan, "_has_openvino", lambda: False)
    assert chosen("cpu") == (Backend.TORCH, Precision.FLOAT32)
    with pytest.raises(ModelUnavailableError, match="not installed"):
        chosen("cpu", backend="openvino")


def test_what_openvino_cannot_take_over_runs_on_torch_unless_openvino_is_asked_for(
    load_encoder: Load, bi_encoder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: object) -> None:
        raise ModelUnavailableError("no such architecture there")

    monkeypatch.setattr(plan, "_has_openvino", lambda: True)
    monkeypatch.setattr(loading, "_openvino_forward", refused)

    engine = load_encoder(bi_encoder)
    assert (engine.identity.engine, engine.identity.precision) == ("encoder-torch", "float32")
    assert vectors(engine, TEXTS).shape == (len(TEXTS), 64)

    for asked in ({"backend": "openvino"}, {"recipe": "int8_weights"}):
        with pytest.raises(ModelUnavailableError, match="no such architecture"):
            load_encoder(bi_encoder, **asked)
