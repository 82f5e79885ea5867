"""What a request asks for in the words of vLLM's `SamplingParams`, as plain data."""

from __future__ import annotations

import json
from typing import Any, Final, assert_never

from pipeline.domain.constraints import Constraint, ConstraintKind
from pipeline.domain.errors import RequestRefusedError
from pipeline.domain.parameters import Sampling
from workers.engine.asked import Asked

#: Below this vLLM raises a temperature to it, which would be another distribution (its `_MAX_TEMP`).
TEMPERATURE_MIN: Final = 0.01
#: vLLM takes a seed of -1 as none, and torch's generators take 64 bits: so the sign is dropped.
_SEED_MASK: Final = 2**63 - 1
#: Between JSON's tokens, as `workers.engine.grammars` has it.
_WHITESPACE: Final = r"[ \n\r\t]{0,64}"


def refuse_beyond(sampling: Sampling) -> None:
    """Raise `RequestRefusedError` for what vLLM would take and answer otherwise than asked."""
    if 0 < sampling.temperature < TEMPERATURE_MIN:
        raise RequestRefusedError(
            "Parameter 'temperature' is not supported with this value by the engine that runs this model: "
            f"it takes 0, which is greedy, or {TEMPERATURE_MIN} and above.",
            code="unsupported_parameter",
            param="body.temperature",
        )


def settings_of(asked: Asked, index: int) -> dict[str, Any]:
    """Return the fields of `SamplingParams` for one choice of a request.

    Each choice is a request of its own there: the seeds of one of many are not ours to set. Ends are told as token ids,
    the model's own among them, and stop strings not at all: the engine watches for them as the other engines do.
    """
    sampling = asked.sampling
    settings: dict[str, Any] = {
        "n": 1,
        "max_tokens": asked.output_max,
        "min_tokens": sampling.min_tokens,
        "temperature": sampling.temperature,
        "presence_penalty": sampling.presence_penalty,
        "frequency_penalty": sampling.frequency_penalty,
        "repetition_penalty": sampling.repetition_penalty,
        "stop_token_ids": sorted(asked.ends),
        "ignore_eos": True,
        "detokenize": False,
    }
    if sampling.temperature > 0:
        settings |= {
            "top_p": sampling.top_p,
            "top_k": sampling.top_k,
            "min_p": sampling.min_p,
            "seed": asked.seed(index) & _SEED_MASK,
        }
    if sampling.logprobs is not None:
        settings["logprobs"] = sampling.logprobs
    if sampling.logit_bias:
        settings["logit_bias"] = dict(sampling.logit_bias)
    if sampling.constraint is not None:
        settings["structured_outputs"] = form_of(sampling.constraint)
    return settings


def form_of(constraint: Constraint) -> dict[str, Any]:
    """Return the fields of `StructuredOutputsParams` for the form that an answer must have."""
    match constraint.kind:
        case ConstraintKind.JSON_SCHEMA:
            return {"json": _schema(constraint.text)}
        case ConstraintKind.REGEX:
            return {"regex": constraint.text}
        case ConstraintKind.CHOICE:
            return {"choice": list(constraint.choices)}
        case _:
            assert_never(constraint.kind)


def _schema(text: str) -> str:
    """Return the schema with white space bounded: a small model may otherwise write it until its bound."""
    schema = json.loads(text)
    if not isinstance(schema, dict):
        return text
    # llguidance's own key for what else its caller could set.
    return json.dumps({**schema, "x-guidance": {"whitespace_pattern": _WHITESPACE}}, ensure_ascii=False)
