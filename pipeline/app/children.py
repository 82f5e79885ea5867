"""Processes of ours: their command lines, and the settings that they are given as environment variables."""

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
from pipeline.config import Settings

_SERVERS: Final = ("database_url", "redis_url")


def command_of(*arguments: str) -> Sequence[str]:
    """Return the command line of one of our own processes; the working folder can shadow no module of ours."""
    return (sys.executable, "-P", "-m", "pipeline.entrypoints.cli", *arguments)


def child_environment(settings: Settings, *, with_servers: bool = False) -> dict[str, str]:
    """Return the settings as environment variables, so that children need no file and no working folder.

    Args:
        settings: what the children shall have.
        with_servers: whether the URLs of the servers are among them; else whoever starts the servers adds them.
    """
    settings = absolute(settings)
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


#: What a worker that runs elsewhere has no use for, or must not know.
_NOT_ELSEWHERE: Final = frozenset(
    {
        "home",
        "workers",
        "threads",
        "fleet",
        "api_host",
        "api_port",
        "api_processes",
        "key_pepper",
        "url",
        "api_key",
        "ca_file",
    }
    | {"insecure_http", "instance_id", "interruption_notice", "worker_id"}
)
#: What one that runs here has not.
_NOT_FLEET: Final = frozenset({"fleet", "worker_id", "interruption_notice", "key_pepper"})


def worker_environment(settings: Settings, *, worker_id: str, pool: str, market: str, is_here: bool) -> dict[str, str]:
    """Return the settings of a worker that the scheduler asks for, the URLs of the servers among them."""
    own = child_environment(
        settings.model_copy(update={"worker_id": worker_id, "pool": pool, "market": market}), with_servers=True
    )
    dropped = {f"NIGHTRATE_{name.upper()}" for name in (_NOT_FLEET if is_here else _NOT_ELSEWHERE)}
    dropped = (dropped if is_here else dropped | {"PYTHONPATH"}) - {"NIGHTRATE_WORKER_ID"}
    return {name: value for name, value in own.items() if name not in dropped}


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


def absolute(settings: Settings) -> Settings:
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
