"""Where a server is: its URL, checked before a key is sent there."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

from pipeline.domain.errors import UsageError

_KEY: Final = re.compile(r"[\x21-\x7e]{1,512}")
_PORTS: Final = {"http": 80, "https": 443}


@dataclass(frozen=True, slots=True)
class Origin:
    """Whom a key may be sent to: scheme, host and port."""

    scheme: str
    host: str
    port: int

    @classmethod
    def of(cls, url: str) -> Origin:
        """Return the origin of a URL; raises `ValueError` where it has none."""
        parts = urlsplit(url)
        if parts.scheme not in _PORTS or not parts.hostname:
            raise ValueError(f"{url!r} is no http(s) URL")
        return cls(parts.scheme, parts.hostname.lower(), parts.port or _PORTS[parts.scheme])

    @property
    def is_loopback(self) -> bool:
        """Say whether what is sent there stays in this machine."""
        if self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False


def base_of(url: str, *, is_clear_text_allowed: bool) -> str:
    """Return the URL that paths such as `/v1/batches` are added to, with or without a `/v1` at its end.

    Raises `UsageError` for what is no such URL, and for `http://` to another machine unless that is allowed.
    """
    try:
        parts = urlsplit(url)
        origin = Origin.of(url)
    except ValueError:
        raise UsageError(f"{url!r} is no URL of a server", hint="such as https://nightrate.example.com") from None
    if parts.username is not None or parts.password is not None or parts.query or parts.fragment:
        raise UsageError(
            "the server's URL has more than a host and a path",
            hint="the key goes into NIGHTRATE_API_KEY, not into the URL",
        )
    if origin.scheme == "http" and not origin.is_loopback and not is_clear_text_allowed:
        raise UsageError(
            f"http:// would send the API key to {origin.host} in clear text",
            hint="use https://; on a network that you trust, --insecure-http or NIGHTRATE_INSECURE_HTTP=true",
        )
    path = parts.path.rstrip("/").removesuffix("/v1").rstrip("/")
    return f"{parts.scheme}://{parts.netloc}{path}"


def checked_key(key: str) -> str:
    """Return the key, or raise `UsageError` where it is none that a header can hold; it is not shown."""
    if not key:
        raise UsageError(
            "the server wants an API key", hint="set NIGHTRATE_API_KEY; `nightrate keys create` makes one there"
        )
    if _KEY.fullmatch(key) is None:
        raise UsageError(
            "the API key has characters that no key has", hint="see NIGHTRATE_API_KEY for a stray blank or line end"
        )
    return key
