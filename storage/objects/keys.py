"""Which keys and prefixes are accepted: one rule for every store.

A key is one or more segments joined by `/`. A segment is 1 to 255 of `A-Z a-z 0-9 . _ = -` and does
not begin with a dot, which rules out `..`, hidden files and the stores' own working areas at once.

Two keys of which one is the other's parent (`a` and `a/b`) must not both be used: a file system
cannot hold both. `LocalStore` refuses the second one; S3 servers differ in what they do.
"""

from __future__ import annotations

import re
from typing import Final

from pipeline.domain.errors import UsageError

#: With a store's own prefix this stays under the 1024 bytes that S3 allows.
KEY_CHARS_MAX: Final = 512
#: What ext4, XFS and APFS allow for one file name.
SEGMENT_CHARS_MAX: Final = 255

_SEGMENT: Final = re.compile(r"[A-Za-z0-9_=-][A-Za-z0-9._=-]*")
_ACCEPTED: Final = (
    f"a key is at most {KEY_CHARS_MAX} characters: segments of A-Z a-z 0-9 . _ = - joined by '/', "
    f"each 1 to {SEGMENT_CHARS_MAX} long and not beginning with a dot"
)
#: How much of a refused key a message repeats.
_SHOWN_CHARS_MAX: Final = 80

assert SEGMENT_CHARS_MAX <= KEY_CHARS_MAX


def is_key(text: str) -> bool:
    """Say whether `text` is a key."""
    return len(text) <= KEY_CHARS_MAX and all(_is_segment(segment) for segment in text.split("/"))


def check_key(key: str) -> str:
    """Return `key`, or raise `UsageError` where it is not one."""
    if not is_key(key):
        raise UsageError(f"not an object key: {_shown(key)}", hint=_ACCEPTED)
    return key


def check_prefix(prefix: str) -> str:
    """Return `prefix`, or raise `UsageError` where no key can begin with it.

    A prefix is a raw string: `a/b` covers `a/b`, `a/b/c` and `a/bc`. End it with `/` to mean a folder.
    """
    complete, _, partial = prefix.rpartition("/")
    is_plausible = (not complete and prefix[:1] != "/") or is_key(complete)
    if len(prefix) > KEY_CHARS_MAX or not is_plausible or (partial and not _is_segment(partial)):
        raise UsageError(f"not the beginning of an object key: {_shown(prefix)}", hint=_ACCEPTED)
    return prefix


def _is_segment(text: str) -> bool:
    return len(text) <= SEGMENT_CHARS_MAX and _SEGMENT.fullmatch(text) is not None


def _shown(text: str) -> str:
    return repr(text if len(text) <= _SHOWN_CHARS_MAX else f"{text[:_SHOWN_CHARS_MAX]}…")
