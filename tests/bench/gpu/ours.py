"""Nightrate's engine under the GPU benchmark: a mixed job, decoding alone, prompts alone, and memory."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import torch

from pipeline.domain.models import Recipe
from pipeline.ports.meters import EngineIdentity
from tests.bench.gpu.roofline import Model, decode_floor_seconds, prefill_floor_seconds
from tests.bench.gpu.subjects import (
    CONTEXT_TOKENS,
    SHAPES,
    TokenIds,
    Work,
    even_work,
    random_model,
    requests_of,
    workload,
)
from workers.engine.torch_chat.quantized import Float8Linear, Int8Linear, maker_of
from workers.engine.torch_chat.weights import LlamaWeights
from workers.engine.torch_flat.engine import FlatEngine, FlatOptions
from workers.engine.torch_flat.loading import flat_engine, pointwise_for


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What one part measures."""

    shape: str
    recipe: Recipe
    slots: tuple[int, ...]
    device: torch.device
    is_tiny: bool
    #: Time for each measurement; what has been done by then counts.
    seconds: float
    #: Time for all of them together, after which none is begun.
    limit: float
    requests: int
    graphs: bool = True
    fuse: bool = True
    #: Measured products and bytes per second; None leaves fractions out.
    flops: float | None = None
    bandwidth: float | None = None


def run(settings: Settings) -> dict[str, Any]:
    """Return the figures of one recipe at each number of slots."""
    device = settings.device
    dtype = torch.float32 if settings.is_tiny and device.type == "cpu" else torch.bfloat16
    begun = time.perf_counter()
    model = random_model(settings.shape, device, dtype)
    made = time.perf_counter()
    options = FlatOptions(fuse=settings.fuse)
    pointwise = pointwise_for(device, dtype, options)
    weights = LlamaWeights(model, device=device, make=maker_of(settings.recipe, device, pointwise))
    del model
    synchronize(device)
    report: dict[str, Any] = {
        "random_model_seconds": round(made - begun, 2),
        "quantize_and_lay_out_seconds": round(time.perf_counter() - made, 2),
        "is_fused": pointwise is not pointwise_for(device, dtype, FlatOptions(fuse=False)),
        "weights_gib": gib(allocated(device)),
        "slots": {},
    }
    longest = 0.0
    for slots in settings.slots:
        # A part that is stopped leaves nothing; one that stops itself leaves what it has.
        if time.perf_counter() - begun + longest > settings.limit:
            report["slots"][str(slots)] = {"skipped": "no time was left"}
            continue
        started = time.perf_counter()
        try:
            report["slots"][str(slots)] = _at(slots, settings, weights, pointwise)
        except Exception as error:  # noqa: BLE001 -- the other sizes are still worth measuring
            report["slots"][str(slots)] = {"error": f"{type(error).__name__}: {error}"[:500]}
        longest = max(longest, time.perf_counter() - started)
    return report


def _at(slots: int, settings: Settings, weights: LlamaWeights, pointwise: Any) -> dict[str, Any]:  # noqa: ANN401 -- passed on
    device = settings.device
    engine = flat_engine(
        "bench",
        weights,
        context_tokens=CONTEXT_TOKENS,
        options=FlatOptions(slots=slots, lookahead=slots, graphs=settings.graphs, ignore_end=True),
        pointwise=pointwise,
        free_bytes=None if device.type == "cuda" else lambda: 4 * 2**30,
        tokenizer=TokenIds(),
        end_tokens=frozenset(),
        identity=EngineIdentity(engine="torch"),
    )
    vocabulary = SHAPES[settings.shape]["vocab_size"]
    scale = 0.1 if settings.is_tiny else 1.0
    try:
        report: dict[str, Any] = {"cache_tokens": engine._launcher.cache_tokens}
        # Captures and compiles everything that the measured run will meet.
        begun = time.perf_counter()
        mixed(
            engine, workload(min(slots + slots // 4, settings.requests), vocabulary=vocabulary, scale=scale), settings
        )
        report["warm_up_seconds"] = round(time.perf_counter() - begun, 2)
        report["mixed"] = mixed(engine, workload(settings.requests, vocabulary=vocabulary, scale=scale), settings)
        report["decode"] = decode(engine, slots, settings, weights)
        report["prefill"] = prefill(engine, settings, weights)
        report |= memory(device)
    finally:
        engine.close()
        if device.type == "cuda":
            torch.cuda.empty_cache()
    return report


def mixed(engine: FlatEngine, work: list[Work], settings: Settings) -> dict[str, Any]:
    """Run a job through the engine as the worker does, until it is done or time is up."""
    rows = requests_of(work)
    before = engine.meters()
    begun = time.perf_counter()
    done = 0
    while (rows or engine.in_flight()) and time.perf_counter() - begun < settings.seconds:
        if rows and (room := engine.room()):
            engine.add(rows[:room])
            del rows[:room]
        for result in engine.step():
            assert result.status_code == 200, result.body
            done += 1
    is_complete = not rows and not engine.in_flight()
    engine.abort(range(len(work)))
    synchronize(settings.device)
    seconds = time.perf_counter() - begun
    after = engine.meters()
    made, read = (
        (getattr(after, name) or 0) - (getattr(before, name) or 0) for name in ("tokens_generated", "tokens_prefilled")
    )
    busy, could = ((getattr(after, n) or 0) - (getattr(before, n) or 0) for n in ("slot_steps_busy", "slot_steps"))
    return {
        "requests_done": done,
        "is_complete": is_complete,
        "seconds": round(seconds, 3),
        "output_tokens_per_second": round(made / seconds, 1),
        "tokens_per_second": round((made + read) / seconds, 1),
        "steps": after.engine_steps - before.engine_steps,
        "occupancy": round(busy / max(could, 1), 4),
    }


def decode(engine: FlatEngine, rows: int, settings: Settings, weights: LlamaWeights) -> dict[str, Any]:
    """Time steps that only decode, with every slot taken by rows of one length."""
    prompt, steps = (20, 6) if settings.is_tiny else (512, 64)
    vocabulary = SHAPES[settings.shape]["vocab_size"]
    # The first rows decode while the last ones enter.
    before = rows * prompt // FlatOptions().prefill_tokens + 20
    engine.add(requests_of(even_work(rows, prompt, before + steps, vocabulary=vocabulary)))
    limit = time.perf_counter() + settings.seconds
    while any(not flight.is_decoding for flight in engine._flights.flying) or engine._running() < rows:
        assert not engine.step(), "no row may end before all have entered"
        if time.perf_counter() > limit:
            engine.abort(range(rows))
            return {"error": f"{engine._running()} of {rows} rows had entered when time was up"}
    for _ in range(4):
        engine.step()
    lengths = [len(f.sequence) + f.launched for f in engine._flights.flying]
    synchronize(settings.device)
    begun = time.perf_counter()
    for _ in range(steps):
        engine.step()
    synchronize(settings.device)
    seconds = (time.perf_counter() - begun) / steps
    engine.abort(range(rows))
    engine.step()
    context = sum(lengths) / len(lengths) + steps / 2
    report = {
        "rows": rows,
        "context": round(context, 1),
        "step_milliseconds": round(seconds * 1000, 3),
        "output_tokens_per_second": round(rows / seconds, 1),
    }
    if settings.flops and settings.bandwidth:
        floor = decode_floor_seconds(
            model_of(weights), rows=rows, context=context, flops=settings.flops, bandwidth=settings.bandwidth
        )
        report |= {"floor_milliseconds": round(floor * 1000, 3), "fraction_of_roofline": round(floor / seconds, 3)}
    return report


def prefill(engine: FlatEngine, settings: Settings, weights: LlamaWeights) -> dict[str, Any]:
    """Time prompts whose answers are one token."""
    prompt, count = (40, 8) if settings.is_tiny else (1024, 64)
    work = even_work(count, prompt, 1, vocabulary=SHAPES[settings.shape]["vocab_size"])
    figures = mixed(engine, work, settings)
    seconds = figures["seconds"]
    report = {"prompt_tokens": prompt, "prompt_tokens_per_second": round(prompt * count / seconds, 1)}
    if settings.flops:
        floor = prefill_floor_seconds(model_of(weights), tokens=prompt * count, rows=count, flops=settings.flops)
        report["fraction_of_roofline"] = round(floor / seconds, 3)
    return report


def model_of(weights: LlamaWeights) -> Model:
    """Return the sizes that the least time depends on."""
    hidden, vocabulary = weights.embedding.shape[1], weights.embedding.shape[0]
    attention = (2 * weights.heads + 2 * weights.key_heads) * weights.head_dim * hidden
    body = len(weights.layers) * (attention + 3 * weights.intermediate * hidden)
    is_eight_bit = isinstance(weights.layers[0].qkv, Int8Linear | Float8Linear)
    return Model(
        body_parameters=body,
        body_bytes=body if is_eight_bit else body * weights.embedding.dtype.itemsize,
        head_parameters=hidden * vocabulary,
        head_bytes=hidden * vocabulary * weights.embedding.dtype.itemsize,
        kv_bytes_per_token=weights.cache_shape.bytes_per_token,
    )


def memory(device: torch.device) -> dict[str, Any]:
    """Return what the card holds at its highest, and what is left."""
    if device.type != "cuda":
        return {}
    free, total = torch.cuda.mem_get_info(device)
    return {
        "peak_allocated_gib": gib(torch.cuda.max_memory_allocated(device)),
        "reserved_gib": gib(torch.cuda.memory_reserved(device)),
        "free_gib": gib(free),
        "headroom": round(free / total, 4),
    }


def allocated(device: torch.device) -> int:
    """Return the bytes that tensors hold on the card; 0 elsewhere."""
    return torch.cuda.memory_allocated(device) if device.type == "cuda" else 0


def gib(count: int) -> float:
    """Return bytes in GiB, to two digits."""
    return round(count / 2**30, 2)


def synchronize(device: torch.device) -> None:
    """Wait for the device."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
