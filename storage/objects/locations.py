"""Store URLs: what is accepted, and where they lead."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

from pipeline.domain.errors import UsageError
from storage.objects.keys import is_key

#: With a key of full length this stays under the 1024 bytes that S3 allows.
PREFIX_CHARS_MAX: Final = 256

_ACCEPTED: Final = (
    "accepted: file:///path, a plain path, or s3://bucket/prefix with the options endpoint_url=http(s)://… and region=…"
)
_BUCKET: Final = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
_OPTIONS: Final = frozenset({"endpoint_url", "region"})


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalLocation:
    """A folder."""

    root: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class S3Location:
    """A bucket, and what every key in it begins with."""

    bucket: str
    #: Empty, or segments joined by `/` without one at the end.
    prefix: str
    endpoint_url: str | None
    region: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class S3Credentials:
    """A static key pair."""

    access_key_id: str
    secret_access_key: str = field(repr=False)


def parse_location(url: str) -> LocalLocation | S3Location:
    """Return where `url` leads, or raise `UsageError` saying what is accepted.

    Messages repeat the scheme only: somebody's password may stand in the rest.
    """
    if not url or "\0" in url:
        raise UsageError("the object store's URL is empty or holds a NUL", hint=_ACCEPTED)
    try:
        parts = urlsplit(url)
    except ValueError as error:
        raise UsageError("the object store's URL cannot be read", hint=_ACCEPTED) from error
    match parts.scheme:
        case "":
            return LocalLocation(root=Path(url))
        case "file":
            return _local(parts)
        case "s3":
            return _s3(parts)
        case other:
            raise UsageError(f"no object store speaks {other}:", hint=_ACCEPTED)


def check_endpoint(endpoint_url: str) -> str:
    """Return `endpoint_url`, or raise `UsageError` unless it is an http(s) URL with a host and no password."""
    try:
        parts = urlsplit(endpoint_url)
        is_usable = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:
        is_usable = False
    if not is_usable or "@" in endpoint_url:
        raise UsageError("the S3 endpoint is not an http(s) URL", hint="such as http://127.0.0.1:8333")
    return endpoint_url


def _local(parts: SplitResult) -> LocalLocation:
    path = unquote(parts.path)
    if parts.netloc not in {"", "localhost"} or not path.startswith("/"):
        raise UsageError("a file: URL needs an absolute path and no host", hint=_ACCEPTED)
    if parts.query or parts.fragment:
        raise UsageError("a file: URL takes no options", hint=_ACCEPTED)
    if "\0" in path:
        raise UsageError("the object store's path holds a NUL", hint=_ACCEPTED)
    return LocalLocation(root=Path(path))


def _s3(parts: SplitResult) -> S3Location:
    if not _BUCKET.fullmatch(parts.netloc):
        raise UsageError("an s3: URL names a bucket of 3 to 63 of a-z 0-9 . - and nothing before it", hint=_ACCEPTED)
    prefix = parts.path.strip("/")
    if len(prefix) > PREFIX_CHARS_MAX or (prefix and not is_key(prefix)) or parts.fragment:
        raise UsageError(
            f"the s3: URL's prefix is not up to {PREFIX_CHARS_MAX} characters of A-Z a-z 0-9 . _ = - /", hint=_ACCEPTED
        )
    pairs = parse_qsl(parts.query, keep_blank_values=True)
    options = dict(pairs)
    if not _OPTIONS.issuperset(options) or len(options) != len(pairs) or not all(options.values()):
        raise UsageError("the s3: URL's options are unknown, empty or given twice", hint=_ACCEPTED)
    endpoint_url = options.get("endpoint_url")
    return S3Location(
        bucket=parts.netloc,
        prefix=prefix,
        endpoint_url=None if endpoint_url is None else check_endpoint(endpoint_url),
        region=options.get("region"),
    )
