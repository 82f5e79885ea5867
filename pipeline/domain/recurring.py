"""Recurring batches: what becomes of a firing, and the policies that decide it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType
from typing import Final

from pipeline.domain.errors import UsageError
from pipeline.domain.limits import RECURRING_NAME_CHARS_MAX

_NAME: Final = re.compile(rf"[a-z0-9][a-z0-9._-]{{0,{RECURRING_NAME_CHARS_MAX - 1}}}", re.ASCII)


class Overlap(StrEnum):
    """What a firing does while the batch of an earlier one has not ended."""

    SKIP = "skip"
    QUEUE = "queue"
    ALLOW = "allow"


class CatchUp(StrEnum):
    """Which of the firings that nobody was there for are made up for."""

    NONE = "none"
    LAST = "last"
    ALL = "all"


class FiringOutcome(StrEnum):
    """What became of a firing; until it is decided, a firing has none."""

    SUBMITTED = "submitted"
    SKIPPED_OVERLAP = "skipped_overlap"
    SKIPPED_CATCH_UP = "skipped_catch_up"
    FAILED = "failed"


OVERLAPS: Final[Mapping[Overlap, str]] = MappingProxyType(
    {
        Overlap.SKIP: "left out while an earlier batch runs",
        Overlap.QUEUE: "waits until the earlier batch has ended",
        Overlap.ALLOW: "runs beside earlier batches",
    }
)
CATCH_UPS: Final[Mapping[CatchUp, str]] = MappingProxyType(
    {
        CatchUp.NONE: "what was missed is left out",
        CatchUp.LAST: "the last one missed is made up for",
        CatchUp.ALL: "all that were missed are made up for",
    }
)

assert set(OVERLAPS) == set(Overlap)
assert set(CATCH_UPS) == set(CatchUp)


def check_name(name: str) -> str:
    """Return the name, or raise `UsageError` saying what a name may be."""
    if not _NAME.fullmatch(name):
        raise UsageError(
            f"{name!r} is not a name for a recurring batch",
            hint=f"up to {RECURRING_NAME_CHARS_MAX} of a-z, 0-9, '.', '_' and '-', a letter or digit first",
        )
    return name
