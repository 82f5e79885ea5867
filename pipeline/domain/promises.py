"""Promises: whether the fleet that is sure to be there can meet a batch's deadline beside those promised before."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType
from typing import Final


class Promise(StrEnum):
    """What the scheduler said of a batch's deadline."""

    #: Not asked yet.
    PENDING = "pending"
    #: The guard runs it before all else when time gets short.
    MADE = "made"
    #: It runs in its turn, and may expire with a part of its results.
    DECLINED = "declined"


#: What each says of the deadline, after its date.
PROMISES: Final[Mapping[Promise, str]] = MappingProxyType(
    {
        Promise.PENDING: "not promised yet",
        Promise.MADE: "promised",
        Promise.DECLINED: "not promised: the live workers may not be enough",
    }
)

assert set(PROMISES) == set(Promise)
