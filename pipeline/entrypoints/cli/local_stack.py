"""The stack of one box: which processes it runs, and with which settings."""

from __future__ import annotations

from typing import Final

from infra.embedded.folder import DataFolder, ServiceUrls
from infra.embedded.supervisor import Supervisor
from infra.processes import STOP_GRACE_SECONDS, ProcessSpec
from pipeline.app.children import absolute, child_environment, command_of
from pipeline.config import Settings
from pipeline.entrypoints.cli.connection import note_settings, short_database

#: A worker may finish what is in flight before it leaves.
_WORKER_GRACE_SECONDS: Final = 30.0
#: A scheduler that started workers here waits for them.
_FLEET_GRACE_SECONDS: Final = 50.0
#: Requests under way may finish.
_API_GRACE_SECONDS: Final = 30.0


def supervisor_of(settings: Settings, *, workers: int, with_api: bool = False) -> Supervisor:
    """Return a supervisor of the servers that have no URL, a scheduler, `workers` workers and the API where it is wanted."""
    settings = absolute(settings)
    environment = child_environment(settings.model_copy(update={"workers": max(1, workers)}))
    commands = [
        ProcessSpec(
            name="scheduler",
            command=command_of("scheduler"),
            env=environment,
            grace_seconds=_FLEET_GRACE_SECONDS if settings.fleet.pools else STOP_GRACE_SECONDS,
        )
    ]
    commands += [
        ProcessSpec(
            name=f"worker-{number}",
            command=command_of("worker"),
            env=environment,
            grace_seconds=_WORKER_GRACE_SECONDS,
        )
        for number in range(1, workers + 1)
    ]
    if with_api:
        commands.append(
            ProcessSpec(name="api", command=command_of("api"), env=environment, grace_seconds=_API_GRACE_SECONDS)
        )
    return Supervisor(
        DataFolder(settings.home_folder),
        commands,
        database_url=None if settings.database_url is None else settings.database_url.get_secret_value(),
        redis_url=None if settings.redis_url is None else settings.redis_url.get_secret_value(),
        on_services_up=lambda urls: _prepare(settings, urls),
    )


def _prepare(settings: Settings, urls: ServiceUrls) -> None:
    """Bring the tables to this release and refuse a broker that would lose hints, before a process starts."""
    from infra.broker import check_server
    from storage.currencies import check_currency
    from storage.migrations import upgrade
    from storage.overview import clock

    check_server(urls.redis_url)
    with short_database(urls.database_url) as database:
        clock(database)  # a database that is down is said to be
        upgrade(database.url)
        check_currency(database, settings.currency)
    note_settings(settings)
