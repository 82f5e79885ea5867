"""Next tokens on the device, without a look at them by the host; the draws are those of `torch_chat.sampler`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from pipeline.domain.parameters import Sampling
from workers.engine.torch_chat.sampler import TEMPERATURE_MIN, UNIFORM_MASK, mixed, noise_keys


def is_plain(sampling: Sampling) -> bool:
    """Return whether a row's next token needs nothing but its logits, its seed and its place.

    Everything else, what is added to `Sampling` later included, waits for the host at every step.
    """
    return sampling == Sampling(
        max_tokens=sampling.max_tokens,
        temperature=sampling.temperature,
        top_p=sampling.top_p,
        stop=sampling.stop,
        seed=sampling.seed,
        n=sampling.n,
        stop_token_ids=sampling.stop_token_ids,
        ignore_eos=sampling.ignore_eos,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Draw:
    """One sampled row of a step: its place in the batch, its parameters, and its noise."""

    place: int
    sampling: Sampling
    seed: int
    #: Output tokens so far.
    position: int


def is_sampled(sampling: Sampling) -> bool:
    """Return whether the row is drawn, not greedy."""
    return sampling.temperature >= TEMPERATURE_MIN


@torch.inference_mode()
def draw(logits: Tensor, draws: Sequence[Draw], chosen: Tensor) -> None:
    """Replace, in `chosen` (rows), the tokens of the sampled rows by draws from `logits` (rows, vocabulary)."""
    device = logits.device
    places = _moved([each.place for each in draws], torch.int64, device)
    temperatures = _moved([each.sampling.temperature for each in draws], torch.float32, device)
    scores = logits[places].float() / temperatures[:, None]
    narrowed = [i for i, each in enumerate(draws) if each.sampling.top_p < 1.0]
    if narrowed:
        index = _moved(narrowed, torch.int64, device)
        shares = _moved([draws[i].sampling.top_p for i in narrowed], torch.float32, device)
        scores[index] = nucleus(scores[index], shares)
    keys = _moved([noise_keys(each.seed, each.position) for each in draws], torch.int32, device)
    chosen[places] = (scores + gumbel(keys, scores.shape[1])).argmax(dim=-1)


def nucleus(scores: Tensor, shares: Tensor) -> Tensor:
    """Return `scores` with all but each row's smallest set of top entries holding `shares` of the mass removed.

    By a full sort: whether fewer entries suffice is a question to the device, and the host does not wait for it.
    """
    top = scores.sort(dim=-1, descending=True).values
    masses = top.softmax(dim=-1)
    before = masses.cumsum(dim=-1) - masses
    smallest = top.masked_fill(before >= shares[:, None], float("inf")).amin(dim=-1, keepdim=True)
    return scores.masked_fill(scores < smallest, float("-inf"))


def gumbel(keys: Tensor, vocabulary: int) -> Tensor:
    """Return Gumbel noise (rows, vocabulary) from each row's two int32 keys (rows, 2)."""
    lanes = mixed(torch.arange(vocabulary, device=keys.device, dtype=torch.int32))
    bits = mixed(mixed(lanes ^ keys[:, :1]) ^ keys[:, 1:]) & UNIFORM_MASK
    uniform = (bits.to(torch.float32) + 0.5) / (UNIFORM_MASK + 1)
    return -(-uniform.log()).log()


def _moved(values: Sequence[object], dtype: torch.dtype, device: torch.device) -> Tensor:
    is_far = device.type == "cuda"
    return torch.tensor(values, dtype=dtype, pin_memory=is_far).to(device, non_blocking=is_far)
