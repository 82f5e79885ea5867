"""The stores of one installation, opened and closed together, and the models it knows."""

from __future__ import annotations

import gc
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Final

from pipeline.config import Settings
from pipeline.domain.endpoints import Endpoint
from pipeline.domain.errors import UsageError
from pipeline.domain.models import BUILT_IN, ModelSpec, spec_of
from pipeline.ports.objects import ObjectStore
from storage.batches import BatchRepository
from storage.database import Database
from storage.files import FileRepository
from storage.objects import open_store
from storage.recurring import RecurringRepository
from storage.shadow import ShadowRepository
from storage.variants import VariantRepository

#: Of the garbage collector; Python's own are made for programs with few objects.
_GC_THRESHOLDS: Final = (50_000, 20, 100)
#: Longer than an embedded Postgres takes to be brought back.
_AWAY_SECONDS_MAX: Final = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Stack:
    """The stores of one installation, open."""

    settings: Settings
    database: Database
    objects: ObjectStore
    batches: BatchRepository
    files: FileRepository
    registry: VariantRepository
    shadow: ShadowRepository
    recurring: RecurringRepository
    #: Local folder for temporary files of bounded work.
    spool_folder: Path

    def variants(self) -> dict[str, ModelSpec]:
        """Return every variant known here by name: built in, of the settings, and added."""
        return variants_of(self.settings, self.registry.variants())

    def endpoints_of_models(self) -> dict[str, frozenset[Endpoint]]:
        """Return the endpoints each model serves."""
        return {spec.name: spec.endpoints for spec in self.variants().values() if spec.is_reference}


def variants_of(settings: Settings, added: Iterable[ModelSpec] = ()) -> dict[str, ModelSpec]:
    """Return the variants by name: the built-in references and those of the settings, and what was `added`.

    What was added under the name of another wins, as the settings win over what is built in.
    """
    models = {**BUILT_IN, **{name: spec_of(name, written) for name, written in settings.models.items()}}
    return models | {spec.variant: spec for spec in added}


def objects_url_of(settings: Settings) -> str:
    """Return where objects are kept: the setting, or a folder in home."""
    return settings.objects_url or (settings.home_folder / "objects").absolute().as_uri()


@contextmanager
def open_stack(
    settings: Settings, *, away_seconds_max: float = _AWAY_SECONDS_MAX, connections_max: int | None = None
) -> Iterator[Stack]:
    """Open the stores that the settings name; `database_url` must be set by now.

    A database that is away is waited for, `away_seconds_max` at most.
    """
    database = Database(
        required(settings.database_url, "NIGHTRATE_DATABASE_URL"),
        pool_size=connections_max,
        away_seconds_max=away_seconds_max,
    )
    spool_folder = settings.home_folder / "spool"
    spool_folder.mkdir(parents=True, exist_ok=True)
    try:
        yield Stack(
            settings=settings,
            database=database,
            objects=open_store(objects_url_of(settings), endpoint_url=settings.s3_endpoint_url),
            batches=BatchRepository(
                database, claim_for=timedelta(seconds=settings.lease_seconds), plans=settings.plan_book
            ),
            files=FileRepository(database),
            registry=VariantRepository(database),
            shadow=ShadowRepository(database),
            recurring=RecurringRepository(database),
            spool_folder=spool_folder,
        )
    finally:
        database.close()


def required(url: object, name: str) -> str:
    """Return the secret setting `url`, or raise `UsageError` saying that `name` is not set."""
    secret = getattr(url, "get_secret_value", None)
    if secret is None:
        raise UsageError(f"{name} is not set and no embedded server runs", hint="`nightrate up` starts one")
    return str(secret())


def collect_seldom() -> None:
    """Look for garbage in cycles seldom from here on: rows come and go by the thousand and hold none."""
    # Looking again and again took a worker a quarter of its time, the finalizer half and intake 7 %.
    gc.freeze()
    gc.set_threshold(*_GC_THRESHOLDS)
