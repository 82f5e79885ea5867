"""The port to the record of rows that are judged again: chosen with the commit, judged once, folded into a watch once."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Protocol

from pipeline.domain.endpoints import Endpoint
from pipeline.domain.shadow import Watch
from pipeline.domain.tiers import Tier
from pipeline.domain.wealth import Bounds


@dataclass(frozen=True, slots=True, kw_only=True)
class ShadowSample:
    """A row to be judged: where its request and its answer lie in the object store."""

    sample_id: int
    model: str
    variant: str
    endpoint: Endpoint
    shard_key: str
    shard_sha256: str
    position: int
    part_key: str
    part_sha256: str
    #: Which of the part's result lines, from 0.
    line_no: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """What the reference made of a sample."""

    sample_id: int
    #: As a share of 1; None where nothing can be made of it.
    x: float | None
    tokens: int
    bounds: Bounds


@dataclass(frozen=True, slots=True, kw_only=True)
class Rollback:
    """A tier that may not run on a variant any more."""

    variant: str
    tier: Tier
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Watched:
    """What is known of a variant in production, for one gate key and tier."""

    gate_key: str
    tier: Tier
    watch: Watch
    #: Samples nobody has judged yet, of the gate key.
    waiting: int


class ShadowStore(Protocol):
    """Samples and watches."""

    def claim(self, models: Collection[str], count: int, *, hold_for: timedelta) -> tuple[ShadowSample, ...]:
        """Take up to `count` waiting samples of these models, the newest first, that nobody else holds now.

        Who does not record them within `hold_for` has lost them to the next who asks.
        """

    def record(self, findings: Sequence[Finding]) -> tuple[Rollback, ...]:
        """Store what was found, fold it into the watches, and roll back what is shown beyond its margin, all at once.

        A sample that was recorded before changes nothing, so that repeating this is safe.
        """

    def expire(self, *, waiting_for: timedelta, kept_for: timedelta) -> int:
        """Give up samples that waited longer than `waiting_for`, and forget those that ended `kept_for` ago; count both."""

    def watched(self, variant: str) -> tuple[Watched, ...]:
        """Return what is known of the variant in production, by gate key and tier."""
