"""Next tokens from adjusted logits: greedy, or sampled by the Gumbel-max trick with counter-based noise.

The noise of vocabulary entry v for a row's t-th output token is a hash of (row seed, t, v) and nothing
else, so an answer does not depend on which rows shared its batch (as far as the logits do not), and a
rerun repeats it. argmax(logits / T + Gumbel noise) is an exact draw from softmax(logits / T)
(Maddison, Tarlow and Minka, "A* Sampling", 2014, section 2).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final, Protocol

import torch
from torch import Tensor

from pipeline.domain.parameters import Sampling
from workers.engine.torch_chat.adjustments import NEVER, AdjustedRow, adjust

#: Temperatures below this are greedy: dividing by them would overflow.
TEMPERATURE_MIN: Final = 1e-4
#: Entries that hold the nucleus of nearly every row; only rows that need more sort the whole vocabulary.
_NUCLEUS_TRIED: Final = 512


class SampledRow(AdjustedRow, Protocol):
    """What the sampler reads of a row."""

    #: Any int64.
    seed: int


@torch.inference_mode()  # what a decoder made in this mode may be changed only in it
def choose(logits: Tensor, rows: Sequence[SampledRow]) -> list[int]:
    """Return one next token per row.

    Args:
        logits: float32 (rows, vocabulary), on any device; changed in place.
        rows: The rows in the same order.
    """
    adjust(logits, rows)
    sampled = [i for i, row in enumerate(rows) if not is_greedy(row.sampling)]
    chosen = logits.argmax(dim=-1)
    if sampled:
        index = torch.tensor(sampled, device=logits.device)
        chosen[index] = _draw(logits[index], [rows[i] for i in sampled])
    tokens: list[int] = chosen.tolist()
    return tokens


def is_greedy(sampling: Sampling) -> bool:
    """Say whether the likeliest token is taken."""
    return sampling.temperature < TEMPERATURE_MIN


def _draw(logits: Tensor, rows: Sequence[SampledRow]) -> Tensor:
    """Return one draw per row of `logits` (rows, vocabulary)."""
    scores = drawn_from(logits, rows)
    lanes = mixed(torch.arange(scores.shape[1], device=scores.device, dtype=torch.int32))
    for i, row in enumerate(rows):
        # Row by row: a row's vocabulary fits the second-level cache, all rows' together do not.
        scores[i] += _gumbel(lanes, row.seed, len(row.output))
    return scores.argmax(dim=-1)


def drawn_from(logits: Tensor, rows: Sequence[AdjustedRow]) -> Tensor:
    """Return the logits of what each row, none of them greedy, is drawn from: (rows, vocabulary), `NEVER` for what cannot be."""
    temperatures = torch.tensor([row.sampling.temperature for row in rows], device=logits.device)
    scores = logits / temperatures[:, None]
    _keep_likely(scores, rows)
    _keep_first(scores, rows)
    narrowed = [i for i, row in enumerate(rows) if row.sampling.top_p < 1.0]
    if narrowed:
        index = torch.tensor(narrowed, device=logits.device)
        shares = torch.tensor([rows[i].sampling.top_p for i in narrowed], device=logits.device)
        scores[index] = _nucleus(scores[index], shares)
    return scores


def _keep_likely(scores: Tensor, rows: Sequence[AdjustedRow]) -> None:
    """Remove what is less likely than `min_p` times the likeliest entry."""
    for i, row in enumerate(rows):
        if row.sampling.min_p > 0.0:
            least = scores[i].max() + math.log(row.sampling.min_p)
            scores[i].masked_fill_(scores[i] < least, NEVER)


def _keep_first(scores: Tensor, rows: Sequence[AdjustedRow]) -> None:
    """Remove all but the `top_k` likeliest entries; what ties with the last of them stays."""
    for i, row in enumerate(rows):
        if 0 < row.sampling.top_k < scores.shape[1]:
            least = scores[i].topk(row.sampling.top_k).values[-1]
            scores[i].masked_fill_(scores[i] < least, NEVER)


def _nucleus(scores: Tensor, shares: Tensor) -> Tensor:
    """Return `scores` with all but each row's smallest set of top entries holding `shares` of the mass removed."""
    total = scores.logsumexp(dim=-1, keepdim=True)
    kept, tried = scores, min(_NUCLEUS_TRIED, scores.shape[1])
    top = scores.topk(tried, dim=-1).values
    if bool(((top - total).exp().sum(dim=-1) < shares).any()):
        top = scores.sort(dim=-1, descending=True).values
    before = (top - total).exp().cumsum(dim=-1) - (top - total).exp()
    # An entry stays while the mass before it is below the share; the first always does.
    smallest = top.masked_fill(before >= shares[:, None], float("inf")).amin(dim=-1, keepdim=True)
    return kept.masked_fill(kept < smallest, NEVER)


# --- noise -------------------------------------------------------------------------------------

_MASK_64: Final = 2**64 - 1
#: 23 bits and a half are exact in float32 and never 0 or 1.
UNIFORM_MASK: Final = 2**23 - 1


def _gumbel(lanes: Tensor, seed: int, position: int) -> Tensor:
    """Return Gumbel noise (vocabulary,) for a row's `position`-th output token."""
    first, second = noise_keys(seed, position)
    bits = mixed(mixed(lanes ^ first) ^ second) & UNIFORM_MASK
    uniform = (bits.to(torch.float32) + 0.5) / (UNIFORM_MASK + 1)
    return -(-uniform.log()).log()


def noise_keys(seed: int, position: int) -> tuple[int, int]:
    """Return two int32 keys of (seed, position) (SplitMix64; Steele, Lea and Flood, 2014)."""
    state = ((seed & _MASK_64) + 0x9E3779B97F4A7C15 * (position + 1)) & _MASK_64
    state = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & _MASK_64
    state = ((state ^ (state >> 27)) * 0x94D049BB133111EB) & _MASK_64
    state ^= state >> 31
    return _signed(state & 0xFFFFFFFF), _signed(state >> 32)


def _signed(value: int) -> int:
    return value - 2**32 if value >= 2**31 else value


def mixed(values: Tensor) -> Tensor:
    """Return MurmurHash3's 32-bit finalizer of int32 `values`.

    torch shifts int32 arithmetically, hence the masks; its int32 product wraps, which a test pins.
    """
    values = values ^ ((values >> 16) & 0xFFFF)
    values = values * _signed(0x85EBCA6B)
    values = values ^ ((values >> 13) & 0x7FFFF)
    values = values * _signed(0xC2B2AE35)
    return values ^ ((values >> 16) & 0xFFFF)
