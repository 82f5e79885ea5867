"""transformers used plainly under the GPU benchmark: its continuous batching, and static batches."""

from __future__ import annotations

import time
from typing import Any

import torch
from transformers import GenerationConfig

from tests.bench.gpu.ours import Settings, memory, synchronize
from tests.bench.gpu.subjects import SHAPES, Work, random_model, workload
from workers.engine.quiet import quiet_transformers


def run_continuous(settings: Settings) -> dict[str, Any]:
    """Return the figures of `ContinuousBatchingManager` on the mixed job, each request with its own bound."""
    with quiet_transformers():
        model = _model(settings)
        config = GenerationConfig(max_new_tokens=256, do_sample=False, eos_token_id=-1, pad_token_id=0)
        manager = model.init_continuous_batching(generation_config=config)
        manager.start()
        try:
            # What is set up on first use stays out of the figures.
            _fed(manager, _work(settings)[:16], settings)
            figures = _fed(manager, _work(settings), settings)
        finally:
            manager.stop(block=True, timeout=20)
    return figures | memory(settings.device)


def _fed(manager: Any, work: list[Work], settings: Settings) -> dict[str, Any]:  # noqa: ANN401 -- transformers has no types
    begun = time.perf_counter()
    for each in work:
        manager.add_request(each.tokens, max_new_tokens=each.output)
    done = made = 0
    while done < len(work) and time.perf_counter() - begun < settings.seconds:
        result = manager.get_result(timeout=1)
        if result is not None and result.is_finished():
            done, made = done + 1, made + len(result.generated_tokens)
            if error := getattr(result, "error", None):
                raise RuntimeError(str(error)[:300])
        if result is None and not manager.is_running():
            raise RuntimeError("the manager stopped by itself")
    seconds = time.perf_counter() - begun
    return {
        "requests_done": done,
        # Of what was not finished when time was up nothing is known: then this is what it had finished.
        "is_complete": done == len(work),
        "seconds": round(seconds, 3),
        "output_tokens_per_second": round(made / seconds, 1),
    }


def run_static(settings: Settings) -> dict[str, Any]:
    """Return the figures of `generate` on batches of requests that end alike, padded on the left."""
    with quiet_transformers():
        model = _model(settings)
        report: dict[str, Any] = {"slots": {}}
        for size in settings.slots:
            try:
                report["slots"][str(size)] = _static(model, size, settings)
            except Exception as error:  # noqa: BLE001 -- the other sizes are still worth measuring
                report["slots"][str(size)] = {"error": f"{type(error).__name__}: {error}"[:500]}
    return report | memory(settings.device)


def _static(model: Any, size: int, settings: Settings) -> dict[str, Any]:  # noqa: ANN401 -- as above
    # The most favourable order for it: a batch runs as long as its longest answer.
    work = sorted(_work(settings), key=lambda each: each.output)
    groups = [work[i : i + size] for i in range(0, len(work), size)]
    made = done = 0
    synchronize(settings.device)
    begun = time.perf_counter()
    # From the middle outwards, so that what is done when time is up is not all short.
    for group in sorted(groups, key=lambda each: abs(groups.index(each) - len(groups) / 2)):
        if time.perf_counter() - begun > settings.seconds:
            break
        longest = max(len(each.tokens) for each in group)
        ids = torch.zeros(len(group), longest, dtype=torch.long)
        mask = torch.zeros(len(group), longest, dtype=torch.long)
        for row, each in enumerate(group):
            ids[row, longest - len(each.tokens) :] = torch.tensor(each.tokens)
            mask[row, longest - len(each.tokens) :] = 1
        steps = max(each.output for each in group)
        model.generate(
            ids.to(settings.device), attention_mask=mask.to(settings.device), max_new_tokens=steps,
            min_new_tokens=steps, do_sample=False, eos_token_id=None, pad_token_id=0,
        )  # fmt: skip
        # What it computes past a request's bound is given to nobody.
        made += sum(each.output for each in group)
        done += len(group)
    synchronize(settings.device)
    seconds = time.perf_counter() - begun
    return {
        "requests_done": done,
        "is_complete": done == len(work),
        "seconds": round(seconds, 3),
        "output_tokens_per_second": round(made / seconds, 1),
    }


def _model(settings: Settings) -> Any:  # noqa: ANN401 -- as above
    dtype = torch.float32 if settings.is_tiny and settings.device.type == "cpu" else torch.bfloat16
    return random_model(settings.shape, settings.device, dtype)


def _work(settings: Settings) -> list[Work]:
    vocabulary = SHAPES[settings.shape]["vocab_size"]
    return workload(settings.requests, vocabulary=vocabulary, scale=0.1 if settings.is_tiny else 1.0)
