"""From where workers of this installation read images."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pipeline.app.stack import objects_url_of
from pipeline.config import Settings
from pipeline.domain.addresses import policy_of
from pipeline.domain.errors import UsageError
from storage.objects import open_store

if TYPE_CHECKING:
    from workers.engine.vision.sources import ImageAccess


def image_access(settings: Settings) -> ImageAccess:
    """Return what the settings allow; no server is contacted.

    Raises:
        UsageError: A setting makes no sense, or would show tenants each other's requests and results.
    """
    from workers.engine.vision.sources import access_of

    ours = f"{objects_url_of(settings).partition('?')[0].rstrip('/')}/"
    for prefix in settings.image_prefixes:
        theirs = f"{prefix.rstrip('/')}/"
        if theirs.startswith(ours) or ours.startswith(theirs):
            raise UsageError(f"image_prefixes: {prefix} holds the requests and results of every tenant")
    return access_of(
        policy_of(settings.url_reach, settings.url_hosts),
        settings.image_prefixes,
        lambda url: open_store(url, endpoint_url=settings.s3_endpoint_url),
    )
