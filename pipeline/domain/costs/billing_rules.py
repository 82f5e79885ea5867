"""Billing rules as data: how providers round, what they charge at least, and what they give away.

A rule is never changed once a bill was made by it: what a provider changes is a new rule with a new version.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

_SECOND_US: Final = 1_000_000
_MINUTE_US: Final = 60 * _SECOND_US
_HOUR_US: Final = 3600 * _SECOND_US


@dataclass(frozen=True, slots=True, kw_only=True)
class BillingRule:
    """How one provider charges for time."""

    #: With its version, as bills name it.
    name: str
    #: Time is charged in whole ones of these.
    unit_us: int
    #: Charged for the shortest life, too.
    minimum_us: int = 0
    #: A spot instance that the provider interrupts at an age below this costs nothing.
    free_below_us: int = 0
    #: Whether the unit that an interruption falls into costs nothing.
    is_broken_unit_free: bool = False
    #: Where that is said.
    source: str

    def rounded_us(self, length_us: int) -> int:
        """Return the length in whole units, the last one begun counted in full."""
        return -(-length_us // self.unit_us) * self.unit_us

    def billed_us(self, length_us: int, *, is_interrupted_spot: bool) -> int:
        """Return how much time is charged for a life of that length."""
        if is_interrupted_spot and length_us < self.free_below_us:
            return 0
        if is_interrupted_spot and self.is_broken_unit_free:
            return max(length_us // self.unit_us * self.unit_us, self.minimum_us)
        return max(self.rounded_us(length_us), self.minimum_us)


AWS_LINUX_V1: Final = BillingRule(
    name="aws_linux_v1",
    unit_us=_SECOND_US,
    minimum_us=_MINUTE_US,
    free_below_us=_HOUR_US,
    source="Amazon EC2 User Guide, 'Billing for interrupted Spot Instances', and EC2 pricing: Linux per second, 60 s at least; "
    "interrupted by EC2 in the first hour: no charge; ended by the customer: seconds used",
)
AWS_HOURLY_V1: Final = BillingRule(
    name="aws_hourly_v1",
    unit_us=_HOUR_US,
    minimum_us=_HOUR_US,
    free_below_us=_HOUR_US,
    is_broken_unit_free=True,
    source="Amazon EC2 User Guide, 'Billing for interrupted Spot Instances': SUSE, and RHEL in older editions: an hour begun is "
    "charged in full, the hour of an interruption not at all",
)
GCP_V1: Final = BillingRule(
    name="gcp_v1",
    unit_us=_SECOND_US,
    minimum_us=_MINUTE_US,
    free_below_us=_MINUTE_US,
    source="Compute Engine documentation, from memory: per second, one minute at least; a Spot VM preempted in its first minute "
    "costs nothing",
)
AZURE_V1: Final = BillingRule(
    name="azure_v1",
    unit_us=_SECOND_US,
    source="Azure virtual machine pricing, from memory: per second, nothing is free",
)
FLAT_V1: Final = BillingRule(
    name="flat_v1",
    unit_us=1,
    source="a machine of one's own, or one whose provider is not known: what was used, to the microsecond",
)

BILLING_RULES: Final[Mapping[str, BillingRule]] = MappingProxyType(
    {rule.name: rule for rule in (AWS_LINUX_V1, AWS_HOURLY_V1, GCP_V1, AZURE_V1, FLAT_V1)}
)
_OF_PROVIDER: Final[Mapping[str, BillingRule]] = MappingProxyType(
    {"aws": AWS_LINUX_V1, "gcp": GCP_V1, "azure": AZURE_V1}
)


def rule_of(provider: str | None) -> BillingRule:
    """Return the rule by which a provider bills Linux machines; of others, what is used is charged."""
    return _OF_PROVIDER.get(provider or "", FLAT_V1)
