from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as some
from torch import Tensor

from pipeline.domain.parameters import Sampling
from workers.engine.grammars import Matcher
from workers.engine.torch_chat.sampler import choose
from workers.engine.torch_flat.attention import FlashAttention, PlainAttention, Spans
from workers.engine.torch_flat.extents import GRAIN_TOKENS, Extents, grains
from workers.engine.torch_flat.sampling import Draw, draw, is_plain
from workers.engine.torch_flat.sizes import ModelSizes, cache_tokens, step_bytes

# --- extents -----------------------------------------------------------------------------------


@given(some.lists(some.tuples(some.booleans(), some.integers(1, 300)), max_size=60), some.integers(0, 2000))
def test_ranges_never_overlap_and_all_come_back(moves: list[tuple[bool, int]], tokens: int) -> None:
    extents = Extents(grains(tokens), kept=GRAIN_TOKENS)
    whole = extents.free_tokens
    held: list[tuple[int, int]] = []

    for takes, number in moves:
        if takes:
            begin = extents.take(number)
            if begin is not None:
                held.append((begin, number))
        elif held:
            extents.give(*held.pop(number % len(held)))
        taken = sorted((begin, begin + grains(count)) for begin, count in held)
        assert all(end <= begin for (_, end), (begin, _) in pairwise(taken))
        assert all(begin >= GRAIN_TOKENS and end <= grains(tokens) for begin, end in taken)
        assert extents.free_tokens == whole - sum(grains(count) for _, count in held)

    for begin, count in held:
        extents.give(begin, count)
    assert whole == 0 or extents.take(whole) == GRAIN_TOKENS


def test_a_range_freed_twice_is_our_own_defect() -> None:
    extents = Extents(640)
    begin = extents.take(30)
    assert begin is not None
    extents.give(begin, 30)

    with pytest.raises(AssertionError, match="twice"):
        extents.give(begin, 30)


# --- attention ---------------------------------------------------------------------------------


def spans(asked: list[int], begins: list[int], lengths: list[int]) -> Spans:
    ends = torch.tensor([0, *asked]).cumsum(0).int()
    return Spans(
        queries=ends,
        begins=torch.tensor([*begins, 0], dtype=torch.int32),
        lengths=torch.tensor(lengths, dtype=torch.int32),
        queries_max=max(asked),
        lengths_max=max(lengths) + 5,
    )


def one_by_one(queries: Tensor, keys: Tensor, values: Tensor, wanted: Spans) -> Tensor:
    output = torch.empty_like(queries)
    group = queries.shape[1] // keys.shape[1]
    for row, length in enumerate(wanted.lengths.tolist()):
        first, end = wanted.queries[row : row + 2].tolist()
        begin = int(wanted.begins[row])
        for index in range(first, end):
            seen = slice(begin, begin + length - (end - 1 - index))
            k, v = (cache[seen].repeat_interleave(group, 1) for cache in (keys, values))
            weights = (torch.einsum("hd,khd->hk", queries[index], k) * queries.shape[-1] ** -0.5).softmax(-1)
            output[index] = torch.einsum("hk,khd->hd", weights, v)
    return output


@pytest.mark.parametrize(
    ("asked", "begins", "lengths"),
    [
        ([1, 1, 1], [64, 0, 16], [9, 14, 1]),
        ([5, 2, 7], [40, 0, 80], [5, 12, 19]),
        ([4], [91], [8]),
    ],
)
def test_plain_attention_sees_each_rows_own_range_up_to_its_query(
    asked: list[int], begins: list[int], lengths: list[int]
) -> None:
    generator = torch.Generator().manual_seed(1)
    keys, values = (torch.randn(100, 2, 8, generator=generator) for _ in range(2))
    queries = torch.randn(sum(asked), 6, 8, generator=generator)
    wanted = spans(asked, begins, lengths)

    output = PlainAttention()(queries, keys, values, wanted)

    assert torch.allclose(output, one_by_one(queries, keys, values, wanted), atol=1e-5)


@pytest.mark.parametrize("asked", [[1, 1, 1], [5, 2, 7]])
def test_the_kernel_is_called_as_this_torch_declares_it(asked: list[int]) -> None:
    def moved(tensor: Tensor) -> Tensor:
        return tensor.to("meta")

    wanted = spans(asked, [64, 0, 16], [9, 14, 8])
    far = Spans(moved(wanted.queries), moved(wanted.begins), moved(wanted.lengths), wanted.queries_max, 100)
    queries = torch.empty(sum(asked), 6, 8, dtype=torch.bfloat16, device="meta")
    cache = torch.empty(100, 2, 8, dtype=torch.bfloat16, device="meta")

    assert FlashAttention()(queries, cache, cache, far).shape == queries.shape
    names = [argument.name for argument in torch.ops.aten._flash_attention_forward.default._schema.arguments]
    assert names[:10] == [
        "query", "key", "value", "cum_seq_q", "cum_seq_k", "max_q", "max_k", "dropout_p", "is_causal",
        "return_debug_mask",
    ]  # fmt: skip


# --- sampling ----------------------------------------------------------------------------------


@dataclass
class Row:
    sampling: Sampling
    seed: int
    output: list[int] = field(default_factory=list)
    prompt: list[int] = field(default_factory=list)
    ends: frozenset[int] = frozenset()
    matcher: Matcher | None = None
    is_adjusted: bool = False


def test_draws_on_the_device_are_those_of_the_host() -> None:
    logits = torch.randn(40, 3000, generator=torch.Generator().manual_seed(2)) * 3
    rows = [
        Row(Sampling(temperature=(i % 5) * 0.4, top_p=1.0 - (i % 3) * 0.3), seed=i * 7919 - 40, output=[0] * (i % 9))
        for i in range(40)
    ]
    chosen = logits.argmax(dim=-1)
    draws = [
        Draw(place=place, sampling=row.sampling, seed=row.seed, position=len(row.output))
        for place, row in enumerate(rows)
        if row.sampling.temperature
    ]

    draw(logits, draws, chosen)

    assert chosen.tolist() == choose(logits.clone(), rows)


def test_only_rows_that_need_nothing_of_their_answer_are_plain() -> None:
    assert is_plain(Sampling(max_tokens=3, temperature=0.2, top_p=0.5, stop=("x",), seed=4))
    assert is_plain(Sampling(n=3, stop_token_ids=(4,), ignore_eos=True))
    assert not is_plain(Sampling(logprobs=0))
    assert not is_plain(Sampling(top_k=5))
    assert not is_plain(Sampling(presence_penalty=0.1))
    assert not is_plain(Sampling(frequency_penalty=-0.1))


# --- sizes -------------------------------------------------------------------------------------

EIGHT_BILLION = ModelSizes(hidden=4096, intermediate=14336, attention=6144, vocabulary=128256, element_bytes=2)


def test_the_cache_leaves_a_tenth_and_what_a_step_needs() -> None:
    step = step_bytes(EIGHT_BILLION, tokens=8192, rows=512)

    tokens = cache_tokens(
        free_bytes=120 * 2**30, bytes_max=0, bytes_per_token=131_072, step=step, rows=4096, context_tokens=131_072
    )

    assert 2 * 2**30 < step < 8 * 2**30
    assert tokens % GRAIN_TOKENS == 0
    left = 120 * 2**30 - tokens * 131_072 - step
    assert 12 * 2**30 <= left < 12 * 2**30 + 16 * 131_072 + 1


@pytest.mark.parametrize(
    ("change", "tokens"),
    [({"bytes_max": 1_600_000}, 1600), ({"rows": 2, "context_tokens": 100}, 336), ({"free_bytes": 0}, 0)],
)
def test_the_cache_stays_within_the_operators_bound_and_what_rows_can_fill(change: dict[str, int], tokens: int) -> None:
    settings = {"free_bytes": 10**9, "bytes_max": 0, "bytes_per_token": 1000, "step": 1000, "rows": 10**4}

    assert cache_tokens(**{**settings, "context_tokens": 10**4, **change}) == tokens
