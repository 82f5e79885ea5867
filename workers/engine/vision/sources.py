"""Where the bytes of an image come from: the request itself, a web server, or a place of the platform's.

What a worker may reach is the installation's word. Without one, only what lies in the requests themselves is read.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import BinaryIO, Final
from urllib.parse import unquote, urlsplit

from pipeline.domain.addresses import AddressPolicy
from pipeline.domain.errors import NightrateError, ObjectMissingError, RequestRefusedError, UsageError
from pipeline.domain.images import REMOTE_SCHEMES
from pipeline.ports.objects import ObjectStore
from workers.engine.vision.web import Web, WebLimits

#: Of an inline image, before it is decoded.
_BASE64_SHARE: Final = 4 / 3
_BLOCK_BYTES: Final = 64 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageAccess:
    """What workers of an installation may read on a tenant's word."""

    #: Where URLs may lead.
    policy: AddressPolicy = field(default_factory=AddressPolicy)
    #: Stores that every tenant may read from, by what their objects' URLs begin with: `s3://bucket/prefix/`.
    stores: Mapping[str, ObjectStore] = field(default_factory=dict)


class ImageSources:
    """Reads images by URL. Any number of threads may ask at once."""

    def __init__(self, access: ImageAccess, *, bytes_max: int, web: Web | None = None) -> None:
        """Read what `access` allows, `bytes_max` bytes of one image at most."""
        self._access = access
        self._bytes_max = bytes_max
        self._web = web or Web(access.policy, WebLimits(bytes_max=bytes_max))

    def read(self, url: str) -> bytes:
        """Return the bytes behind a checked URL; more than a few seconds where a server is slow.

        Raises:
            RequestRefusedError: They are not to be had; the caller knows which field.
        """
        if url[:5].lower() == "data:":
            return self._inline(url)
        if urlsplit(url).scheme in REMOTE_SCHEMES:
            return self._web.fetch(url)
        return self._object(url)

    def close(self) -> None:
        """Give up what is being fetched and waited for."""
        self._web.close()

    def _inline(self, url: str) -> bytes:
        content = url.partition(",")[2]
        if len(content) > self._bytes_max * _BASE64_SHARE + 4:
            raise _too_large(self._bytes_max)
        try:
            return base64.b64decode(content, validate=True)
        except (binascii.Error, ValueError):
            raise RequestRefusedError(
                "This data URI's content is no base64 in the standard alphabet, padded and without white space.",
                code="invalid_base64_image",
            ) from None

    def _object(self, url: str) -> bytes:
        for prefix, store in self._access.stores.items():
            if url.startswith(prefix):
                return _read(store, unquote(url.removeprefix(prefix)), self._bytes_max)
        shown = urlsplit(url).scheme
        raise RequestRefusedError(
            f"This {shown}: URL is not below a prefix that this installation reads images from (`image_prefixes`).",
            code="invalid_image_url",
        )


def access_of(policy: AddressPolicy, prefixes: list[str], open_store: Callable[[str], ObjectStore]) -> ImageAccess:
    """Return what the settings allow; raises `UsageError` for a prefix that is no store's URL."""
    stores: dict[str, ObjectStore] = {}
    for prefix in prefixes:
        if urlsplit(prefix).scheme not in {"s3", "file"} or "?" in prefix:
            raise UsageError(f"{prefix!r} is no place to read images from", hint="s3://bucket/prefix or file:///folder")
        stores[f"{prefix.rstrip('/')}/"] = open_store(prefix)
    return ImageAccess(policy=policy, stores=stores)


def _read(store: ObjectStore, key: str, bytes_max: int) -> bytes:
    try:
        opened: AbstractContextManager[BinaryIO] = store.open(key)
        with opened as stream:
            return _bounded(stream, bytes_max)
    except RequestRefusedError:
        raise
    except ObjectMissingError:
        raise RequestRefusedError("There is no such object.", code="image_file_not_found") from None
    except UsageError as error:
        raise RequestRefusedError(f"Invalid image URL: {error.message}.", code="invalid_image_url") from None
    except (NightrateError, OSError) as error:
        raise RequestRefusedError(
            "The object could not be read; it may be there later.", code="failed_to_download_image", status_code=424
        ) from error


def _bounded(stream: BinaryIO, bytes_max: int) -> bytes:
    content = bytearray()
    while block := stream.read(_BLOCK_BYTES):
        content += block
        if len(content) > bytes_max:
            raise _too_large(bytes_max)
    return bytes(content)


def _too_large(bytes_max: int) -> RequestRefusedError:
    return RequestRefusedError(f"This image has more than {bytes_max:,} bytes.", code="image_file_too_large")
