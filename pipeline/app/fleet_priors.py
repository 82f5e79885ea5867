"""First guesses of how long spot machines last, from what providers say, until requests have shown it."""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Final

from pipeline.app.fleet_view import RentableOffer
from pipeline.domain.costs.prices import Market
from pipeline.ports.fleet import MachineProvider, ProviderUnavailableError, SpotScorer

_LOG = logging.getLogger(__name__)

#: What says neither good nor bad.
_MIDDLE: Final = 5


def spot_priors(offers: Iterable[RentableOffer], providers: Mapping[str, MachineProvider]) -> dict[str, float]:
    """Return by offer how much longer than others its machines are thought to last; offers that nobody scores are left out.

    A provider that cannot be asked now says nothing.
    """
    by_type: dict[tuple[str, str], list[RentableOffer]] = defaultdict(list)
    for offer in offers:
        if offer.offer.market is Market.SPOT and offer.offer.instance_type is not None:
            by_type[offer.settings.provider, offer.offer.instance_type].append(offer)
    found: dict[str, float] = {}
    for (name, instance_type), scored in by_type.items():
        provider: object = providers.get(name)
        if not isinstance(provider, SpotScorer):
            continue
        try:
            scores = provider.spot_scores([instance_type])
        except ProviderUnavailableError as error:
            _LOG.warning("spot_scores_unavailable", extra={"provider": name, "reason": str(error)})
            continue
        for each in scored:
            score = scores.get(each.offer.zone or "", scores.get(each.offer.region or ""))
            if score is not None:
                found[each.name] = score / _MIDDLE
    return found
