"""The stack of one box: which processes it runs, and with which settings."""

from __future__ import annotations

import json
import os
import sys
import sysconfig
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from pydantic import SecretStr

import pipeline
from infra.embedded.folder import DataFolder, ServiceUrls
from infra.embedded.supervisor import Supervisor
from infra.processes import ProcessSpec
from pipeline.config import Settings
from pipeline.entrypoints.cli.connection import note_settings, short_database

#: A worker may finish what is in flight before it leaves.
_WORKER_GRACE_SECONDS: Final = 30.0
#: Requests under way may finish.
_API_GRACE_SECONDS: Final = 30.0
_SERVERS: Final = ("database_url", "redis_url")


def supervisor_of(settings: Settings, *, workers: int, with_api: bool = False) -> Supervisor:
    """Return a supervisor of the servers that have no URL, a scheduler, `workers` workers and the API where it is wanted."""
    settings = _absolute(settings)
    environment = child_environment(settings.model_copy(update={"workers": max(1, workers)}))
    commands = [ProcessSpec(name="scheduler", command=command_of("scheduler"), env=environment)]
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


def command_of(*arguments: str) -> Sequence[str]:
    """Return the command line of one of our own processes; the working folder can shadow no module of ours."""
    return (sys.executable, "-P", "-m", "pipeline.entrypoints.cli", *arguments)


def child_environment(settings: Settings, *, with_servers: bool = False) -> dict[str, str]:
    """Return the settings as environment variables, so that children need no file and no working folder.

    Args:
        settings: what the children shall have.
        with_servers: whether the URLs of the servers are among them; else whoever starts the servers adds them.
    """
    settings = _absolute(settings)
    environment = {}
    # As JSON would have it: amounts of money in tables are text there.
    for name, value in settings.model_dump(mode="json", by_alias=True).items():
        if value is None or (name in _SERVERS and not with_servers):
            continue
        environment[f"NIGHTRATE_{name.upper()}"] = _as_text(name, value, settings)
    root = Path(pipeline.__file__).resolve().parents[1]
    if str(root) not in {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}:
        # A checkout: children must run the same one as we do, installed or not.
        environment["PYTHONPATH"] = os.pathsep.join(filter(None, [str(root), os.environ.get("PYTHONPATH")]))
    return environment


def absolute_location(url: str) -> str:
    """Return an object store's URL that means the same from every working folder."""
    return url if ":" in url else Path(url).expanduser().absolute().as_uri()


def _as_text(name: str, value: object, settings: Settings) -> str:
    match name:
        case "database_url" | "redis_url" | "key_pepper":
            secret = getattr(settings, name)
            assert isinstance(secret, SecretStr)
            return secret.get_secret_value()
        case _:
            # Settings of several values are read from JSON.
            return json.dumps(value) if isinstance(value, dict | list) else str(value)


def _absolute(settings: Settings) -> Settings:
    """Return the settings with every path made absolute, as children work elsewhere."""
    return settings.model_copy(
        update={
            "home": settings.home_folder.absolute(),
            "objects_url": settings.objects_url and absolute_location(settings.objects_url),
            "models": {model: _absolute_source(source) for model, source in settings.models.items()},
        }
    )


def _absolute_source(source: str) -> str:
    kind, separator, rest = source.partition(":")
    path = Path(rest if separator else source)
    # What is no file here is a hub id, or lies inside a wheel.
    return f"{kind}{separator}{path.absolute()}" if separator and path.exists() else _absolute_path(source)


def _absolute_path(source: str) -> str:
    return str(Path(source).absolute()) if Path(source).exists() else source


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
