"""What providers say of spot before anybody has tried it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import pytest

from pipeline.app.fleet_priors import spot_priors
from pipeline.app.fleet_view import offers_of
from pipeline.config import Settings
from pipeline.fleet_settings import FleetSettings
from pipeline.ports.fleet import MachineProvider, ProviderUnavailableError
from pipeline.rate_settings import RateCardSettings
from tests.pipeline.fleet.cloud import Cloud

_SPOT = {"provider": "cloud", "market": "spot"}
_FLEET = {
    "pools": {
        "gpu": {
            "offers": [
                {**_SPOT, "zone": "use1-az1"},
                {**_SPOT, "zone": "use1-az4"},
                {**_SPOT, "zone": "use1-az9"},
                {"provider": "cloud"},
                {"provider": "local", "market": "spot"},
            ]
        }
    },
    "scripts": {"cloud": {"start": ["true"], "stop": ["true"]}},
}
_CARD = {"pools": {"gpu": {"provider": "aws", "instance_type": "g6.xlarge", "region": "us-east-1"}}}


@dataclass(slots=True)
class ScoringCloud(Cloud):
    """A cloud that says what it thinks."""

    scores: dict[str, int] = field(default_factory=dict)

    def spot_scores(self, instance_types: Sequence[str]) -> Mapping[str, int]:
        if self.is_away:
            raise ProviderUnavailableError("nobody answers")
        return self.scores if list(instance_types) == ["g6.xlarge"] else {}


def priors(cloud: MachineProvider) -> dict[str, float]:
    settings = Settings(fleet=FleetSettings.model_validate(_FLEET), rate_card=RateCardSettings.model_validate(_CARD))
    return spot_priors(offers_of(settings), {"cloud": cloud, "local": Cloud()})


def test_an_offer_is_thought_of_as_its_zone_is_scored() -> None:
    assert priors(ScoringCloud(scores={"use1-az1": 1, "use1-az4": 10})) == pytest.approx(
        {"gpu/cloud/spot/use1-az1": 0.2, "gpu/cloud/spot/use1-az4": 2.0}
    )


def test_a_region_stands_for_its_zones_where_it_alone_is_scored() -> None:
    assert set(priors(ScoringCloud(scores={"us-east-1": 6})).values()) == {1.2}


def test_who_does_not_answer_or_scores_nothing_says_nothing() -> None:
    assert priors(ScoringCloud(is_away=True)) == {}
    assert priors(Cloud()) == {}
