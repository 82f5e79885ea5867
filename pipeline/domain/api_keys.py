"""API keys as they are written and as they are stored: `sk-nr-<id>-<secret>`.

The secret is 256 random bits, so a fast hash is enough to store it: nobody tries 2^256 of them. The hash is keyed
(BLAKE2b, RFC 7693), so that an installation that sets `key_pepper` also protects keys from whoever can write into its
database.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from dataclasses import dataclass
from typing import Final

from pipeline.domain.ids import ApiKeyId

_SECRET_BYTES: Final = 32
_WRITTEN: Final = re.compile(r"sk-nr-(?P<id>[0-9a-f]{32})-(?P<secret>[A-Za-z0-9_-]{43})", re.ASCII)
_ID_PREFIX: Final = "key_"


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyText:
    """A key as its owner has it."""

    key_id: ApiKeyId
    secret: str

    def __str__(self) -> str:
        return f"sk-nr-{self.key_id.removeprefix(_ID_PREFIX)}-{self.secret}"

    def __repr__(self) -> str:
        # What ends up in logs and tracebacks.
        return f"KeyText({self.key_id})"

    @property
    def hint(self) -> str:
        """Return what tells keys apart without giving any away."""
        return f"sk-nr-…{self.secret[-4:]}"


def new_key(key_id: ApiKeyId) -> KeyText:
    """Return a fresh secret for that key."""
    return KeyText(key_id=key_id, secret=secrets.token_urlsafe(_SECRET_BYTES))


def read_key(text: str) -> KeyText | None:
    """Return the key that `text` is; None where it cannot be one."""
    match = _WRITTEN.fullmatch(text)
    return KeyText(key_id=ApiKeyId(_ID_PREFIX + match["id"]), secret=match["secret"]) if match else None


def digest(key: KeyText, pepper: str) -> str:
    """Return what is stored of a key: hex of 32 bytes."""
    salt = hashlib.sha256(f"nightrate:{pepper}".encode()).digest()
    return hashlib.blake2b(key.secret.encode(), key=salt, digest_size=32).hexdigest()


def is_key(key: KeyText, pepper: str, stored: str) -> bool:
    """Say, in constant time, whether `stored` is that key's digest."""
    return hmac.compare_digest(digest(key, pepper), stored)
