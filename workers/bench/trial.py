"""One variant on the workload, in a process of its own, so that its memory is its own too."""

from __future__ import annotations

import multiprocessing
import resource
import time
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Final

from pipeline.domain.endpoints import Endpoint
from pipeline.domain.errors import ModelUnavailableError
from pipeline.domain.models import DeviceClass, ModelSpec, Recipe
from workers.bench.roofline import Roofline, measure_roofline, need_of
from workers.bench.workload import chat_requests, mixed_asks
from workers.engine.choice import device_class
from workers.engine.drive import driven
from workers.engine.models import prepared_folder
from workers.engine.registry import load_engine

_OK: Final = 200
#: Weights of the recipes that do not hold them in 16 bits.
_BYTES_PER_WEIGHT: Final = {
    Recipe.FLOAT32: 4.0,
    Recipe.INT8: 1.0,
    Recipe.INT8_WEIGHTS: 1.0,
    Recipe.FLOAT8: 1.0,
    Recipe.INT4_WEIGHTS: 0.5,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """What every variant is given."""

    prompts: int
    cache_dir: Path
    device: str | None
    threads: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """What one variant made of it."""

    variant: str
    engine: str
    fingerprint: str
    load_seconds: float
    seconds: float
    input_tokens: int
    output_tokens: int
    steps: int | None
    memory_peak_bytes: int
    #: The least seconds the work needs on this device, by its measured roofline.
    roofline_seconds: float
    roofline: Roofline
    #: The answers, in the order of the workload.
    answers: tuple[str, ...]

    @property
    def output_tokens_per_second(self) -> float:
        """Return the throughput of answers."""
        return self.output_tokens / self.seconds

    @property
    def tokens_per_second(self) -> float:
        """Return the throughput of prompts and answers."""
        return (self.input_tokens + self.output_tokens) / self.seconds


def run_trial(spec: ModelSpec, task: Task) -> Trial:
    """Return what `spec` made of the workload; raises `ModelUnavailableError`."""
    context = multiprocessing.get_context("spawn")
    try:
        with ProcessPoolExecutor(1, mp_context=context) as pool:
            return pool.submit(_trial, spec, task).result()
    except BrokenProcessPool as error:
        raise ModelUnavailableError(f"{spec.variant} brought its process down, for lack of memory perhaps") from error


def likeness(answers: tuple[str, ...], reference: tuple[str, ...]) -> tuple[float, float]:
    """Return the share of equal answers, and the mean share of an answer that its beginning has in common."""
    equal = [mine == theirs for mine, theirs in zip(answers, reference, strict=True)]
    common = [_common_share(mine, theirs) for mine, theirs in zip(answers, reference, strict=True)]
    return sum(equal) / len(equal), sum(common) / len(common)


def _common_share(mine: str, theirs: str) -> float:
    longest = max(len(mine), len(theirs))
    common = next(
        (i for i, (a, b) in enumerate(zip(mine, theirs, strict=False)) if a != b), min(len(mine), len(theirs))
    )
    return common / longest if longest else 1.0


def _trial(spec: ModelSpec, task: Task) -> Trial:
    spec = replace(spec, options={"ignore_end": True, **spec.options})
    folder = prepared_folder(spec.source, cache_dir=task.cache_dir, revision=spec.revision)
    began_at = time.perf_counter()
    engine = load_engine(spec, cache_dir=task.cache_dir, device=task.device, threads=task.threads)
    load_seconds = time.perf_counter() - began_at
    chats = Endpoint.CHAT_COMPLETIONS in engine.endpoints
    endpoint = Endpoint.CHAT_COMPLETIONS if chats else Endpoint.COMPLETIONS
    rows = list(islice(chat_requests(mixed_asks(), model=engine.model, endpoint=endpoint), task.prompts))
    answers: dict[int, str] = {}
    used = made = 0
    began_at = time.perf_counter()
    for result in driven(engine, rows):
        if result.status_code != _OK:
            said = result.body.get("error", {}).get("message", result.status_code)
            raise ModelUnavailableError(f"{spec.variant} cannot run the workload: {said}")
        choice = result.body["choices"][0]
        answers[result.key] = choice["message"]["content"] if chats else choice["text"]
        used, made = used + result.input_tokens, made + result.output_tokens
    seconds = time.perf_counter() - began_at
    memory_peak_bytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    steps = engine.meters().engine_steps
    identity = engine.identity
    engine.close()
    is_cpu = device_class(task.device) is DeviceClass.CPU
    roofline = measure_roofline(
        device="cpu" if is_cpu else (task.device or "cuda:0"),
        precision="bfloat16" if not is_cpu or _has_bf16() else "float32",
        threads=task.threads,
    )
    need = need_of(
        folder,
        input_tokens=used,
        output_tokens=made,
        steps=steps,
        bytes_per_weight=_BYTES_PER_WEIGHT.get(spec.recipe, 2.0),
    )
    return Trial(
        variant=spec.variant,
        engine=engine.name,
        fingerprint=identity.fingerprint,
        load_seconds=load_seconds,
        seconds=seconds,
        input_tokens=used,
        output_tokens=made,
        steps=steps,
        memory_peak_bytes=memory_peak_bytes,
        roofline_seconds=need.seconds(roofline),
        roofline=roofline,
        answers=tuple(answers[key] for key in sorted(answers)),
    )


def _has_bf16() -> bool:
    from workers.engine.torch_chat.linear import has_fast_bf16

    return has_fast_bf16()
