"""What the card can do, measured: products by type, copies; and the least time a step could take by them."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch


def timed(work: Callable[[], object], device: torch.device, *, repeats: int = 10, warm: int = 3) -> float:
    """Return the median seconds of `work`, by device events on CUDA."""
    for _ in range(warm):
        work()
    if device.type != "cuda":
        return sorted(_by_clock(work) for _ in range(repeats))[repeats // 2]
    spans = []
    for _ in range(repeats):
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        work()
        end.record()
        end.synchronize()
        spans.append(begin.elapsed_time(end) / 1000)
    return sorted(spans)[repeats // 2]


def _by_clock(work: Callable[[], object]) -> float:
    begin = time.perf_counter()
    work()
    return time.perf_counter() - begin


def measure(device: torch.device, *, is_tiny: bool) -> dict[str, Any]:
    """Return products per second by type (multiply and add are two) and bytes per second of a copy, both counted."""
    side = 256 if is_tiny else 8192
    report: dict[str, Any] = {"side": side}
    for name, make in _PRODUCTS.items():
        if name != "bf16" and device.type != "cuda":
            continue
        try:
            seconds = timed(make(side, device), device)
            report[f"{name}_tflops"] = round(2 * side**3 / seconds / 1e12, 3)
        except Exception as error:  # noqa: BLE001 -- a card without this type is a finding
            report[f"{name}_error"] = f"{type(error).__name__}: {error}"[:300]
    count = 2**20 if is_tiny else 2**31
    source = torch.empty(count, dtype=torch.uint8, device=device).random_(0, 255)
    target = torch.empty_like(source)
    seconds = timed(lambda: target.copy_(source), device)
    report["copy_gb_per_second"] = round(2 * count / seconds / 1e9, 2)
    return report


def _bf16(side: int, device: torch.device) -> Callable[[], object]:
    left, right = (torch.randn(side, side, device=device).bfloat16() for _ in range(2))
    return lambda: left @ right.t()


def _int8(side: int, device: torch.device) -> Callable[[], object]:
    left, right = (torch.randint(-127, 128, (side, side), dtype=torch.int8, device=device) for _ in range(2))
    return lambda: torch._int_mm(left, right.t())


def _float8(side: int, device: torch.device) -> Callable[[], object]:
    left, right = (torch.randn(side, side, device=device).to(torch.float8_e4m3fn) for _ in range(2))
    rows = torch.ones(side, 1, device=device)
    columns = torch.ones(1, side, device=device)
    return lambda: torch._scaled_mm(left, right.t(), rows, columns, out_dtype=torch.bfloat16, use_fast_accum=True)


_PRODUCTS = {"bf16": _bf16, "int8": _int8, "float8": _float8}


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """A model's part in the least time of a step."""

    #: Weights that every token is multiplied by, the output head apart, and what they take.
    body_parameters: int
    body_bytes: int
    head_parameters: int
    head_bytes: int
    kv_bytes_per_token: int


def decode_floor_seconds(model: Model, *, rows: int, context: float, flops: float, bandwidth: float) -> float:
    """Return the least time of a step of `rows` rows, each with `context` tokens behind it: bytes or products."""
    read = model.body_bytes + model.head_bytes + rows * context * model.kv_bytes_per_token
    products = 2 * rows * (model.body_parameters + model.head_parameters)
    return max(read / bandwidth, products / flops)


def prefill_floor_seconds(model: Model, *, tokens: int, rows: int, flops: float) -> float:
    """Return the least time of `tokens` prompt tokens of `rows` rows, attention's own products left out."""
    return 2 * (tokens * model.body_parameters + rows * model.head_parameters) / flops
