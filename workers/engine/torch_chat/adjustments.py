"""What a request changes in its logits before a token is chosen, in vLLM's order.

Constraint, `min_tokens`, `logit_bias`, `repetition_penalty`, then OpenAI's penalties. A row that asks for none
costs one look at a flag.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Final, Protocol

import torch
from torch import Tensor

from pipeline.domain.parameters import Sampling
from workers.engine.grammars import Matcher

NEVER: Final = float("-inf")


class AdjustedRow(Protocol):
    """What is read of a row."""

    sampling: Sampling
    prompt: list[int]
    #: Output tokens so far.
    output: list[int]
    #: Tokens that end the row.
    ends: frozenset[int]
    #: How far the answer has come in its form, where it must have one.
    matcher: Matcher | None
    #: Whether any of the below concerns it.
    is_adjusted: bool


def adjust(logits: Tensor, rows: Sequence[AdjustedRow]) -> None:
    """Change each row's `logits`, float32 (rows, vocabulary), in place as its request says."""
    for i, row in enumerate(rows):
        if row.is_adjusted:
            _adjust(logits[i], row)


def is_adjusting(sampling: Sampling) -> bool:
    """Say whether a request changes logits at all."""
    return bool(
        sampling.min_tokens
        or sampling.logit_bias
        or sampling.repetition_penalty != 1.0
        or sampling.presence_penalty
        or sampling.frequency_penalty
        or sampling.constraint
    )


def _adjust(logits: Tensor, row: AdjustedRow) -> None:
    sampling, device = row.sampling, logits.device
    if row.matcher is not None and (forbidden := row.matcher.forbidden()) is not None:
        logits.masked_fill_(torch.from_numpy(forbidden).to(device), NEVER)
    if len(row.output) < sampling.min_tokens and row.ends:
        logits[torch.tensor(sorted(row.ends), device=device)] = NEVER
    if sampling.logit_bias:
        tokens, biases = zip(*sampling.logit_bias, strict=True)
        logits[torch.tensor(tokens, device=device)] += torch.tensor(biases, device=device)
    if sampling.repetition_penalty != 1.0:
        seen = torch.tensor(row.prompt + row.output, device=device)
        # A token that was seen twice is written twice, with the same value.
        values, penalty = logits[seen], sampling.repetition_penalty
        logits[seen] = torch.where(values > 0, values / penalty, values * penalty)
    presence, frequency = sampling.presence_penalty, sampling.frequency_penalty
    if row.output and (presence or frequency):
        counts = Counter(row.output)
        # OpenAI's formula: count x frequency + presence.
        penalties = [count * frequency + presence for count in counts.values()]
        logits[torch.tensor(list(counts), device=device)] -= torch.tensor(penalties, device=device)
