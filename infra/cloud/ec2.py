"""Machines at EC2: an instant fleet of one for each worker.

A worker's token is in its request and in its machine's tags. The token makes a repeated request the same request while
EC2 remembers it; the tags are looked up before every start, for whatever came before.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from threading import Event
from typing import TYPE_CHECKING, Final

from botocore.exceptions import BotoCoreError, ClientError

from infra.cloud.ec2_errors import (
    INSTANCE_GONE,
    MISMATCH,
    TEMPLATE_GONE,
    code_of,
    ec2_errors,
    kind_of,
    likeliest,
    refusal_of,
)
from infra.cloud.ec2_scores import PlacementScore, placement_scores
from infra.cloud.ec2_templates import LaunchTemplates, tagged
from infra.cloud.ec2_terms import REQUESTS_AT_ONCE, Ec2Terms, connect
from infra.cloud.marks import DEPLOYMENT, WORKER, marks_of, objection, token_of
from pipeline.domain.costs.prices import Market
from pipeline.domain.errors import UsageError
from pipeline.domain.ids import WorkerId
from pipeline.ports.fleet import Launch, Launched, Machine, MachineState, RefusalKind, Refused

if TYPE_CHECKING:
    from mypy_boto3_ec2.type_defs import (
        CreateFleetRequestTypeDef,
        CreateFleetResultTypeDef,
        FilterTypeDef,
        FleetLaunchTemplateOverridesRequestTypeDef,
        InstanceTypeDef,
    )

#: Of one request, below EC2's own limits.
_FILTER_VALUES_MAX: Final = 100
_TERMINATED_AT_ONCE: Final = 100
_PAGE: Final = 500
_MARKETS: Final = frozenset({Market.SPOT, Market.ON_DEMAND})
#: As EC2 calls the states of what is not gone. One that somebody halted still pays for its volume.
_STATES: Final[Mapping[str, MachineState]] = {
    "pending": MachineState.PENDING,
    "running": MachineState.RUNNING,
    "stopping": MachineState.STOPPING,
    "shutting-down": MachineState.STOPPING,
    "stopped": MachineState.RUNNING,
}
_EVER: Final = (*_STATES, "terminated")


class Ec2Provider:
    """A `MachineProvider` of one region. Safe to share between threads."""

    def __init__(
        self, terms: Ec2Terms, *, name: str = "ec2", now: Callable[[], datetime] = lambda: datetime.now(UTC)
    ) -> None:
        """Ask nothing yet; raises `UsageError` where boto3 cannot ask by these terms."""
        self.terms = terms
        self._name = name
        self._now = now
        self._client = connect(terms)
        self._templates = LaunchTemplates(self._client, terms, now=now)
        self._zone_of_subnet = {subnet: zone for zone, subnet in terms.subnets.items()}

    @property
    def name(self) -> str:
        """What settings and tables call it."""
        return self._name

    def start(self, launches: Sequence[Launch]) -> list[Launched | Refused]:
        """Start machines; see the port. Once EC2 has had enough, the rest of them is not asked for."""
        if not launches:
            return []
        earlier = self._started_earlier([launch.worker_id for launch in launches])
        had_enough = Event()

        def start(launch: Launch) -> Launched | Refused:
            if launch.worker_id in earlier:
                return earlier[launch.worker_id]
            if had_enough.is_set():
                message = "not asked for: EC2 has had enough requests for now"
                return Refused(worker_id=launch.worker_id, kind=RefusalKind.THROTTLED, message=message)
            answer = self._start(launch)
            if isinstance(answer, Refused) and answer.kind is RefusalKind.THROTTLED:
                had_enough.set()
            return answer

        with ThreadPoolExecutor(max_workers=min(REQUESTS_AT_ONCE, len(launches))) as threads:
            return list(threads.map(start, launches))

    def stop(self, provider_ids: Sequence[str]) -> None:
        """Terminate machines; those that EC2 does not know any more are passed over, one by one."""
        for first in range(0, len(provider_ids), _TERMINATED_AT_ONCE):
            self._terminate(list(provider_ids[first : first + _TERMINATED_AT_ONCE]))

    def machines(self) -> list[Machine]:
        """Return the machines that carry this deployment's mark and are not gone."""
        with ec2_errors("list machines"):
            return [
                Machine(
                    provider_id=instance["InstanceId"],
                    state=_STATES[instance["State"]["Name"]],
                    worker_id=_worker_of(instance),
                    launched_at=instance.get("LaunchTime"),
                )
                for instance in self._instances([], tuple(_STATES))
            ]

    def placement_scores(
        self, instance_types: Sequence[str], *, count: int = 1, regions: Sequence[str] = (), by_zone: bool = True
    ) -> list[PlacementScore]:
        """Return how likely EC2 thinks that `count` spot machines of any of these types can be had, region or zone by one.

        A prior, and no promise; EC2 scores low where fewer than three types are named. Raises `ProviderUnavailableError`.
        """
        with ec2_errors("tell placement scores"):
            asked = regions or (self.terms.region,)
            return placement_scores(self._client, instance_types, count=count, regions=asked, by_zone=by_zone)

    def spot_scores(self, instance_types: Sequence[str]) -> Mapping[str, int]:
        """Return the scores of the region's zones by their ids; of zones that EC2 does not list nothing is known."""
        scores = self.placement_scores(instance_types)
        return {score.zone_id or score.region: score.score for score in scores}

    def _started_earlier(self, worker_ids: Sequence[WorkerId]) -> dict[WorkerId, Launched]:
        """Return which workers have or had a machine; of several, that of the first launch."""
        found: dict[WorkerId, Launched] = {}
        with ec2_errors("look machines up"):
            for first in range(0, len(worker_ids), _FILTER_VALUES_MAX):
                wanted = list(worker_ids[first : first + _FILTER_VALUES_MAX])
                for instance in self._instances([{"Name": f"tag:{WORKER}", "Values": wanted}], _EVER):
                    launched = self._launched(instance)
                    held = found.get(launched.worker_id)
                    order = (launched.launched_at, launched.provider_id)
                    if held is None or order < (held.launched_at, held.provider_id):
                        found[launched.worker_id] = launched
        return found

    def _launched(self, instance: InstanceTypeDef) -> Launched:
        worker_id = _worker_of(instance)
        assert worker_id is not None
        return Launched(
            worker_id=worker_id,
            provider_id=instance["InstanceId"],
            launched_at=instance["LaunchTime"],
            zone=instance.get("Placement", {}).get("AvailabilityZone"),
        )

    def _instances(self, filters: Sequence[FilterTypeDef], states: Sequence[str]) -> Iterator[InstanceTypeDef]:
        pages = self._client.get_paginator("describe_instances").paginate(
            Filters=[
                {"Name": f"tag:{DEPLOYMENT}", "Values": [self.terms.deployment]},
                {"Name": "instance-state-name", "Values": list(states)},
                *filters,
            ],
            PaginationConfig={"PageSize": _PAGE},
        )
        for page in pages:
            for reservation in page["Reservations"]:
                yield from reservation["Instances"]

    def _start(self, launch: Launch) -> Launched | Refused:
        problem = objection(launch) or self._objection(launch)
        if problem is not None:
            return Refused(worker_id=launch.worker_id, kind=RefusalKind.REJECTED, message=problem)
        template = None
        try:
            template = self._templates.name_of(launch)
            return self._answer(launch, self._client.create_fleet(**self._request(launch, template)))
        except UsageError as error:
            return Refused(worker_id=launch.worker_id, kind=RefusalKind.REJECTED, message=str(error))
        except (ClientError, BotoCoreError) as error:
            kind, message = refusal_of(error)
            if isinstance(error, ClientError) and code_of(error) in TEMPLATE_GONE and template is not None:
                self._templates.forget(template)
                kind = RefusalKind.THROTTLED
            if isinstance(error, ClientError) and code_of(error) == MISMATCH:
                # An earlier try was made under other settings: its machine, if it has one, will be listed shortly.
                kind = RefusalKind.THROTTLED
            return Refused(worker_id=launch.worker_id, kind=kind, message=message)

    def _objection(self, launch: Launch) -> str | None:
        if launch.market not in _MARKETS:
            return f"EC2 machines are started on spot or on demand, not as {launch.market}"
        if launch.instance_type is None:
            return f"the offer {launch.offer} names no instance type"
        if launch.region not in {None, self.terms.region}:
            return f"{self._name} starts machines in {self.terms.region}, not in {launch.region}"
        if launch.zone is not None and launch.zone not in self.terms.subnets:
            return (
                f"{self._name} has no subnet in {launch.zone}; it has some in {', '.join(sorted(self.terms.subnets))}"
            )
        return None

    def _request(self, launch: Launch, template: str) -> CreateFleetRequestTypeDef:
        marks = {**self.terms.tags, **marks_of(launch, self.terms.deployment), "Name": f"nightrate-{launch.pool}"}
        return {
            "Type": "instant",
            "ClientToken": token_of(launch.worker_id, self.terms.deployment),
            "LaunchTemplateConfigs": [
                {
                    "LaunchTemplateSpecification": {"LaunchTemplateName": template, "Version": "1"},
                    "Overrides": list(self._overrides(launch)),
                }
            ],
            "SpotOptions": {
                "AllocationStrategy": "price-capacity-optimized",
                "InstanceInterruptionBehavior": "terminate",
            },
            "OnDemandOptions": {"AllocationStrategy": "lowest-price"},
            "TargetCapacitySpecification": {
                "TotalTargetCapacity": 1,
                "DefaultTargetCapacityType": "spot" if launch.market is Market.SPOT else "on-demand",
            },
            "TagSpecifications": [tagged("instance", marks), tagged("volume", marks), tagged("fleet", marks)],
        }

    def _overrides(self, launch: Launch) -> Iterator[FleetLaunchTemplateOverridesRequestTypeDef]:
        assert launch.instance_type is not None
        subnets = self.terms.subnets.values() if launch.zone is None else [self.terms.subnets[launch.zone]]
        for instance_type in (launch.instance_type, *self.terms.alternatives.get(launch.instance_type, ())):
            for subnet in subnets:
                # EC2 has a type of its own for the names of machines.
                yield {"InstanceType": instance_type, "SubnetId": subnet}  # type: ignore[typeddict-item]

    def _answer(self, launch: Launch, answer: CreateFleetResultTypeDef) -> Launched | Refused:
        """Return the machine of an answer, which may tell of places that had none, too; or why there is none."""
        for entry in answer.get("Instances", ()):
            for provider_id in entry.get("InstanceIds", ()):
                chosen = entry.get("LaunchTemplateAndOverrides", {}).get("Overrides", {})
                zone = chosen.get("AvailabilityZone") or self._zone_of_subnet.get(chosen.get("SubnetId", ""))
                return Launched(
                    worker_id=launch.worker_id,
                    provider_id=provider_id,
                    launched_at=self._now(),
                    zone=zone or launch.zone,
                )
        errors = answer.get("Errors", ())
        told = dict.fromkeys(f"{error.get('ErrorCode')}: {error.get('ErrorMessage')}" for error in errors)
        return Refused(
            worker_id=launch.worker_id,
            # Neither a machine nor an error: it had none.
            kind=likeliest(kind_of(error.get("ErrorCode", "")) for error in errors) if errors else RefusalKind.CAPACITY,
            message="; ".join(told) or "EC2 started no machine, and did not say why",
        )

    def _terminate(self, ids: list[str]) -> None:
        with ec2_errors("terminate machines"):
            try:
                self._client.terminate_instances(InstanceIds=ids)
            except ClientError as error:
                if code_of(error) not in INSTANCE_GONE:
                    raise
                # It refused all of them for the sake of one.
                if len(ids) > 1:
                    for provider_id in ids:
                        self._terminate([provider_id])


def _worker_of(instance: InstanceTypeDef) -> WorkerId | None:
    for tag in instance.get("Tags", ()):
        if tag.get("Key") == WORKER:
            return WorkerId(tag.get("Value", ""))
    return None
