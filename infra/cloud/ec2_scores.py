"""What EC2 thinks of the chance to get spot machines: 1 to 10, by region or zone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from mypy_boto3_ec2 import EC2Client

_PAGE: Final = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class PlacementScore:
    """One of the ten best places."""

    region: str
    #: The same for all accounts, unlike a zone's name; None: the whole region.
    zone_id: str | None
    #: 10: very likely to be had.
    score: int


def placement_scores(
    client: EC2Client, instance_types: Sequence[str], *, count: int, regions: Sequence[str], by_zone: bool
) -> list[PlacementScore]:
    """Return the scores, the best first; raises boto3's errors."""
    pages = client.get_paginator("get_spot_placement_scores").paginate(
        InstanceTypes=list(instance_types),
        TargetCapacity=count,
        TargetCapacityUnitType="units",
        SingleAvailabilityZone=by_zone,
        RegionNames=list(regions),
        PaginationConfig={"PageSize": _PAGE},
    )
    scores = [
        PlacementScore(region=entry["Region"], zone_id=entry.get("AvailabilityZoneId"), score=entry["Score"])
        for page in pages
        for entry in page["SpotPlacementScores"]
    ]
    return sorted(scores, key=lambda score: (-score.score, score.region, score.zone_id or ""))
