"""From a model's reference to what judges by it: its logits where it generates text, else the engine itself."""

from __future__ import annotations

from typing import Final

from pipeline.domain.errors import ModelUnavailableError
from pipeline.domain.models import EngineKind, ModelSpec
from workers.engine.choice import engine_for
from workers.engine.registry import load_engine
from workers.gate.answer_reader import AnswerReader
from workers.gate.sides import Bench, folder_of, open_logits_reader
from workers.shadow.judge import Reference
from workers.shadow.vectors import EngineReference

#: Engines whose answers are vectors, scores or classes, and are compared as such.
_ANSWERING_BY_VECTORS: Final = frozenset({EngineKind.ENCODER, EngineKind.VISION})


def open_reference(spec: ModelSpec, bench: Bench) -> Reference:
    """Load the reference `spec` to judge by; raises `ModelUnavailableError`."""
    assert spec.is_reference, spec.variant
    if engine_for(spec, bench.device) in _ANSWERING_BY_VECTORS:
        engine = load_engine(spec, cache_dir=bench.cache_dir, device=bench.device, threads=bench.threads)
        return EngineReference(engine)
    logits = open_logits_reader(spec, bench)
    if logits is None:
        raise ModelUnavailableError(f"{spec.variant} shows no logits to judge by")
    return AnswerReader.over(folder_of(spec, bench), logits)
