"""Looking after the house: the broker's settings, the disk."""

from __future__ import annotations

import shutil

from pipeline.app.stack import required
from pipeline.config import Settings


def check_broker(settings: Settings) -> None:
    """Refuse a broker that would lose hints silently; raises `UsageError`."""
    from infra.broker import check_server

    check_server(required(settings.redis_url, "NIGHTRATE_REDIS_URL"))


def free_bytes(settings: Settings) -> int:
    """Return how many bytes are free where home is."""
    folder = settings.home_folder
    while not folder.exists():
        folder = folder.parent
    return shutil.disk_usage(folder).free
