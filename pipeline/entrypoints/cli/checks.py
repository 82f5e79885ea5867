"""The checks of `doctor`: each looks at one thing and says what it found and what would help."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from importlib.metadata import packages_distributions
from importlib.util import find_spec
from pathlib import Path
from types import MappingProxyType
from typing import Final

import pipeline
from infra.embedded.binaries import find_postgres, find_valkey
from infra.embedded.folder import DataFolder
from pipeline.app.house import check_broker, free_bytes
from pipeline.app.pricing import card_of
from pipeline.app.stack import objects_url_of, variants_of
from pipeline.config import Settings
from pipeline.domain.costs.rate_card import PriceUnknownError
from pipeline.domain.errors import NightrateError, ObjectConflictError
from pipeline.domain.ids import uuid7
from pipeline.entrypoints.cli.config_command import masked
from pipeline.entrypoints.cli.connection import database_url_of, short_database, with_urls_of
from pipeline.entrypoints.cli.figures import size
from storage.objects import open_store
from storage.overview import clock, schema_versions
from storage.prices import PriceRepository
from workers.accelerators import find_accelerators
from workers.engine.registry import is_available

PACKAGES: Final = ("pipeline", "workers", "scheduler", "storage", "infra")
_PYTHON_MIN: Final = (3, 11)
_PYTHON_BELOW: Final = (3, 14)
_FREE_BYTES_MIN: Final = 512 * 1024**2
_FREE_BYTES_COMFORTABLE: Final = 5 * 1024**3
_SKEW_SECONDS_MAX: Final = 5.0


class Outcome(StrEnum):
    """How a check ended."""

    OK = "ok"
    #: Worth knowing; nothing that is needed is missing.
    NOTE = "note"
    #: It could not be looked at now.
    SKIPPED = "skipped"
    FAILED = "failed"


SIGNS: Final[Mapping[Outcome, str]] = MappingProxyType(
    {Outcome.OK: "✓", Outcome.NOTE: "!", Outcome.SKIPPED: "-", Outcome.FAILED: "✗"}
)

assert set(SIGNS) == set(Outcome)


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """What one check found."""

    name: str
    outcome: Outcome
    detail: str
    hint: str | None = None


Finding = tuple[Outcome, str, str | None]


def run_checks(given: Settings) -> list[Check]:
    """Run every check; one that fails never keeps the others from running."""
    try:
        settings = with_urls_of(given)
    except NightrateError:
        settings = given  # the data folder's own check says what is wrong there
    checks: Sequence[tuple[str, Callable[[], Finding]]] = (
        ("Python", check_python),
        ("packages", lambda: check_packages(packages_distributions())),
        ("data folder", lambda: _check_folder(given)),
        ("disk", lambda: _check_disk(given)),
        ("PostgreSQL", lambda: _check_postgres(given)),
        ("Valkey", lambda: _check_valkey(given)),
        ("database", lambda: _check_database(settings)),
        ("clock", lambda: _check_clock(settings)),
        ("broker", lambda: _check_broker(settings)),
        ("prices", lambda: check_prices(settings)),
        ("objects", lambda: _check_objects(settings)),
        ("engines", lambda: _check_engines(given)),
        ("accelerators", _check_accelerators),
    )
    return [_run(name, look) for name, look in checks]


def _run(name: str, look: Callable[[], Finding]) -> Check:
    try:
        outcome, detail, hint = look()
    except NightrateError as error:
        outcome, detail, hint = Outcome.FAILED, error.message, error.hint
    except OSError as error:
        outcome, detail, hint = Outcome.FAILED, f"{error.filename or ''} {error.strerror or error}".strip(), None
    except Exception as error:  # noqa: BLE001 - a doctor that falls ill is no help; the finding is the exception
        outcome, detail, hint = Outcome.FAILED, f"{type(error).__name__}: {error}".splitlines()[0], None
    return Check(name=name, outcome=outcome, detail=detail, hint=hint)


def check_python(version: tuple[int, int] | None = None) -> Finding:
    """Say whether this Python is one we are tested on."""
    found = version or sys.version_info[:2]
    shown = ".".join(map(str, found))
    if _PYTHON_MIN <= found < _PYTHON_BELOW:
        return Outcome.OK, f"{shown} at {sys.executable}", None
    return Outcome.FAILED, f"{shown} is not supported", "use Python 3.11, 3.12 or 3.13"


def check_packages(distributions: Mapping[str, Sequence[str]]) -> Finding:
    """Say whether the five top-level names are ours; `distributions` tells who installed which name."""
    root = Path(pipeline.__file__).resolve().parents[1]
    foreign = [
        f"{name} (from {', '.join(sorted(others))})"
        for name in PACKAGES
        if (others := {owner for owner in distributions.get(name, ()) if owner.lower() != "nightrate"})
    ]
    for name in PACKAGES:
        spec = find_spec(name)
        if spec is None or spec.origin is None or Path(spec.origin).resolve().parents[1] != root:
            foreign.append(f"{name} (at {spec.origin if spec else 'nowhere'})")
    if foreign:
        hint = "Nightrate is an application: give it an environment of its own, such as `uv tool install nightrate`"
        return Outcome.FAILED, f"these names belong to another package: {', '.join(foreign)}", hint
    return Outcome.OK, f"{', '.join(PACKAGES)} are ours, in {root}", None


def _check_folder(settings: Settings) -> Finding:
    folder = DataFolder(settings.home_folder)
    folder.create()
    state = folder.read_state()
    if state is None:
        return Outcome.OK, f"{folder.path}; nothing runs in it", None
    return Outcome.OK, f"{folder.path}; {state.phase}, process {state.supervisor.pid}", None


def _check_disk(settings: Settings) -> Finding:
    free = free_bytes(settings)
    if free < _FREE_BYTES_MIN:
        return (
            Outcome.FAILED,
            f"{size(free)} free",
            f"{size(_FREE_BYTES_MIN)} are needed; NIGHTRATE_HOME may be elsewhere",
        )
    if free < _FREE_BYTES_COMFORTABLE:
        return Outcome.NOTE, f"{size(free)} free", "large batches take two to three times their input"
    return Outcome.OK, f"{size(free)} free", None


def _check_postgres(settings: Settings) -> Finding:
    if settings.database_url is not None:
        return Outcome.SKIPPED, "not ours: NIGHTRATE_DATABASE_URL is set", None
    programs = find_postgres()
    origin = "from the wheel" if programs.is_wheel else f"in {programs.folder}"
    return Outcome.OK, f"{'.'.join(map(str, programs.version))} {origin}", None


def _check_valkey(settings: Settings) -> Finding:
    if settings.redis_url is not None:
        return Outcome.SKIPPED, "not ours: NIGHTRATE_REDIS_URL is set", None
    program = find_valkey()
    return Outcome.OK, f"{'.'.join(map(str, program.version))} at {program.server}", None


def _check_database(settings: Settings) -> Finding:
    if settings.database_url is None:
        return Outcome.SKIPPED, "no stack is up", "`nightrate up`, then ask again"
    url = database_url_of(settings)
    with short_database(url) as database:
        found, wanted = schema_versions(database)
    if found != wanted:
        return Outcome.FAILED, f"schema version {found or 'none'}, {wanted} is needed", "`nightrate db upgrade`"
    return Outcome.OK, f"{masked(url)}, schema version {found}", None


def _check_clock(settings: Settings) -> Finding:
    if settings.database_url is None:
        return Outcome.SKIPPED, "no stack is up", None
    with short_database(database_url_of(settings)) as database:
        clock(database)  # the first one pays for the connection
        before = datetime.now(UTC)
        there = clock(database)
        after = datetime.now(UTC)
    skew_seconds = (there - (before + (after - before) / 2)).total_seconds()
    detail = f"the database's is {abs(skew_seconds):.3f} s {'ahead of' if skew_seconds > 0 else 'behind'} ours"
    if abs(skew_seconds) > _SKEW_SECONDS_MAX:
        return Outcome.FAILED, detail, "run a time service, such as chrony, on both machines"
    return Outcome.OK, detail, None


def _check_broker(settings: Settings) -> Finding:
    if settings.redis_url is None:
        return Outcome.SKIPPED, "no stack is up", None
    check_broker(settings)
    return Outcome.OK, f"{masked(settings.redis_url.get_secret_value())} keeps what it is given", None


def check_prices(settings: Settings) -> Finding:
    """Say whether what the pools of the settings run on has a price: workers without one do not start."""
    hint = "`nightrate prices refresh` asks AWS; `nightrate prices set` says one; or give the pool a rate_per_hour"
    pools = sorted({*settings.rate_card.pools, settings.pool})
    url = None if settings.database_url is None else database_url_of(settings)
    with nullcontext() if url is None else short_database(url) as database:
        repository = None if database is None else PriceRepository(database)
        lacking = [reason for pool in pools if (reason := _lack_of_price(settings, pool, repository)) is not None]
    if lacking and url is None:
        return Outcome.NOTE, f"the catalogue does not say, and no stack is up to ask: {'; '.join(lacking)}", hint
    if lacking:
        return Outcome.FAILED, f"workers cannot start: {'; '.join(lacking)}", hint
    said = "" if url is not None else ", by the catalogue alone: no stack is up"
    return Outcome.OK, f"known for {', '.join(pools)}{said}", None


def _lack_of_price(settings: Settings, pool: str, repository: PriceRepository | None) -> str | None:
    offer = settings.rate_card.offer_of(pool, settings.market)
    now = datetime.now(UTC)
    names = [] if offer.instance_type is None else [offer.instance_type]
    said = () if repository is None else repository.in_force(now, now, names=names)
    try:
        card_of(settings, said).hourly_rates(offer, now)
    except PriceUnknownError as error:
        return f"pool {pool}: {error.message}"
    return None


def _check_objects(settings: Settings) -> Finding:
    """Put, read, put again, and be refused: what every result relies on."""
    url = objects_url_of(settings)
    store = open_store(url, endpoint_url=settings.s3_endpoint_url)
    key = f"doctor/{uuid7().hex}"
    content = b"nightrate doctor"
    try:
        store.put(key, content)
        is_kept = store.read(key) == content
        store.put(key, content)
        try:
            store.put(key, b"something else")
            is_refused = False
        except ObjectConflictError:
            is_refused = True
    finally:
        store.delete(key)
    if not (is_kept and is_refused):
        lack = "overwrites objects" if is_kept else "returns other bytes than it was given"
        return Outcome.FAILED, f"{masked(url)} {lack}", "use a store with conditional writes (If-None-Match)"
    return Outcome.OK, f"{masked(url)}: put, get and conditional put", None


def _check_engines(settings: Settings) -> Finding:
    models = variants_of(settings)
    missing = [name for name, spec in models.items() if not is_available(spec)]
    there = ", ".join(name for name in models if name not in missing)
    if missing:
        return Outcome.NOTE, f"{there}; not here: {', '.join(missing)}", "pip install 'nightrate[worker]'"
    return Outcome.OK, there, None


def _check_accelerators() -> Finding:
    found = find_accelerators()
    if not found:
        return Outcome.OK, "none; engines run on the CPU", None
    listed = ", ".join(
        f"{item.name} ({size(item.memory_free_bytes)} of {size(item.memory_total_bytes)} free)" for item in found
    )
    return Outcome.OK, listed, None
