"""Looking after models: variants added, prepared, allowed, removed."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from pipeline.app.images import image_access
from pipeline.app.stack import Stack
from pipeline.config import Settings
from pipeline.domain.errors import ConflictError, NotFoundError, UsageError
from pipeline.domain.gates import GateVerdict
from pipeline.domain.models import (
    RECIPES,
    DeviceClass,
    EngineKind,
    ModelSpec,
    Recipe,
    recipes_of,
    split_variant,
)
from pipeline.domain.tiers import Tier
from pipeline.ports.engine import Engine
from pipeline.ports.variants import Qualification


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """What a person said of a variant to add; None: work it out."""

    name: str
    source: str | None = None
    engine: EngineKind | None = None
    recipe: Recipe | None = None
    device: DeviceClass | None = None
    options: Mapping[str, str | int | float | bool]


@dataclass(frozen=True, slots=True, kw_only=True)
class Preparation:
    """What it took to make a variant ready on this machine."""

    seconds: float
    #: Bytes of the cache that are new.
    added_bytes: int
    #: The second load, from what is prepared now.
    load_seconds: float


def add_variant(stack: Stack, wish: Wish) -> ModelSpec:
    """Add a variant to the registry, pinned to the weights its source has now.

    Raises:
        UsageError: The wish contradicts itself or names what its engine cannot do.
        ConflictError: Another variant has the name.
        ModelUnavailableError: There is no usable model at the source.
    """
    from workers.engine.models import source_revision

    known = stack.variants()
    spec = _spec_of(wish, known)
    if spec.variant in known:
        raise ConflictError(f"{spec.variant} is there already", hint=f"`nightrate models show {spec.variant}`")
    if spec.engine is not EngineKind.ECHO:
        spec = replace(spec, revision=source_revision(spec.source))
    stack.registry.add(spec)
    return spec


def known_variant(stack: Stack, variant: str) -> ModelSpec:
    """Return a variant of the installation; raises `NotFoundError`."""
    known = stack.variants()
    if variant not in known:
        raise NotFoundError(f"there is no variant {variant}", hint="known are " + ", ".join(sorted(known)))
    return known[variant]


def prepare_variant(settings: Settings, spec: ModelSpec) -> Preparation:
    """Fetch, convert and quantize what the variant needs, and load it once to see that it runs."""
    cache_dir = settings.home_folder / "models"
    before_bytes = _size_bytes(cache_dir)
    started_at = time.monotonic()
    load_here(settings, spec).close()
    prepared_at = time.monotonic()
    load_here(settings, spec).close()
    return Preparation(
        seconds=prepared_at - started_at,
        added_bytes=max(0, _size_bytes(cache_dir) - before_bytes),
        load_seconds=time.monotonic() - prepared_at,
    )


def load_here(settings: Settings, spec: ModelSpec) -> Engine:
    """Load a variant in this process, as a worker of this installation would; raises `ModelUnavailableError`."""
    from workers.engine.registry import load_engine

    return load_engine(
        spec,
        cache_dir=settings.home_folder / "models",
        device=settings.device,
        threads=settings.engine_threads,
        images=image_access(settings),
    )


def allow_variant(stack: Stack, spec: ModelSpec, tiers: Sequence[Tier], *, reason: str, is_allowed: bool) -> None:
    """Record a person's word: these tiers may, or may not, run on the variant, whatever the gate says."""
    if spec.is_reference:
        raise UsageError(f"{spec.variant} is a reference: it may always run")
    verdict = GateVerdict.ALLOWED if is_allowed else GateVerdict.REJECTED
    stack.registry.qualify(
        [
            Qualification(variant=spec.variant, tier=tier, verdict=verdict, gate_key=None, reason=reason)
            for tier in tiers
        ]
    )


def _spec_of(wish: Wish, known: Mapping[str, ModelSpec]) -> ModelSpec:
    name, label = split_variant(wish.name)
    reference = known.get(name)
    if label and reference is None:
        raise NotFoundError(
            f"there is no model {name} to make a variant of", hint=f"`nightrate models add {name} --source …` first"
        )
    if not label and wish.source is None:
        raise UsageError(f"where is {name}?", hint="--source FOLDER, FILE.gguf, a hub id, or NAME@LABEL for a variant")
    recipe = wish.recipe or Recipe.NATIVE
    engine = wish.engine or (EngineKind.AUTO if reference is None else reference.engine)
    if recipe not in RECIPES[engine]:
        raise UsageError(f"the {engine} engine has no recipe {recipe}", hint=f"it has {recipes_of(engine)}")
    source = wish.source if wish.source is not None else (reference.source if reference else "")
    return ModelSpec(
        name=name,
        label=label,
        source=_absolute(source),
        engine=engine,
        recipe=recipe,
        device=wish.device,
        options=dict(wish.options),
    )


def _absolute(source: str) -> str:
    """Return a source that means the same in every process, whatever folder it runs in."""
    path = Path(source).expanduser()
    return str(path.resolve()) if source and path.exists() else source


def _size_bytes(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()) if folder.exists() else 0
