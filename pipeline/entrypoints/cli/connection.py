"""Which stack a command talks to: the settings, and what `services.json` adds to them."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from pydantic import SecretStr

from infra.embedded.folder import DataFolder, Phase, ServicesState, write_private
from pipeline.config import Settings, load_settings
from pipeline.domain.errors import NightrateError, NotRunningError, ServiceStartError
from pipeline.ports.acting import COMMAND_LINE, Actor, acting

if TYPE_CHECKING:  # the stores are opened, and imported, only once a stack is known to be there
    from pipeline.app.stack import Stack
    from storage.database import Database

#: How long a command waits for a stack that is just coming up.
_STARTING_SECONDS_MAX: Final = 60.0
_POLL_SECONDS: Final = 0.05
#: How long a command waits for a database before it says that it is down.
_PROBE_SECONDS_MAX: Final = 3.0
#: How long a command that already spoke to it waits for it to come back.
_AWAY_SECONDS_MAX: Final = 20.0
_NOTED_NAME: Final = "settings.json"


class SchemaError(NightrateError):
    """The database's tables are not this release's."""

    code = "schema_version"


def stack_settings() -> Settings:
    """Return the settings, the URLs that are not set taken from the stack that is up."""
    return with_urls_of(load_settings())


def process_settings(*, pool: str | None = None) -> Settings:
    """Return the settings of a scheduler or worker, which the supervisor hands its URLs."""
    settings = stack_settings()
    if pool is None:
        return settings
    return Settings.model_validate({**_given(settings), "pool": pool})


def with_urls_of(settings: Settings) -> Settings:
    """Return the settings with the URLs of the stack in the data folder, where they have none."""
    if settings.database_url is not None and settings.redis_url is not None:
        return settings
    state = ready_state(settings)
    if state is None or state.urls is None:
        return settings
    return settings.model_copy(
        update={
            **_noted(settings),
            "database_url": settings.database_url or SecretStr(state.urls.database_url),
            "redis_url": settings.redis_url or SecretStr(state.urls.redis_url),
        }
    )


def ready_state(settings: Settings) -> ServicesState | None:
    """Return what runs in the data folder, once it is ready; None when nothing does."""
    folder = DataFolder(settings.home_folder)
    deadline = time.monotonic() + _STARTING_SECONDS_MAX
    while (state := folder.read_state()) is not None:
        if state.phase is Phase.READY:
            return state
        if time.monotonic() > deadline:
            raise ServiceStartError(f"process {state.supervisor.pid} is still {state.phase} in {folder.path}")
        time.sleep(_POLL_SECONDS)
    return None


@contextmanager
def connected(settings: Settings | None = None) -> Iterator[Stack]:
    """Open the stack that is up, having seen that its database answers and has this release's tables."""
    settings = settings or stack_settings()
    probe(database_url_of(settings))
    from pipeline.app.stack import open_stack

    actor = Actor(name=COMMAND_LINE)
    with acting(actor), open_stack(settings, away_seconds_max=_AWAY_SECONDS_MAX) as stack:
        yield stack


def database_url_of(settings: Settings) -> str:
    """Return the database's URL for SQLAlchemy, or raise `NotRunningError`."""
    if settings.database_url is None:
        raise NotRunningError(
            f"nothing runs in {settings.home_folder}", hint="`nightrate up` starts it, or set NIGHTRATE_DATABASE_URL"
        )
    from storage.database import Database

    database = Database(settings.database_url.get_secret_value())
    database.close()
    return database.url


def probe(url: str) -> None:
    """Raise `StoreUnavailableError` or `SchemaError` unless the database is there and ready for us."""
    from storage.overview import schema_versions

    with short_database(url) as database:
        found, wanted = schema_versions(database)
    if found != wanted:
        raise SchemaError(
            f"the database has schema version {found or 'none'}, this release needs {wanted}",
            hint="`nightrate db upgrade` brings it there",
        )


@contextmanager
def short_database(url: str) -> Iterator[Database]:
    """Open the database for a look, given up soon where it is down."""
    from storage.database import Database

    database = Database(url, pool_size=1, away_seconds_max=_PROBE_SECONDS_MAX)
    try:
        yield database
    finally:
        database.close()


def note_settings(settings: Settings) -> None:
    """Keep beside `services.json` what commands given elsewhere must know of this stack."""
    folder = DataFolder(settings.home_folder)
    noted: dict[str, object] = {
        "objects_url": settings.objects_url,
        "s3_endpoint_url": settings.s3_endpoint_url,
        "models": settings.models,
    }
    write_private(folder.path / _NOTED_NAME, json.dumps(noted, indent=2))


def _noted(settings: Settings) -> dict[str, object]:
    """Return what the stack that is up knows better than the settings here: its models, where its objects lie."""
    try:
        noted = json.loads((DataFolder(settings.home_folder).path / _NOTED_NAME).read_text())
    except (FileNotFoundError, ValueError):
        return {}
    return {name: value for name, value in noted.items() if name == "models" or getattr(settings, name) is None}


def _given(settings: Settings) -> dict[str, object]:
    return {name: getattr(settings, name) for name in type(settings).model_fields}
