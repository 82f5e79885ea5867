"""What `[fleet]` in nightrate.toml accepts, and what it says of the rest."""

from __future__ import annotations

import re
from typing import Any, get_args

import pytest
from pydantic import ValidationError

from pipeline.fleet_settings import FleetSettings, Watch, watch_of
from scheduler.fleet.policies import FLEET_POLICIES

LOCAL = {"provider": "local"}


def pools(**pool: Any) -> dict[str, Any]:  # noqa: ANN401 -- fields of a pool
    return {"pools": {"gpu": {"offers": [LOCAL], **pool}}}


def test_the_policies_that_can_be_named_are_those_that_there_are() -> None:
    assert get_args(FleetSettings.model_fields["policy"].annotation) == tuple(FLEET_POLICIES)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (pools(offers=[]), "at least 1 item"),
        (pools(offers=[LOCAL, LOCAL]), "two offers are the same"),
        (pools(offers=[{"provider": "ec2"}]), "say how in [fleet.ec2]"),
        (pools(offers=[{"provider": "gcp"}]), "there is no provider 'gcp', but local, outside"),
        (pools(offers=[{"provider": "outside"}, LOCAL]), "has that offer alone"),
        (pools(workers_min=3, workers_max=2), "workers_min is 3 and workers_max 2"),
        (pools(tiers=["fastest"]), "'urgent'"),
        ({**pools(), "policy": "best"}, "'nightrate'"),
        ({"scripts": {"ec2": {"start": ["a"], "stop": ["b"]}}}, "that name is built in"),
    ],
)
def test_what_makes_no_sense_is_refused_in_words(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=re.escape(said)):
        FleetSettings.model_validate(settings)


def test_workers_wait_for_the_word_of_whoever_takes_their_machine() -> None:
    script = {"start": ["a"], "stop": ["b"], "watch": "gcp"}
    fleet = FleetSettings.model_validate({"scripts": {"gce": script, "slurm": {"start": ["a"], "stop": ["b"]}}})

    assert {name: watch_of(fleet, name) for name in ("ec2", "kubernetes", "local", "gce", "slurm")} == {
        "ec2": Watch.AWS,
        "kubernetes": Watch.KUBERNETES,
        "local": None,
        "gce": Watch.GCP,
        "slurm": None,
    }
