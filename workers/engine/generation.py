"""What engines decide alike: their options, and, where they generate text, endpoints, bounds and ends."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import fields
from typing import Any, TypeVar

from pipeline.domain.endpoints import Endpoint
from pipeline.domain.errors import ModelUnavailableError, RequestRefusedError
from pipeline.domain.parameters import MAX_TOKENS_DEFAULT, Sampling
from pipeline.ports.engine import EngineRequest

Options = TypeVar("Options")


def options_of(kind: type[Options], settings: dict[str, Any]) -> Options:
    """Return the options dataclass `kind` with these settings, or raise `ModelUnavailableError` naming unknown ones."""
    known = {option.name for option in fields(kind)}  # type: ignore[arg-type] # a dataclass, which no bound can say
    if unknown := sorted(settings.keys() - known):
        raise ModelUnavailableError(f"unknown engine options: {', '.join(unknown)}", hint=", ".join(sorted(known)))
    return kind(**settings)


def endpoints_of(tokenizer: Any) -> frozenset[Endpoint]:  # noqa: ANN401 -- transformers has no types
    """Return what a model with this tokenizer serves: chat only with a template for it."""
    return frozenset({Endpoint.COMPLETIONS} | ({Endpoint.CHAT_COMPLETIONS} if tokenizer.chat_template else set()))


def output_bound(request: EngineRequest, prompt: list[int], sampling: Sampling, *, tokens_max: int) -> int:
    """Return how many output tokens the row may have: what it asks for, within the `tokens_max` of prompt and answer.

    Raises:
        RequestRefusedError: The prompt is empty, or leaves no room for an answer.
    """
    if not prompt:
        raise RequestRefusedError("The prompt is empty.", code="invalid_value", param="body.prompt")
    room = tokens_max - len(prompt)
    if room < 1:
        field_name = "messages" if request.endpoint is Endpoint.CHAT_COMPLETIONS else "prompt"
        raise RequestRefusedError(
            f"This model's maximum context length is {tokens_max} tokens; "
            f"the prompt has {len(prompt)} and leaves none for an answer.",
            code="context_length_exceeded",
            param=f"body.{field_name}",
        )
    return min(room, sampling.max_tokens or MAX_TOKENS_DEFAULT[request.endpoint])


def ends_of(sampling: Sampling, end_tokens: frozenset[int]) -> frozenset[int]:
    """Return the tokens that end an answer of a model with these `end_tokens`."""
    return (frozenset() if sampling.ignore_eos else end_tokens) | frozenset(sampling.stop_token_ids)


def check_tokens(sampling: Sampling, vocabulary: int) -> None:
    """Raise `RequestRefusedError` where the request names a token that a `vocabulary` of this size does not have."""
    named = {"stop_token_ids": sampling.stop_token_ids, "logit_bias": [token for token, _ in sampling.logit_bias]}
    for name, tokens in named.items():
        if any(token >= vocabulary for token in tokens):
            raise RequestRefusedError(
                f"Invalid value for '{name}': this model's token ids are below {vocabulary}.",
                code="invalid_value",
                param=f"body.{name}",
            )


def end_tokens(tokenizer: Any, named: Iterable[int | list[int] | None]) -> frozenset[int]:  # noqa: ANN401 -- as above
    """Return every id that ends an answer: the tokenizer's, and those `named` by the model's configurations."""
    ids = {tokenizer.eos_token_id}
    for value in named:
        ids |= set(value) if isinstance(value, list) else {value}
    return frozenset(token for token in ids if token is not None)
