"""The request parameters Nightrate honours, per endpoint, as data; everything else is refused by name.

`check_body` runs for every row at intake, so it costs one dictionary look-up and one small call per key
present. A parameter that cannot change the answer is tolerated (`user`, `metadata`, `store: false`,
`service_tier`); one that would change it in a way no engine here honours is refused, never ignored.
`null` means "not given", as it does in OpenAI's own clients.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final

from pipeline.domain.checks import (
    TOKEN_ID_MAX,
    Check,
    boolean,
    ignored,
    integer,
    logit_bias,
    messages,
    model,
    number,
    only,
    prompt,
    refuse,
    refuse_type,
    refuse_unknown,
    refuse_value,
    stop,
    stop_token_ids,
    stream,
    text,
    texts,
)
from pipeline.domain.constraints import (
    Constraint,
    constraint_of,
    is_constrained,
    response_format,
    structured_outputs,
)
from pipeline.domain.endpoints import Endpoint
from pipeline.domain.errors import RequestRefusedError
from pipeline.domain.images import image_message, inputs, refuse_images
from pipeline.domain.limits import EMBEDDING_INPUTS_MAX, PAIR_TEXTS_MAX
from pipeline.domain.responses import check_input, check_instructions, check_text

#: Output tokens when a request names no bound; an engine lowers it to what its context has left.
#: 16 is OpenAI's own default for text completions; chat has none there, and 1024 bounds the quote.
MAX_TOKENS_DEFAULT: Final[Mapping[Endpoint, int]] = MappingProxyType(
    {
        Endpoint.CHAT_COMPLETIONS: 1024,
        Endpoint.COMPLETIONS: 16,
        Endpoint.RESPONSES: 1024,
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
#: vLLM names no bound; past this one a division leaves nothing of a logit.
REPETITION_PENALTY_MAX: Final = 100.0
SEED_MIN: Final = -(2**63)
SEED_MAX: Final = 2**63 - 1
#: OpenAI's bounds on alternatives told beside each token, of chat and of text completions.
TOP_LOGPROBS_MAX: Final = 20
LOGPROBS_MAX: Final = 5
#: OpenAI's own bound.
CHOICES_MAX: Final = 128


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
    #: Alternatives to tell beside each token's log-probability; None: tell none of either.
    logprobs: int | None = None
    #: Answers to give.
    n: int = 1
    #: Output tokens before which nothing but the bound ends the answer.
    min_tokens: int = 0
    #: 0: all.
    top_k: int = 0
    min_p: float = 0.0
    #: 1 changes nothing.
    repetition_penalty: float = 1.0
    #: Token ids and what is added to their logits.
    logit_bias: tuple[tuple[int, float], ...] = ()
    #: Token ids that end the answer beside the model's own.
    stop_token_ids: tuple[int, ...] = ()
    #: Whether the model's own end tokens end nothing.
    ignore_eos: bool = False
    #: The form that the answer must have.
    constraint: Constraint | None = None


def check_body(endpoint: Endpoint, body: object) -> None:
    """Raise `RequestRefusedError` for the first field of `body` that `endpoint` does not honour as given."""
    if not isinstance(body, dict):
        if not isinstance(body, Mapping):
            refuse_type("", body, "an object")
        body = dict(body)
    known = _CHECKS[endpoint]
    for name, value in body.items():
        check = known.get(name)
        if check is None:
            refuse_unknown(endpoint, name)
        check(name, value)
    for name in _REQUIRED[endpoint]:
        if name not in body and (name != "input" or body.get("messages") is None):
            raise RequestRefusedError(f"{name.capitalize()} parameter is required.", param=f"body.{name}")
    for name, check_with in _TOGETHER[endpoint]:
        if body.get(name) is not None:
            check_with(body)


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
        logprobs=_logprobs_of(endpoint, body),
        n=body.get("n") or 1,
        min_tokens=body.get("min_tokens") or 0,
        top_k=max(body.get("top_k") or 0, 0),
        min_p=float(body.get("min_p") or 0.0),
        repetition_penalty=float(body.get("repetition_penalty") or 1.0),
        logit_bias=tuple((int(token), float(bias)) for token, bias in (body.get("logit_bias") or {}).items()),
        stop_token_ids=tuple(body.get("stop_token_ids") or ()),
        ignore_eos=bool(body.get("ignore_eos")),
        constraint=constraint_of(body),
    )


def _logprobs_of(endpoint: Endpoint, body: Mapping[str, Any]) -> int | None:
    asked = body.get("logprobs")
    if endpoint is Endpoint.CHAT_COMPLETIONS:
        return (body.get("top_logprobs") or 0) if asked else None
    return asked


def text_of(content: str | list[Mapping[str, str]]) -> str:
    """Return the text of a checked message's `content`: the string, or its text parts joined."""
    if isinstance(content, str):
        return content
    return "".join(part["text"] for part in content)


def inputs_of(body: Mapping[str, Any]) -> list[str]:
    """Return the strings a checked embeddings or classify `body` asks about, in order.

    Raises:
        RequestRefusedError: It asks about images.
    """
    refuse_images(body)
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


# --- fields that must agree --------------------------------------------------------------------

_CONSTRAINED: Final = "an answer of a given form ends where its form does"


def _agree_on_one_bound(body: Mapping[str, Any]) -> None:
    if body.get("max_tokens") not in (None, body["max_completion_tokens"]):
        refuse_value("max_completion_tokens", "it differs from max_tokens; give one of the two")


def _agree_on_logprobs(body: Mapping[str, Any]) -> None:
    if not body.get("logprobs"):
        refuse_value("top_logprobs", "it needs 'logprobs': true")


def _agree_on_least(endpoint: Endpoint) -> Callable[[Mapping[str, Any]], None]:
    def check(body: Mapping[str, Any]) -> None:
        bound = body.get("max_completion_tokens") or body.get("max_tokens") or MAX_TOKENS_DEFAULT[endpoint]
        if body["min_tokens"] > bound:
            refuse_value("min_tokens", f"it is more than the bound on output tokens, {bound}")
        if body["min_tokens"] and is_constrained(body):
            refuse_value("min_tokens", _CONSTRAINED)

    return check


def _agree_on_end(body: Mapping[str, Any]) -> None:
    if body["ignore_eos"] and is_constrained(body):
        refuse_value("ignore_eos", _CONSTRAINED)


def _agree_on_one_form(body: Mapping[str, Any]) -> None:
    if (body.get("response_format") or {"type": "text"})["type"] != "text":
        refuse_value("structured_outputs", "response_format asks for a form already; give one of the two")


def _agree_on_pairs(body: Mapping[str, Any]) -> None:
    first, second = sides_of(Endpoint.SCORE, body)
    if len(first) not in {1, len(second)}:
        refuse_value("text_2", f"expected one string for each of the {len(first)} of text_1, or one text_1")


def _agree_on_one_input(body: Mapping[str, Any]) -> None:
    if body.get("input") is not None:
        refuse_value("messages", "'input' is given already; give one of the two")


def _agree_on_choices(body: Mapping[str, Any]) -> None:
    if body["best_of"] != (body.get("n") or 1):
        refuse(
            "Parameter 'best_of' is not supported with this value; only that of 'n' is.",
            "unsupported_parameter",
            "best_of",
        )


# --- the table ---------------------------------------------------------------------------------

#: Fields that say who asks and how to file it, not what to answer.
_NO_EFFECT: Final[Mapping[str, Check]] = {
    "user": ignored,
    "safety_identifier": ignored,
    "metadata": ignored,
    "service_tier": ignored,
}

_GENERATION: Final[Mapping[str, Check]] = {
    **_NO_EFFECT,
    "model": model,
    "max_tokens": integer(1, MAX_TOKENS_MAX),
    "temperature": number(0.0, TEMPERATURE_MAX),
    "top_p": number(0.0, 1.0, low_excluded=True),
    "stop": stop,
    "seed": integer(SEED_MIN, SEED_MAX),
    "presence_penalty": number(-PENALTY_MAX, PENALTY_MAX),
    "frequency_penalty": number(-PENALTY_MAX, PENALTY_MAX),
    "n": integer(1, CHOICES_MAX),
    "stream": stream,
    "logit_bias": logit_bias,
    # The names and ranges of the following are vLLM's.
    "min_tokens": integer(0, MAX_TOKENS_MAX),
    "top_k": integer(-1, TOKEN_ID_MAX),
    "min_p": number(0.0, 1.0),
    "repetition_penalty": number(0.0, REPETITION_PENALTY_MAX, low_excluded=True),
    "stop_token_ids": stop_token_ids,
    "ignore_eos": boolean,
    "response_format": response_format,
    "structured_outputs": structured_outputs,
}

_SCORING: Final[Mapping[str, Check]] = {
    **_NO_EFFECT,
    "model": model,
    "use_activation": boolean,
    "truncate_prompt_tokens": only(),
    "priority": only(0),
}

_CHECKS: Final[Mapping[Endpoint, Mapping[str, Check]]] = MappingProxyType(
    {
        Endpoint.CHAT_COMPLETIONS: {
            **_GENERATION,
            "messages": messages,
            "max_completion_tokens": integer(1, MAX_TOKENS_MAX),
            "store": only(False),
            "logprobs": boolean,
            "top_logprobs": integer(0, TOP_LOGPROBS_MAX),
            "modalities": only(["text"]),
            "tools": only([]),
            "tool_choice": only("none"),
        },
        Endpoint.COMPLETIONS: {
            **_GENERATION,
            "prompt": prompt,
            "echo": only(False),
            "best_of": integer(1, CHOICES_MAX),
            "logprobs": integer(0, LOGPROBS_MAX),
            "suffix": only(),
        },
        Endpoint.RESPONSES: {
            **_NO_EFFECT,
            "model": model,
            "input": check_input,
            "instructions": check_instructions,
            "max_output_tokens": integer(1, MAX_TOKENS_MAX),
            "temperature": number(0.0, TEMPERATURE_MAX),
            "top_p": number(0.0, 1.0, low_excluded=True),
            "text": check_text,
            "stream": stream,
            "store": only(False),
            "background": only(False),
            "truncation": only("disabled"),
            "tools": only([]),
            "tool_choice": only("none", "auto"),
            "parallel_tool_calls": ignored,
            "top_logprobs": only(0),
            "include": only([]),
            "reasoning": only(),
            "previous_response_id": only(),
            "conversation": only(),
            "prompt": only(),
            "prompt_cache_key": ignored,
        },
        Endpoint.EMBEDDINGS: {
            **_NO_EFFECT,
            "model": model,
            "input": inputs(EMBEDDING_INPUTS_MAX),
            "messages": image_message,
            "encoding_format": only("float", "base64"),
            "dimensions": integer(1, DIMENSIONS_MAX),
        },
        Endpoint.SCORE: {**_SCORING, "text_1": texts(PAIR_TEXTS_MAX), "text_2": texts(PAIR_TEXTS_MAX)},
        Endpoint.RERANK: {
            **_SCORING,
            "query": text,
            "documents": texts(PAIR_TEXTS_MAX, only_list=True),
            "top_n": integer(0, PAIR_TEXTS_MAX),
            "return_documents": boolean,
        },
        Endpoint.CLASSIFY: {**_SCORING, "input": inputs(PAIR_TEXTS_MAX), "messages": image_message},
    }
)

#: Checks of one field with others, called where that field is given.
_TOGETHER: Final[Mapping[Endpoint, tuple[tuple[str, Callable[[Mapping[str, Any]], None]], ...]]] = MappingProxyType(
    {
        Endpoint.CHAT_COMPLETIONS: (
            ("max_completion_tokens", _agree_on_one_bound),
            ("top_logprobs", _agree_on_logprobs),
            ("min_tokens", _agree_on_least(Endpoint.CHAT_COMPLETIONS)),
            ("ignore_eos", _agree_on_end),
            ("structured_outputs", _agree_on_one_form),
        ),
        Endpoint.COMPLETIONS: (
            ("best_of", _agree_on_choices),
            ("min_tokens", _agree_on_least(Endpoint.COMPLETIONS)),
            ("ignore_eos", _agree_on_end),
            ("structured_outputs", _agree_on_one_form),
        ),
        Endpoint.RESPONSES: (),
        Endpoint.EMBEDDINGS: (("messages", _agree_on_one_input),),
        Endpoint.SCORE: (("text_2", _agree_on_pairs),),
        Endpoint.RERANK: (),
        Endpoint.CLASSIFY: (("messages", _agree_on_one_input),),
    }
)

_REQUIRED: Final[Mapping[Endpoint, tuple[str, ...]]] = MappingProxyType(
    {
        Endpoint.CHAT_COMPLETIONS: ("model", "messages"),
        Endpoint.COMPLETIONS: ("model", "prompt"),
        Endpoint.RESPONSES: ("model", "input"),
        Endpoint.EMBEDDINGS: ("model", "input"),
        Endpoint.SCORE: ("model", "text_1", "text_2"),
        Endpoint.RERANK: ("model", "query", "documents"),
        Endpoint.CLASSIFY: ("model", "input"),
    }
)

assert set(_CHECKS) == set(_REQUIRED) == set(MAX_TOKENS_DEFAULT) == set(Endpoint)
assert all(set(_REQUIRED[endpoint]) <= set(_CHECKS[endpoint]) for endpoint in Endpoint)
