from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from pipeline.domain.errors import ModelUnavailableError
from pipeline.domain.models import RECIPES, EngineKind, ModelSpec, Recipe
from pipeline.ports.engine import EngineRequest
from tests.workers.engine.driving import answers, completion, prompts, references, text
from workers.engine.registry import is_available
from workers.engine.torch_chat import quantized
from workers.engine.torch_chat.linear import Linear
from workers.engine.torch_chat.pointwise import PLAIN, float8_rows, fused, int8_rows
from workers.engine.torch_chat.quantized import Float8Linear, Int8Linear, check_recipe, maker_of

Load = Callable[..., Any]
CPU = torch.device("cpu")


def error_of(got: Tensor, wanted: Tensor) -> float:
    return float((got.double() - wanted.double()).norm() / wanted.double().norm())


def emulated(left: Tensor, right: Tensor, left_scales: Tensor, right_scales: Tensor) -> Tensor:
    """What the row-wise kernel computes, by its documentation: the product of the scaled-up values, in bf16."""
    return ((left.float() * left_scales) @ (right.float() * right_scales)).to(torch.bfloat16)


def matrices(rows: int, outputs: int, inputs: int, *, seed: int = 1) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    shapes = ((rows, inputs), (outputs, inputs), (outputs,))
    left, weight, bias = (torch.randn(shape, generator=generator) for shape in shapes)
    # Tokens and outputs differ in size by a hundred times, as they do in models; one scale for all would lose them.
    left *= torch.logspace(-1, 1, rows)[:, None]
    weight *= torch.logspace(-2, 0, outputs)[:, None]
    return left, weight, bias


@pytest.mark.parametrize("rows", [1, 16, 17, 64])
@pytest.mark.parametrize(("outputs", "inputs"), [(96, 64), (48, 1552)])
def test_int8_stays_within_two_percent_of_the_full_product(rows: int, outputs: int, inputs: int) -> None:
    left, weight, bias = matrices(rows, outputs, inputs)

    product = Int8Linear(weight, bias)(left)

    wanted = left @ weight.T + bias
    assert error_of(product, wanted) < 0.02
    assert error_of(product, wanted) > 0.0005, "as exact as this, nothing was quantized"


@pytest.mark.parametrize("rows", [1, 17])
def test_int8_by_integers_and_by_floats_is_one_product(rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    left, weight, bias = matrices(rows, 40, 64)
    by_floats = Int8Linear(weight, bias)(left)
    monkeypatch.setattr(quantized, "has_int8_instructions", lambda: True)

    by_integers = Int8Linear(weight, bias)(left)

    assert torch.equal(by_integers, by_floats)


@pytest.mark.parametrize("rows", [1, 33])
def test_float8_stays_within_five_percent_of_the_full_product(rows: int) -> None:
    left, weight, bias = matrices(rows, 96, 64)

    product = Float8Linear(weight, bias, multiply=emulated)(left)

    wanted = left @ weight.T + bias
    assert 0.005 < error_of(product, wanted) < 0.05


def test_every_row_keeps_its_own_scale_and_zeros_stay_zeros() -> None:
    values = torch.tensor([[1e-4, -2e-4, 0.0], [3e4, 1e4, -1e4], [0.0, 0.0, 0.0]])

    for quantize, bound in ((int8_rows, 1 / 254), (float8_rows, 1 / 16)):
        small, scales = quantize(values)
        back = small.float() * scales
        largest = values.abs().amax(-1, keepdim=True)
        assert bool(((back - values).abs() <= 1.001 * bound * largest + 1e-12).all())
        assert bool(back.isfinite().all())
        assert torch.equal(back[2], values[2])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_a_product_is_in_the_type_of_its_inputs(dtype: torch.dtype) -> None:
    left, weight, bias = (tensor.to(dtype) for tensor in matrices(5, 32, 32))

    assert Int8Linear(weight, bias)(left).dtype == dtype
    assert Float8Linear(weight, bias, multiply=emulated)(left).dtype == dtype


def test_a_weight_whose_sides_do_not_fit_keeps_its_precision() -> None:
    make = maker_of(Recipe.INT8, CPU)

    assert isinstance(make(torch.randn(48, 64), None), Int8Linear)
    assert isinstance(make(torch.randn(49, 64), None), Linear)


# --- the option matrix -------------------------------------------------------------------------


@pytest.mark.parametrize("model", ["llama_folder", "gpt2_folder"])
def test_int8_answers_begin_as_the_reference_does(model: str, load: Load, request: pytest.FixtureRequest) -> None:
    folder = request.getfixturevalue(model)
    texts = prompts(12)
    engine = load(folder, Recipe.INT8)

    results = answers(engine, [completion(i, t, max_tokens=6) for i, t in enumerate(texts)])

    wanted = references(folder, dict.fromkeys(texts, 6))
    begun = [text(results[i])[:1] == wanted[i][:1] for i in range(12)]
    # Random weights decide by hairs, so some answers turn; nearly all begin alike, by chance 1 in 257 would.
    assert sum(begun) >= 8
    assert engine.identity.precision == "int8_float32"


@pytest.mark.parametrize("recipe", sorted(RECIPES[EngineKind.TORCH] - {Recipe.FLOAT8}))
@pytest.mark.parametrize("model", ["llama_folder", "gpt2_folder"])
def test_every_recipe_of_the_engine_answers_every_row(
    recipe: Recipe, model: str, load: Load, request: pytest.FixtureRequest
) -> None:
    rows: list[EngineRequest] = [completion(i, t, max_tokens=3) for i, t in enumerate(prompts(5))]

    engine = load(request.getfixturevalue(model), recipe, slots=2)

    assert {key: r.status_code for key, r in answers(engine, rows).items()} == dict.fromkeys(range(5), 200)


def test_float8_is_refused_by_name_on_a_cpu(load: Load, llama_folder: Path) -> None:
    with pytest.raises(ModelUnavailableError, match=r"float8 needs a CUDA device .* this is cpu \(int8 runs here\)"):
        load(llama_folder, Recipe.FLOAT8)


def test_float8_is_refused_by_an_older_card_and_taken_by_a_newer(monkeypatch: pytest.MonkeyPatch) -> None:
    card = torch.device("cuda:0")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (8, 0))
    with pytest.raises(ModelUnavailableError, match=r"8\.9 or newer .* cuda:0 has 8\.0"):
        check_recipe(Recipe.FLOAT8, card)

    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (9, 0))
    check_recipe(Recipe.FLOAT8, card)


def test_a_worker_without_a_card_does_not_offer_float8(llama_folder: Path) -> None:
    def spec(recipe: Recipe) -> ModelSpec:
        return ModelSpec(name="tiny", source=str(llama_folder), engine=EngineKind.TORCH, recipe=recipe)

    assert not is_available(spec(Recipe.FLOAT8), device="cpu")
    assert is_available(spec(Recipe.FLOAT8), device="cuda:0")
    assert is_available(spec(Recipe.INT8), device="cpu")


# --- fusing ------------------------------------------------------------------------------------


def test_a_broken_compiler_leaves_the_plain_operations(caplog: pytest.LogCaptureFixture) -> None:
    def compiler(_: object) -> Callable[..., Any]:
        def broken(*_: object) -> None:
            raise RuntimeError("no triton here")

        return broken

    assert fused(CPU, torch.float32, compiler) is PLAIN
    assert "cannot_fuse_operations" in caplog.text


def test_fused_operations_are_what_the_compiler_made() -> None:
    compiled: list[str] = []

    def compiler(function: Callable[..., Any]) -> Callable[..., Any]:
        return lambda *inputs: compiled.append(function.__name__) or function(*inputs)

    made = fused(CPU, torch.float32, compiler)
    compiled.clear()

    assert torch.equal(made.gated(torch.ones(2, 4)), PLAIN.gated(torch.ones(2, 4)))
    assert compiled == ["gated"]


def test_fused_operations_are_compiled_for_a_width_and_not_for_each_number_of_rows() -> None:
    compiled: list[str] = []

    def backend(graph: torch.fx.GraphModule, _: list[Tensor]) -> Callable[..., Any]:
        compiled.append("graph")
        return graph.forward

    made = fused(CPU, torch.float32, partial(torch.compile, backend=backend))
    compiled.clear()

    for width in (96, 128):
        for rows in (2, 3, 17, 64, 301):
            values = torch.randn(rows, width)
            assert torch.equal(made.gated(values), PLAIN.gated(values))
            assert torch.equal(made.int8_rows(values)[0], PLAIN.int8_rows(values)[0])

    assert len(compiled) == 4
