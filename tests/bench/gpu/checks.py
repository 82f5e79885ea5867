"""Whether what only a card runs is right there: kernel, captured steps, fused operations, 8 bits, running out of memory."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from pipeline.domain.models import Recipe
from pipeline.domain.parameters import Sampling
from pipeline.ports.meters import EngineIdentity
from tests.bench.gpu.subjects import TokenIds, Work, random_model, requests_of, workload
from workers.engine.torch_chat.linear import Linear
from workers.engine.torch_chat.pointwise import PLAIN
from workers.engine.torch_chat.quantized import Float8Linear, Int8Linear, maker_of
from workers.engine.torch_chat.weights import LlamaWeights
from workers.engine.torch_flat.attention import FlashAttention, PlainAttention, Spans
from workers.engine.torch_flat.engine import FlatEngine, FlatOptions
from workers.engine.torch_flat.loading import flat_engine, pointwise_for
from workers.engine.torch_flat.sampling import Draw, draw

#: Largest relative error of bf16 arithmetic, of W8A8 in integers, and of E4M3.
BF16_ERROR = 0.02
INT8_ERROR = 0.03
FLOAT8_ERROR = 0.06


def run(device: torch.device) -> dict[str, Any]:
    """Return each check's figures and whether it passed; a check that breaks is a figure too."""
    report: dict[str, Any] = {}
    for name, check in CHECKS.items():
        try:
            report[name] = check(device)
        except Exception as error:  # noqa: BLE001 -- the other checks still tell something
            report[name] = {"passed": False, "error": f"{type(error).__name__}: {error}"[:800]}
        if device.type == "cuda":
            torch.cuda.empty_cache()
    report["passed"] = all(figures["passed"] is not False for figures in report.values())
    return report


def attention(device: torch.device) -> dict[str, Any]:
    """Compare the kernel with plain operations on ranges in any order, decoding and entering."""
    if device.type != "cuda":
        return {"passed": None, "why": "the kernel runs on cards only"}
    errors = {}
    for name, asked, begins, lengths in (
        ("decoding", [1] * 4, [512, 0, 1024, 64], [300, 17, 777, 1]),
        ("entering", [40, 7, 128], [640, 0, 1024], [40, 300, 500]),
    ):
        spans = Spans(
            queries=torch.tensor([0, *asked], device=device).cumsum(0).int(),
            begins=torch.tensor([*begins, 0], dtype=torch.int32, device=device),
            lengths=torch.tensor(lengths, dtype=torch.int32, device=device),
            queries_max=max(asked),
            lengths_max=4096,
        )
        queries = torch.randn(sum(asked), 32, 128, device=device).bfloat16()
        keys, values = (torch.randn(2048, 8, 128, device=device).bfloat16() for _ in range(2))
        wanted = PlainAttention()(queries.float(), keys.float(), values.float(), spans)
        errors[name] = relative(FlashAttention()(queries, keys, values, spans), wanted)
    return {"passed": max(errors.values()) < BF16_ERROR, "relative_errors": errors}


def products(device: torch.device) -> dict[str, Any]:
    """Compare 8-bit projections with float32 ones, at few and many rows, plain and fused."""
    errors = {}
    bounds = {"int8": INT8_ERROR, "float8": FLOAT8_ERROR}
    weight, bias = torch.randn(768, 512, device=device).bfloat16(), torch.randn(768, device=device).bfloat16()
    pointwise = pointwise_for(device, torch.bfloat16, FlatOptions())
    kinds: dict[str, Callable[..., Any]] = {"int8": Int8Linear}
    if device.type == "cuda":
        kinds["float8"] = Float8Linear
    for name, make in kinds.items():
        for operations in (PLAIN, pointwise):
            projection = make(weight, bias, operations)
            for rows in (1, 16, 17, 300):
                inputs = torch.randn(rows, 512, device=device).bfloat16()
                wanted = inputs.float() @ weight.float().t() + bias.float()
                key = f"{name} {'plain' if operations is PLAIN else 'fused'} {rows}"
                errors[key] = relative(projection(inputs), wanted)
    return {
        "passed": all(error < bounds[key.split()[0]] for key, error in errors.items()),
        "is_fused": pointwise is not PLAIN,
        "relative_errors": errors,
    }


def captured_steps(device: torch.device) -> dict[str, Any]:
    """Compare answers with and without captured steps: the same kernels on the same numbers, so nearly all equal."""
    work = workload(60, vocabulary=512, scale=0.3)
    captured = answers(device, work, FlatOptions(slots=16, graphs=True, fuse=False))
    plain = answers(device, work, FlatOptions(slots=16, graphs=False, fuse=False))
    fused = answers(device, work, FlatOptions(slots=16, graphs=True, fuse=True))
    shares = {"captured": alike(captured, plain), "fused": alike(fused, plain)}
    # How rows come to share a step differs by timing of nothing: one step behind or not is the same order.
    return {"passed": shares["captured"] > 0.98 and shares["fused"] > 0.5, "prefix_shares": shares}


def reference(device: torch.device) -> dict[str, Any]:
    """Compare greedy answers with transformers' own, one by one, in float32."""
    work = workload(24, vocabulary=512, scale=0.2)
    model = random_model("tiny", device, torch.float32)
    wanted = {}
    for key, each in enumerate(work):
        ids = torch.tensor([each.tokens], device=device)
        output = model.generate(
            ids, attention_mask=torch.ones_like(ids), max_new_tokens=each.output, min_new_tokens=each.output,
            do_sample=False, eos_token_id=None, pad_token_id=0,
        )  # fmt: skip
        wanted[key] = output[0, len(each.tokens) :].tolist()
    got = answers(device, work, FlatOptions(slots=8, graphs=True, fuse=False), dtype=torch.float32)
    share = alike(got, wanted)
    return {"passed": share > 0.95, "prefix_share": share}


def sampling(device: torch.device) -> dict[str, Any]:
    """Compare draws on the device with those on the processor."""
    logits = torch.randn(64, 5000) * 3
    draws = [
        Draw(place=i, sampling=Sampling(temperature=0.5 + i % 3, top_p=1 - 0.1 * (i % 4)), seed=i * 77, position=i % 9)
        for i in range(64)
    ]
    here, there = logits.argmax(-1), logits.argmax(-1).to(device)
    draw(logits.clone(), draws, here)
    draw(logits.to(device), draws, there)
    share = float((here == there.cpu()).float().mean())
    return {"passed": share > 0.95, "share_equal": share}


def out_of_memory(device: torch.device) -> dict[str, Any]:
    """Leave the process too little memory while rows run, and see every row answered."""
    if device.type != "cuda":
        return {"passed": None, "why": "a card's allocator is what is tested"}
    work = workload(40, vocabulary=512, scale=1.0)
    engine = engine_for(device, FlatOptions(slots=32, cache_bytes_max=2**30, prefill_tokens=4096, graphs=True))
    total = torch.cuda.get_device_properties(device).total_memory
    torch.cuda.empty_cache()
    try:
        torch.cuda.set_per_process_memory_fraction((torch.cuda.memory_reserved(device) + 2**20) / total, device)
        results = drained(engine, work)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0, device)
    statuses = [status for status, _ in results.values()]
    shrunk = engine._launcher.cache_tokens * engine._bytes_per_token < 0.9 * 2**30
    engine.close()
    is_whole = sorted(results) == list(range(len(work))) and set(statuses) == {200}
    return {"passed": is_whole and shrunk, "answered": statuses.count(200), "cache_shrunk": shrunk}


CHECKS: dict[str, Callable[[torch.device], dict[str, Any]]] = {
    "attention": attention,
    "products": products,
    "captured_steps": captured_steps,
    "reference": reference,
    "sampling": sampling,
    "out_of_memory": out_of_memory,
}


def engine_for(device: torch.device, options: FlatOptions, dtype: torch.dtype | None = None) -> FlatEngine:
    """Return an engine of the smallest model."""
    dtype = dtype or (torch.bfloat16 if device.type == "cuda" else torch.float32)
    pointwise = pointwise_for(device, dtype, options)
    weights = LlamaWeights(
        random_model("tiny", device, dtype), device=device, make=maker_of(Recipe.NATIVE, device, pointwise)
    )
    assert not isinstance(weights.layers[0].qkv, Int8Linear)
    assert isinstance(weights.head, Linear)
    return flat_engine(
        "bench",
        weights,
        context_tokens=2048,
        options=options,
        pointwise=pointwise,
        free_bytes=None if device.type == "cuda" else lambda: 2**30,
        tokenizer=TokenIds(),
        end_tokens=frozenset(),
        identity=EngineIdentity(engine="torch"),
    )


def answers(
    device: torch.device, work: list[Work], options: FlatOptions, dtype: torch.dtype | None = None
) -> dict[int, list[int]]:
    """Return the tokens of each answer."""
    engine = engine_for(device, options, dtype)
    results = drained(engine, work)
    engine.close()
    return {key: [int(word) for word in text.split()] for key, (_, text) in results.items()}


def drained(engine: FlatEngine, work: list[Work]) -> dict[int, tuple[int, str]]:
    """Return status and text of each request."""
    engine.add(requests_of(work))
    results = {}
    while engine.in_flight():
        for result in engine.step():
            assert result.key not in results, "a row came back twice"
            text = result.body["choices"][0]["text"] if result.status_code == 200 else str(result.body)
            results[result.key] = (result.status_code, text)
    return results


def alike(got: dict[int, list[int]], wanted: dict[int, list[int]]) -> float:
    """Return the mean share of an answer that begins as the other does."""
    shares = []
    for key, tokens in wanted.items():
        same = next((i for i, (a, b) in enumerate(zip(got[key], tokens, strict=True)) if a != b), len(tokens))
        shares.append(same / len(tokens))
    return round(sum(shares) / len(shares), 4)


def relative(got: Tensor, wanted: Tensor) -> float:
    """Return the relative error in the 2-norm."""
    return round(float((got.double() - wanted.double()).norm() / wanted.double().norm()), 6)
