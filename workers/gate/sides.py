"""From two variants to what the gate compares: engines, identities, and where their logits can be read."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from pipeline.domain.errors import ModelUnavailableError
from pipeline.domain.models import EngineKind, ModelSpec, Recipe
from workers.engine.choice import engine_for
from workers.engine.models import prepared_folder
from workers.engine.registry import load_engine
from workers.engine.revision import revision_of
from workers.gate.identity import identity_of
from workers.gate.logits import LogitsReader, open_reader
from workers.gate.qualification import Logits, Side

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
        revision = revision_of(_folder_of(spec, bench), cache_dir=bench.cache_dir)
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
            reader = _reader_of(spec, bench)
            if reader is None:
                yield None
                return
            resources.callback(reader.close)
            readers.append(reader)
        yield Logits(variant=readers[0], reference=readers[1], tokenizer_folder=_folder_of(reference, bench))


def _reader_of(spec: ModelSpec, bench: Bench) -> LogitsReader | None:
    engine = engine_for(spec, bench.device)
    if engine is EngineKind.TORCH and spec.recipe in _PLAIN:
        return open_reader(_folder_of(spec, bench), device=bench.device, dtype=_PLAIN[spec.recipe])
    if engine is EngineKind.OPENVINO:
        from workers.engine.openvino_chat.loading import exported_folder

        folder = _folder_of(spec, bench)
        revision = revision_of(folder, cache_dir=bench.cache_dir)
        try:
            return open_reader(exported_folder(spec, folder, revision=revision, cache_dir=bench.cache_dir))
        except ModelUnavailableError:
            # A reference that could not be exported runs on torch, and so does its reader.
            return open_reader(folder, device=bench.device) if spec.is_reference else None
    return None


def _folder_of(spec: ModelSpec, bench: Bench) -> Path:
    return prepared_folder(spec.source, cache_dir=bench.cache_dir, revision=spec.revision)
