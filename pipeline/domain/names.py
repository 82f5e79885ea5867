"""Names that people give to tenants, projects and keys."""

from __future__ import annotations

import re
from typing import Final

from pipeline.domain.errors import UsageError

NAME_CHARS_MAX: Final = 100
#: What no text of Postgres can hold.
_UNSTORABLE: Final = re.compile(r"[\x00\ud800-\udfff]")


def checked_name(name: str, *, whose: str) -> str:
    """Return the name, or raise `UsageError` where it is empty, too long, or no text."""
    if not 1 <= len(name) <= NAME_CHARS_MAX:
        raise UsageError(f"a {whose}'s name has 1 to {NAME_CHARS_MAX} characters, this one has {len(name)}")
    if _UNSTORABLE.search(name):
        raise UsageError(f"a {whose}'s name is text, without NUL characters")
    return name
