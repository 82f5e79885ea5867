"""The request parameters Nightrate honours, per endpoint, as data; everything else is refused by name.

`check_body` runs for every row at intake, so it costs one dictionary look-up and one small call per key
present. A parameter that cannot change the answer is tolerated (`user`, `metadata`, `store: false`,
`service_tier`); one that would change it in a way no engine here honours is refused, never ignored.
`null` means "not given", as it does in OpenAI's own clients.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final, NoReturn

from pipeline.domain import checks
from pipeline.domain.checks import Check
from pipeline.domain.endpoints import Endpoint
from pipeline.domain.errors import RequestRefusedError
from pipeline.domain.limits import EMBEDDING_INPUTS_MAX, PAIR_TEXTS_MAX

#: Output tokens when a request names no bound; an engine lowers it to what its context has left.
#: 16 is OpenAI's own default for text completions; chat has none there, and 1024 bounds the quote.
MAX_TOKENS_DEFAULT: Final[Mapping[Endpoint, int]] = MappingProxyType(
    {
        Endpoint.CHAT_COMPLETIONS: 1024,
        Endpoint.COMPLETIONS: 16,
        Endpoint.EMBEDDINGS: 0,
        Endpoint.SCORE: 0,
        Endpoint.RERANK: 0,
        Endpoint.CLASSIFY: 0,
    }
)
#: No model served here has a longer context; a larger bound is a typing error.
MAX_TOKENS_MAX: Final = 1_048_576
DIMENSIONS_MAX: Final = 65_536
TEMPERATURE_MAX: Final = 2.0
PENALTY_MAX: Final = 2.0
SEED_MIN: Final = -(2**63)
SEED_MAX: Final = 2**63 - 1


@dataclass(frozen=True, slots=True)
class Sampling:
    """How to choose output tokens; the defaults are OpenAI's."""

    #: Bound on output tokens; None: `MAX_TOKENS_DEFAULT` of the endpoint.
    max_tokens: int | None = None
    #: 0 is greedy.
    temperature: float = 1.0
    top_p: float = 1.0
    stop: tuple[str, ...] = ()
    #: None: the engine derives one from the body, so that a rerun gives the same answer.
    seed: int | None = None
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0


def check_body(endpoint: Endpoint, body: object) -> None:
    """Raise `RequestRefusedError` for the first field of `body` that `endpoint` does not honour as given."""
    if not isinstance(body, dict):
        if not isinstance(body, Mapping):
            checks.refuse_type("", body, "an object")
        body = dict(body)
    known = _CHECKS[endpoint]
    for name, value in body.items():
        check = known.get(name)
        if check is None:
            _refuse_unknown(endpoint, name)
        check(name, value)
    for name in _REQUIRED[endpoint]:
        if name not in body:
            raise RequestRefusedError(f"{name.capitalize()} parameter is required.", param=f"body.{name}")
    if endpoint is Endpoint.SCORE:
        _refuse_uneven(body)
    if "max_tokens" in body and "max_completion_tokens" in body:
        _refuse_two_bounds(body)


def sampling_of(endpoint: Endpoint, body: Mapping[str, Any]) -> Sampling:
    """Return the sampling asked for by a `body` that `check_body` has passed."""
    max_tokens = body.get("max_tokens")
    if endpoint is Endpoint.CHAT_COMPLETIONS:
        max_tokens = body.get("max_completion_tokens") or max_tokens
    stop = body.get("stop")
    temperature, top_p = body.get("temperature"), body.get("top_p")
    return Sampling(
        max_tokens=None if max_tokens is None else int(max_tokens),
        temperature=1.0 if temperature is None else float(temperature),
        top_p=1.0 if top_p is None else float(top_p),
        stop=() if stop is None else (stop,) if isinstance(stop, str) else tuple(stop),
        seed=body.get("seed"),
        presence_penalty=float(body.get("presence_penalty") or 0.0),
        frequency_penalty=float(body.get("frequency_penalty") or 0.0),
    )


def text_of(content: str | list[Mapping[str, str]]) -> str:
    """Return the text of a checked message's `content`: the string, or its text parts joined."""
    if isinstance(content, str):
        return content
    return "".join(part["text"] for part in content)


def inputs_of(body: Mapping[str, Any]) -> list[str]:
    """Return the strings a checked embeddings or classify `body` asks about, in order."""
    return _texts_of(body["input"])


def sides_of(endpoint: Endpoint, body: Mapping[str, Any]) -> tuple[list[str], list[str]]:
    """Return both sides of the pairs that a checked score or rerank `body` asks about.

    The sides are equally long, or the first has one text, which goes with each of the second.
    """
    if endpoint is Endpoint.RERANK:
        return [body["query"]], _texts_of(body["documents"])
    return _texts_of(body["text_1"]), _texts_of(body["text_2"])


def _texts_of(given: str | list[str]) -> list[str]:
    return [given] if isinstance(given, str) else list(given)


def prompt_of(body: Mapping[str, Any]) -> str:
    """Return the one prompt of a checked completions `body`."""
    prompt = body["prompt"]
    return prompt if isinstance(prompt, str) else str(prompt[0])


# --- refusals of a whole body -------------------------------------------------------------------


def _refuse_unknown(endpoint: Endpoint, name: object) -> NoReturn:
    shown = str(name)[:64]
    checks.refuse(f"Parameter '{shown}' is not supported on {endpoint.value}.", "unsupported_parameter", shown)


def _refuse_two_bounds(body: Mapping[str, Any]) -> None:
    first, second = body["max_tokens"], body["max_completion_tokens"]
    if first is not None and second is not None and first != second:
        checks.refuse_value("max_completion_tokens", "it differs from max_tokens; give one of the two")


def _refuse_uneven(body: Mapping[str, Any]) -> None:
    first, second = sides_of(Endpoint.SCORE, body)
    if len(first) not in {1, len(second)}:
        checks.refuse_value("text_2", f"expected one string for each of the {len(first)} of text_1, or one text_1")


# --- the table ---------------------------------------------------------------------------------

#: Fields that say who asks and how to file it, not what to answer.
_NO_EFFECT: Final[Mapping[str, Check]] = {
    "user": checks.ignored,
    "safety_identifier": checks.ignored,
    "metadata": checks.ignored,
    "service_tier": checks.ignored,
}

_GENERATION: Final[Mapping[str, Check]] = {
    **_NO_EFFECT,
    "model": checks.model,
    "max_tokens": checks.integer(1, MAX_TOKENS_MAX),
    "temperature": checks.number(0.0, TEMPERATURE_MAX),
    "top_p": checks.number(0.0, 1.0, low_excluded=True),
    "stop": checks.stop,
    "seed": checks.integer(SEED_MIN, SEED_MAX),
    "presence_penalty": checks.number(-PENALTY_MAX, PENALTY_MAX),
    "frequency_penalty": checks.number(-PENALTY_MAX, PENALTY_MAX),
    "n": checks.only(1),
    "stream": checks.stream,
    "logit_bias": checks.only({}),
}

_SCORING: Final[Mapping[str, Check]] = {
    **_NO_EFFECT,
    "model": checks.model,
    "use_activation": checks.boolean,
    "truncate_prompt_tokens": checks.only(),
    "priority": checks.only(0),
}

_CHECKS: Final[Mapping[Endpoint, Mapping[str, Check]]] = MappingProxyType(
    {
        Endpoint.CHAT_COMPLETIONS: {
            **_GENERATION,
            "messages": checks.messages,
            "max_completion_tokens": checks.integer(1, MAX_TOKENS_MAX),
            "store": checks.only(False),
            "logprobs": checks.only(False),
            "response_format": checks.only({"type": "text"}),
            "modalities": checks.only(["text"]),
            "tools": checks.only([]),
            "tool_choice": checks.only("none"),
        },
        Endpoint.COMPLETIONS: {
            **_GENERATION,
            "prompt": checks.prompt,
            "echo": checks.only(False),
            "best_of": checks.only(1),
            "logprobs": checks.only(),
            "suffix": checks.only(),
        },
        Endpoint.EMBEDDINGS: {
            **_NO_EFFECT,
            "model": checks.model,
            "input": checks.texts(EMBEDDING_INPUTS_MAX),
            "encoding_format": checks.only("float", "base64"),
            "dimensions": checks.integer(1, DIMENSIONS_MAX),
        },
        Endpoint.SCORE: {**_SCORING, "text_1": checks.texts(PAIR_TEXTS_MAX), "text_2": checks.texts(PAIR_TEXTS_MAX)},
        Endpoint.RERANK: {
            **_SCORING,
            "query": checks.text,
            "documents": checks.texts(PAIR_TEXTS_MAX, only_list=True),
            "top_n": checks.integer(0, PAIR_TEXTS_MAX),
            "return_documents": checks.boolean,
        },
        Endpoint.CLASSIFY: {**_SCORING, "input": checks.texts(PAIR_TEXTS_MAX)},
    }
)

_REQUIRED: Final[Mapping[Endpoint, tuple[str, ...]]] = MappingProxyType(
    {
        Endpoint.CHAT_COMPLETIONS: ("model", "messages"),
        Endpoint.COMPLETIONS: ("model", "prompt"),
        Endpoint.EMBEDDINGS: ("model", "input"),
        Endpoint.SCORE: ("model", "text_1", "text_2"),
        Endpoint.RERANK: ("model", "query", "documents"),
        Endpoint.CLASSIFY: ("model", "input"),
    }
)

assert set(_CHECKS) == set(_REQUIRED) == set(MAX_TOKENS_DEFAULT) == set(Endpoint)
assert all(set(_REQUIRED[endpoint]) <= set(_CHECKS[endpoint]) for endpoint in Endpoint)
