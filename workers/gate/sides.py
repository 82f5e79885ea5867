"""From two variants to what the gate compares: engines, identities, and where their logits can be read."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.domain.errors import ModelUnavailableError
from pipeline.domain.models import DeviceClass, EngineKind, ModelSpec, Recipe
from workers.engine.choice import device_class, engine_for
from workers.engine.models import prepared_folder
from workers.engine.registry import load_engine
from workers.engine.revision import revision_of
from workers.gate.identity import identity_of
from workers.gate.logits import LogitsReader, open_reader
from workers.gate.qualification import Logits, Side

if TYPE_CHECKING:  # as in `contest`
    from workers.gate.answer_reader import AnswerReader

#: What transformers' own modules compute in; the other recipes of the torch engine are its own.
_PLAIN = {Recipe.NATIVE: "float32", Recipe.FLOAT32: "float32", Recipe.BFLOAT16: "bfloat16", Recipe.FLOAT16: "float16"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Bench:
    """Where both variants run."""

    cache_dir: Path
    device: str | None
    threads: int | None


@contextmanager
def open_side(spec: ModelSpec, bench: Bench) -> Iterator[Side]:
    """Load a variant for the block; raises `ModelUnavailableError`."""
    engine = load_engine(spec, cache_dir=bench.cache_dir, device=bench.device, threads=bench.threads)
    revision = ""
    if spec.engine is not EngineKind.ECHO:
        revision = revision_of(folder_of(spec, bench), cache_dir=bench.cache_dir)
    try:
        yield Side(engine=engine, identity=identity_of(spec, bench.device, revision=revision))
    finally:
        engine.close()


@contextmanager
def open_logits(variant: ModelSpec, reference: ModelSpec, bench: Bench) -> Iterator[Logits | None]:
    """Open both variants' logits for the block; None where one of them shows none."""
    with ExitStack() as resources:
        readers: list[LogitsReader] = []
        for spec in (variant, reference):
            reader = open_logits_reader(spec, bench)
            if reader is None:
                yield None
                return
            resources.callback(reader.close)
            readers.append(reader)
        yield Logits(variant=readers[0], reference=readers[1], tokenizer_folder=folder_of(reference, bench))


@contextmanager
def open_answer_reader(reference: ModelSpec, bench: Bench) -> Iterator[AnswerReader | None]:
    """Open for the block what reads answers by a reference that generates text; None where it shows no logits."""
    from workers.gate.answer_reader import AnswerReader

    logits = open_logits_reader(reference, bench)
    if logits is None:
        yield None
        return
    reader = AnswerReader.over(folder_of(reference, bench), logits)
    try:
        yield reader
    finally:
        reader.close()


def open_logits_reader(spec: ModelSpec, bench: Bench) -> LogitsReader | None:
    """Open one variant's logits; None where its recipe or its form shows none."""
    engine = engine_for(spec, bench.device)
    if engine is EngineKind.TORCH and spec.recipe in _PLAIN:
        dtype = _PLAIN[spec.recipe]
        if spec.recipe is Recipe.NATIVE and device_class(bench.device) is DeviceClass.CUDA:
            # What the engine computes in there; twice the width would be twice the memory.
            dtype = "bfloat16"
        return open_reader(folder_of(spec, bench), device=bench.device, dtype=dtype)
    if engine is EngineKind.OPENVINO:
        from workers.engine.openvino_chat.loading import exported_folder

        folder = folder_of(spec, bench)
        revision = revision_of(folder, cache_dir=bench.cache_dir)
        try:
            return open_reader(exported_folder(spec, folder, revision=revision, cache_dir=bench.cache_dir))
        except ModelUnavailableError:
            # A reference that could not be exported runs on torch, and so does its reader.
            return open_reader(folder, device=bench.device) if spec.is_reference else None
    return None


def folder_of(spec: ModelSpec, bench: Bench) -> Path:
    """Return the variant's prepared folder."""
    return prepared_folder(spec.source, cache_dir=bench.cache_dir, revision=spec.revision)
