"""Sights: what launches, refusals and interruptions have told of offers; nothing else of their capacity is known."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from pipeline.ports.fleet import OfferView
from scheduler.simulate.scene import Offering, Scene
from scheduler.simulate.state import MICROSECONDS

#: Assumed of spot before anything was seen: one machine that lived so long and was taken.
_LIFETIME_ASSUMED: Final = 6 * 3600.0
#: How often lifetimes are worked out again from what was seen.
_LEARNING_SECONDS: Final = 6 * 3600.0


@dataclass(slots=True)
class Sight:
    """What is known of one offer."""

    is_available: bool | None = None
    since: float = 0.0
    seen_at: float = 0.0
    refused_until: float = 0.0
    #: Seconds that machines of it were had, and how many of them were taken away.
    lived_seconds: float = 0.0
    interruptions: int = 0
    #: As last worked out, and when.
    lifetime_seconds: float = _LIFETIME_ASSUMED
    learned_at: float = 0.0

    def see(self, now: float, *, is_available: bool) -> None:
        """Take in that capacity was there, or was not."""
        if self.is_available is not is_available:
            self.is_available, self.since = is_available, now
        self.seen_at = now


class Sights:
    """What is known of all offers."""

    def __init__(self, scene: Scene) -> None:
        """Know nothing yet."""
        self._scene = scene
        self._of = {name: Sight() for name in scene.offerings}

    def launched(self, offer: str, now: float) -> None:
        """Take in that a machine was had."""
        self._of[offer].see(now, is_available=True)
        self._of[offer].refused_until = 0.0

    def refused(self, offer: str, now: float, *, is_quota: bool) -> None:
        """Take in that none was had; of a quota nothing is learned of capacity."""
        sight = self._of[offer]
        sight.refused_until = now + self._scene.refusal_seconds
        if not is_quota:
            sight.see(now, is_available=False)

    def noticed(self, offer: str, now: float) -> None:
        """Take in that a machine will be taken away."""
        self._of[offer].see(now, is_available=False)
        self._of[offer].interruptions += 1

    def lived(self, offer: str, seconds: float) -> None:
        """Take in that a machine is gone, after so long."""
        self._of[offer].lived_seconds += seconds

    def view(self, offering: Offering, now: float, *, live_seconds: float) -> OfferView:
        """Return what a policy is told of an offer, machines of which have been live for `live_seconds` together."""
        sight = self._of[offering.name]
        is_old = now - sight.seen_at > self._scene.sight_seconds and live_seconds <= 0
        is_spot = offering.capacity is not None
        known = None if sight.is_available is None or is_old else sight.is_available
        if now - sight.learned_at >= _LEARNING_SECONDS:
            lived = sight.lived_seconds + live_seconds
            sight.lifetime_seconds = (lived + _LIFETIME_ASSUMED) / (sight.interruptions + 1)
            sight.learned_at = now // _LEARNING_SECONDS * _LEARNING_SECONDS
        rule = offering.rule
        return OfferView(
            offer=offering.name,
            pool=offering.pool,
            market=offering.market,
            provider=offering.provider,
            instance_type=offering.instance_type,
            region=offering.region,
            zone=offering.zone,
            rate_micros_per_hour=offering.rate_micros_per_hour,
            minimum_seconds=rule.minimum_us / MICROSECONDS,
            free_if_taken_within_seconds=rule.free_below_us / MICROSECONDS,
            workers_max=offering.workers_max,
            refused_until_us=round(sight.refused_until * MICROSECONDS) if sight.refused_until > now else 0,
            is_available=known if is_spot else True,
            available_since_us=round(sight.since * MICROSECONDS) if is_spot and known else None,
            lifetime_seconds=sight.lifetime_seconds if is_spot else float("inf"),
        )
