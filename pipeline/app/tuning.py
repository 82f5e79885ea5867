"""The best batch of a variant on this machine, found, recorded, and used by the workers that come after."""

from __future__ import annotations

import platform
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Final

from pipeline.app.models import load_here
from pipeline.app.stack import Stack
from pipeline.config import Settings
from pipeline.domain.endpoints import Endpoint
from pipeline.domain.errors import UsageError
from pipeline.domain.models import EngineKind, ModelSpec
from pipeline.ports.engine import Engine, EngineRequest
from pipeline.ports.variants import Tuning

if TYPE_CHECKING:  # the engines are imported by who tunes
    from workers.tune.search import Probe
    from workers.tune.tuner import Tuned

#: Memory for keys and values that the ceiling is worked out for, as the engines' own defaults have it.
_CACHE_BYTES: Final = 2 * 1024**3
#: Mean lengths of the workload (see `workers.bench.workload`), template included.
_PROMPT_TOKENS: Final = 150.0
_OUTPUT_TOKENS: Final = 58.0


def tune_variant(stack: Stack, spec: ModelSpec, *, on_probe: Callable[[Probe], None], window_seconds: float) -> Tuned:
    """Probe the variant at growing batches, and record the smallest that is within 2 % of the fastest.

    Raises:
        UsageError: The variant generates no text.
        ModelUnavailableError: It cannot be loaded here, or fits at no size.
    """
    from workers.bench.workload import chat_requests, mixed_asks
    from workers.engine.models import prepared_folder
    from workers.tune.ceiling import rows_ceiling
    from workers.tune.probing import Patience
    from workers.tune.tuner import tune

    if spec.engine in {EngineKind.ENCODER, EngineKind.VISION, EngineKind.ECHO}:
        raise UsageError(
            f"{spec.variant} generates no text: there is no batch to tune", hint="encoders fit theirs as they run"
        )
    settings = stack.settings
    folder = prepared_folder(spec.source, cache_dir=settings.home_folder / "models", revision=spec.revision)

    def load(size: int) -> Engine:
        return load_here(settings, replace(spec, options={**spec.options, "slots": size, "ignore_end": True}))

    def rows(engine: Engine) -> Iterator[EngineRequest]:
        endpoint = Endpoint.CHAT_COMPLETIONS
        if endpoint not in engine.endpoints:
            endpoint = Endpoint.COMPLETIONS
        return chat_requests(mixed_asks(), model=engine.model, endpoint=endpoint)

    found = tune(
        load,
        rows,
        ceiling=rows_ceiling(
            folder, cache_bytes=_CACHE_BYTES, prompt_tokens=_PROMPT_TOKENS, output_tokens=_OUTPUT_TOKENS
        ),
        now=time.monotonic,
        patience=Patience(window_seconds=window_seconds),
        on_probe=on_probe,
    )
    stack.registry.tune(
        Tuning(
            variant=spec.variant,
            gate_key=_key_of(spec, settings),
            device=device_of(settings),
            options={"slots": found.best.size},
            figures={"probes": [asdict(probe) for probe in found.probes]},
        )
    )
    return found


def tuned(spec: ModelSpec, tunings: Iterable[Tuning], settings: Settings) -> ModelSpec:
    """Return the variant with the options found for it on such a device; what it was added with wins."""
    options: Mapping[str, int] = {}
    for tuning in tunings:
        is_ours = tuning.variant == spec.variant and tuning.device == device_of(settings)
        if is_ours and tuning.gate_key == _key_of(spec, settings):
            options = tuning.options
    return replace(spec, options={**options, **spec.options})


def device_of(settings: Settings) -> str:
    """Return what the best batch depends on: the accelerator, or the processor and how many threads work."""
    from workers.accelerators import find_accelerators

    found = find_accelerators() if settings.device != "cpu" else []
    if found:
        return found[0].name
    return f"{platform.machine()} x{settings.engine_threads}"


def _key_of(spec: ModelSpec, settings: Settings) -> str:
    from workers.gate.identity import served_key

    return served_key(spec, settings.device)
