"""Write-once objects under deterministic keys: in a folder, or in an S3 bucket.

`open_store` turns a URL into a store; the rest of the package is behind `pipeline.ports.objects`.
"""

from __future__ import annotations

from pathlib import Path

from pipeline.ports.objects import ObjectStore
from storage.objects.local import LocalStore
from storage.objects.locations import LocalLocation, S3Credentials, parse_location

__all__ = ["S3Credentials", "open_store"]


def open_store(
    url: str,
    *,
    endpoint_url: str | None = None,
    region: str | None = None,
    credentials: S3Credentials | None = None,
    fsync: bool = True,
    temp_dir: Path | None = None,
) -> ObjectStore:
    """Open the store that `url` names; no folder is created and no server contacted before the first use.

    Args:
        url: `file:///path`, a plain path, or `s3://bucket/prefix?endpoint_url=…&region=…`.
        endpoint_url: S3 server for URLs that name none; None means AWS or boto3's own settings.
        region: S3 region for URLs that name none; None means boto3's own settings.
        credentials: S3 key pair; None means boto3's own chain (environment, profile, role).
        fsync: Whether a local put waits for the disk; off, a power cut may lose acknowledged objects.
        temp_dir: Where S3 downloads lent by `fetch` lie; None means the system's temporary folder.

    Raises:
        UsageError: The URL, the endpoint or the path cannot be a store; the hint says what can.
    """
    location = parse_location(url)
    if isinstance(location, LocalLocation):
        return LocalStore(location.root, fsync=fsync)

    from storage.objects.s3 import S3Store  # boto3 costs a third of a second that local stores need not pay

    return S3Store(
        location.bucket,
        prefix=location.prefix,
        endpoint_url=location.endpoint_url or endpoint_url,
        region=location.region or region,
        credentials=credentials,
        temp_dir=temp_dir,
    )
