from dataclasses import dataclass, field

import pytest
import torch

from pipeline.domain.parameters import Sampling
from workers.engine.torch_chat.sampler import _gumbel, _mix, _nucleus, choose


@dataclass
class Row:
    sampling: Sampling
    seed: int = 1
    output: list[int] = field(default_factory=list)


def murmur(value: int) -> int:
    value ^= value >> 16
    value = value * 0x85EBCA6B & 0xFFFFFFFF
    value ^= value >> 13
    value = value * 0xC2B2AE35 & 0xFFFFFFFF
    return value ^ (value >> 16)


def test_the_hash_is_murmurs_finalizer() -> None:
    values = [0, 1, 2, 12345, 2**31 - 1, 2**31, 2**32 - 1]

    mixed = _mix(torch.tensor(values, dtype=torch.int64).to(torch.int32))

    assert [value & 0xFFFFFFFF for value in mixed.tolist()] == [murmur(value) for value in values]


def test_draws_follow_the_softmax() -> None:
    logits = torch.tensor([0.0, 1.0, 2.0, -1.0, 0.5])
    rows = [Row(Sampling(temperature=0.7), seed=seed) for seed in range(4_000)]

    drawn = torch.tensor(choose(logits.repeat(4_000, 1), rows)).bincount(minlength=5) / 4_000

    assert torch.allclose(drawn, (logits / 0.7).softmax(-1), atol=0.03)


def test_noise_depends_on_seed_and_position() -> None:
    lanes = _mix(torch.arange(50_000, dtype=torch.int32))
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
