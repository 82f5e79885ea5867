"""What requests for machines taught of spot offers, for the policies that decide by how long capacity lasts."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Final

from pipeline.domain.costs.prices import Market
from pipeline.domain.lifecycle import WorkerEnd
from pipeline.ports.fleet import RefusalKind
from scheduler.fleet.sightings import Sighting
from storage.fleet import Rented

_TAKEN: Final = frozenset({WorkerEnd.INTERRUPTED, WorkerEnd.LOST})
#: When a machine is taken, there is none for a moment at least.
_MOMENT: Final = timedelta(seconds=1)


def sightings_of(rented: Iterable[Rented], now: datetime) -> dict[str, list[Sighting]]:
    """Return what was seen of each spot offer: machines that ran, requests that were refused, machines that were taken."""
    found: dict[str, list[Sighting]] = defaultdict(list)
    for each in rented:
        if each.market is not Market.SPOT:
            continue
        seen = found[each.offer]
        if each.launched_at is not None:
            stopped = each.ended_at or now
            seen.append(_seen(each.launched_at, stopped, is_available=True))
            if each.end in _TAKEN and each.ended_at is not None:
                seen.append(_seen(stopped, stopped + _MOMENT, is_available=False))
        elif each.refusal is RefusalKind.CAPACITY and each.ended_at is not None:
            seen.append(_seen(each.requested_at, each.ended_at + _MOMENT, is_available=False))
    return dict(found)


def _seen(start: datetime, stop: datetime, *, is_available: bool) -> Sighting:
    return Sighting(
        from_us=round(start.timestamp() * 1e6), to_us=round(stop.timestamp() * 1e6), is_available=is_available
    )
