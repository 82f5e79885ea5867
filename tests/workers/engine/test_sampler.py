from dataclasses import dataclass, field

import pytest
import torch

from pipeline.domain.parameters import Sampling
from workers.engine.torch_chat.adjustments import is_adjusting
from workers.engine.torch_chat.sampler import _gumbel, _nucleus, choose, mixed


@dataclass
class Row:
    sampling: Sampling
    seed: int = 1
    output: list[int] = field(default_factory=list)
    prompt: list[int] = field(default_factory=list)
    ends: frozenset[int] = frozenset()
    matcher: None = None

    @property
    def is_adjusted(self) -> bool:
        return is_adjusting(self.sampling)


def murmur(value: int) -> int:
    value ^= value >> 16
    value = value * 0x85EBCA6B & 0xFFFFFFFF
    value ^= value >> 13
    value = value * 0xC2B2AE35 & 0xFFFFFFFF
    return value ^ (value >> 16)


def test_the_hash_is_murmurs_finalizer() -> None:
    values = [0, 1, 2, 12345, 2**31 - 1, 2**31, 2**32 - 1]

    found = mixed(torch.tensor(values, dtype=torch.int64).to(torch.int32))

    assert [value & 0xFFFFFFFF for value in found.tolist()] == [murmur(value) for value in values]


def test_draws_follow_the_softmax() -> None:
    logits = torch.tensor([0.0, 1.0, 2.0, -1.0, 0.5])
    rows = [Row(Sampling(temperature=0.7), seed=seed) for seed in range(4_000)]

    drawn = torch.tensor(choose(logits.repeat(4_000, 1), rows)).bincount(minlength=5) / 4_000

    assert torch.allclose(drawn, (logits / 0.7).softmax(-1), atol=0.03)


def test_noise_depends_on_seed_and_position() -> None:
    lanes = mixed(torch.arange(50_000, dtype=torch.int32))
    noise = [_gumbel(lanes, seed, position) for seed, position in ((1, 0), (1, 1), (2, 0))]

    assert torch.equal(noise[0], _gumbel(lanes, 1, 0))
    assert all(abs(float(torch.corrcoef(torch.stack(pair))[0, 1])) < 0.02 for pair in (noise[:2], noise[1:]))
    assert all(n.isfinite().all() for n in noise)


@pytest.mark.parametrize("share", [0.05, 0.5, 0.9, 0.999])
def test_the_nucleus_is_the_smallest_set_that_holds_the_share(share: float) -> None:
    scores = torch.randn(4, 3000, generator=torch.Generator().manual_seed(1)) * 2
    kept = _nucleus(scores, torch.full((4,), share)).isfinite()

    for row in range(4):
        probabilities = scores[row].softmax(-1).sort(descending=True).values
        wanted = int((probabilities.cumsum(-1) < share).sum()) + 1
        assert abs(int(kept[row].sum()) - wanted) <= 1


def test_penalties_follow_openais_formula() -> None:
    logits = torch.tensor([[5.0, 4.5, 4.0, 0.0]])
    row = Row(Sampling(temperature=0.0, presence_penalty=0.3, frequency_penalty=0.4), output=[0, 0, 1])

    chosen = choose(logits, [row])

    # 5 - 2 x 0.4 - 0.3 = 3.9; 4.5 - 0.4 - 0.3 = 3.8
    assert torch.allclose(logits, torch.tensor([[3.9, 3.8, 4.0, 0.0]]))
    assert chosen == [2]


def test_repetition_penalty_divides_what_is_positive_and_multiplies_what_is_not() -> None:
    logits = torch.tensor([[3.0, -1.0, 2.0, 1.0]])

    choose(logits, [Row(Sampling(repetition_penalty=2.0), prompt=[1, 0, 1], output=[0])])

    assert torch.equal(logits, torch.tensor([[1.5, -2.0, 2.0, 1.0]]))


def test_biases_are_added_and_can_ban_or_force_a_token() -> None:
    logits = torch.tensor([[5.0, 4.0, 3.0]]).repeat(3, 1)
    biases = [(), ((0, -100.0),), ((2, 100.0), (0, 0.5))]

    chosen = choose(logits, [Row(Sampling(temperature=0.0, logit_bias=bias)) for bias in biases])

    assert chosen == [0, 1, 2]
    assert logits[2].tolist() == [5.5, 4.0, 103.0]


def test_end_tokens_are_banned_until_there_are_enough_tokens() -> None:
    logits = torch.tensor([[5.0, 4.0, 3.0]]).repeat(2, 1)
    rows = [Row(Sampling(temperature=0.0, min_tokens=2), output=[2] * n, ends=frozenset({0})) for n in (1, 2)]

    assert choose(logits, rows) == [1, 0]


def probabilities(sampling: Sampling, logits: torch.Tensor, draws: int = 4_000) -> torch.Tensor:
    rows = [Row(sampling, seed=seed) for seed in range(draws)]
    return torch.tensor(choose(logits.repeat(draws, 1), rows)).bincount(minlength=len(logits)) / draws


def test_top_k_keeps_the_likeliest_and_what_ties_with_the_last() -> None:
    logits = torch.tensor([0.0, 1.0, 2.0, 1.0, -1.0])

    kept = probabilities(Sampling(top_k=2), logits)

    assert kept[[0, 4]].tolist() == [0.0, 0.0]
    assert torch.allclose(kept[1:4], logits[1:4].softmax(-1), atol=0.03)


def test_min_p_keeps_what_is_likely_enough_beside_the_likeliest() -> None:
    logits = torch.tensor([0.3, 0.25, 0.16, 0.14, 0.15]).log()

    kept = probabilities(Sampling(min_p=0.52), logits)

    assert kept[[3, 4]].tolist() == [0.0, 0.0]
    assert torch.allclose(kept[:3], torch.tensor([0.3, 0.25, 0.16]) / 0.71, atol=0.03)


def test_the_share_of_top_p_is_of_what_top_k_left() -> None:
    logits = torch.tensor([0.4, 0.3, 0.2, 0.1]).log()

    kept = probabilities(Sampling(top_k=2, top_p=0.55), logits)

    # Of the two that are left the first has 0.57, which is the share; of all four it has 0.4, which is not.
    assert kept.tolist() == [1.0, 0.0, 0.0, 0.0]
