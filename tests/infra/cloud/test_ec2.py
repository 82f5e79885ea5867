"""Machines at EC2, as moto plays it over HTTP: started once, refused by kind, listed, stopped."""

from __future__ import annotations

import base64
import itertools
import json
import os
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from infra.cloud.ec2 import Ec2Provider
from infra.cloud.ec2_scores import PlacementScore
from infra.cloud.ec2_terms import Ec2Terms, connect
from pipeline.domain.costs.prices import Market
from pipeline.domain.errors import UsageError
from pipeline.domain.ids import WorkerId
from pipeline.domain.lifecycle import WorkerState
from pipeline.ports.fleet import (
    Launch,
    Launched,
    Machine,
    MachineState,
    ProviderUnavailableError,
    RefusalKind,
    Refused,
)
from scheduler.fleet.orphans import KnownWorker, sweep
from tests.infra.cloud.ec2_server import IMAGE, Ec2Server, running_ec2, scores, subnets_of

if TYPE_CHECKING:
    from mypy_boto3_ec2 import EC2Client

REGION = "us-east-1"
ZONE = "us-east-1a"
NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)
NUMBERS = itertools.count()
CLIENTS: dict[str, EC2Client] = {}


@pytest.fixture(scope="module")
def server() -> Iterator[Ec2Server]:
    with running_ec2() as ec2:
        yield ec2


@pytest.fixture
def ec2(server: Ec2Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Ec2Server]:
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIATEST")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    server.asked.clear()
    server.forget_tokens()
    yield server
    assert not any(server.troubles.values())
    server.lacking.clear()


@pytest.fixture
def client(ec2: Ec2Server, monkeypatch: pytest.MonkeyPatch) -> EC2Client:
    """One for all tests: to make it takes a second, for it reads all that EC2 can do."""
    if ec2.url not in CLIENTS:
        CLIENTS[ec2.url] = connect(
            Ec2Terms(
                deployment="x", region=REGION, image_id=IMAGE, subnets={"a": "b"}, command=("c",), endpoint_url=ec2.url
            )
        )
    monkeypatch.setattr("infra.cloud.ec2.connect", lambda _: CLIENTS[ec2.url])
    return CLIENTS[ec2.url]


@pytest.fixture
def terms(ec2: Ec2Server, client: EC2Client) -> Ec2Terms:
    return Ec2Terms(
        # Tests share a server: each is a deployment of its own.
        deployment=f"test-{next(NUMBERS)}",
        region=REGION,
        image_id=IMAGE,
        subnets=subnets_of(client),
        command=("/opt/nightrate/bin/nightrate", "worker"),
        instance_profile="nightrate-worker",
        tags={"team": "inference"},
        endpoint_url=ec2.url,
    )


@pytest.fixture
def provider(terms: Ec2Terms) -> Ec2Provider:
    return Ec2Provider(terms)


def launch(number: int = 1, **changes: object) -> Launch:
    base = Launch(
        worker_id=WorkerId(f"wrk_{number:032x}"),
        pool="large",
        offer="aws/us-east-1a/spot",
        market=Market.SPOT,
        ends_by=NOW + timedelta(hours=12),
        instance_type="m5.large",
        region=REGION,
        zone=ZONE,
        environment={"NIGHTRATE_POOL": "large", "NIGHTRATE_DATABASE_URL": "postgresql://of:secret@host/db"},
    )
    return replace(base, **changes)  # type: ignore[arg-type]


def started(answers: list[Launched | Refused]) -> list[Launched]:
    assert all(isinstance(answer, Launched) for answer in answers), answers
    return [answer for answer in answers if isinstance(answer, Launched)]


def refused(answers: list[Launched | Refused]) -> Refused:
    (answer,) = answers
    assert isinstance(answer, Refused), answer
    return answer


def test_a_machine_is_started_where_it_was_asked_for_and_carries_our_marks(
    ec2: Ec2Server, provider: Ec2Provider, terms: Ec2Terms, client: EC2Client
) -> None:
    (answer,) = started(provider.start([launch()]))

    assert answer.worker_id == launch().worker_id
    assert answer.zone == ZONE
    (asked,) = ec2.actions("CreateFleet")
    assert asked["Type"] == "instant"
    assert asked["SpotOptions.AllocationStrategy"] == "price-capacity-optimized"
    assert asked["TargetCapacitySpecification.DefaultTargetCapacityType"] == "spot"
    kinds = {asked[f"TagSpecification.{index}.ResourceType"] for index in (1, 2, 3)}
    assert kinds == {"instance", "volume", "fleet"}
    instance = client.describe_instances(InstanceIds=[answer.provider_id])["Reservations"][0]["Instances"][0]
    assert {tag["Key"]: tag["Value"] for tag in instance["Tags"] if not tag["Key"].startswith("aws:")} == {
        "Name": "nightrate-large",
        "team": "inference",
        "nightrate:deployment": terms.deployment,
        "nightrate:worker": launch().worker_id,
        "nightrate:pool": "large",
        "nightrate:offer": "aws/us-east-1a/spot",
        "nightrate:ends-by": str(int(launch().ends_by.timestamp())),
    }
    assert instance["Placement"]["AvailabilityZone"] == ZONE


def test_its_template_demands_metadata_by_token_and_ends_it_with_its_shutdown(
    ec2: Ec2Server, provider: Ec2Provider, client: EC2Client
) -> None:
    provider.start([launch()])

    name = ec2.actions("CreateFleet")[0]["LaunchTemplateConfigs.1.LaunchTemplateSpecification.LaunchTemplateName"]
    (version,) = client.describe_launch_template_versions(LaunchTemplateName=name)["LaunchTemplateVersions"]
    data = version["LaunchTemplateData"]
    assert data["InstanceInitiatedShutdownBehavior"] == "terminate"
    assert data["MetadataOptions"]["HttpTokens"] == "required"
    assert data["MetadataOptions"]["HttpPutResponseHopLimit"] == 1
    assert data["MetadataOptions"]["InstanceMetadataTags"] == "enabled"
    assert data["IamInstanceProfile"] == {"Name": "nightrate-worker"}
    assert "NIGHTRATE_POOL=large" in base64.b64decode(data["UserData"]).decode()


def test_no_secret_is_in_a_tag(ec2: Ec2Server, provider: Ec2Provider) -> None:
    provider.start([launch()])

    (asked,) = ec2.actions("CreateFleet")
    assert not [name for name, value in asked.items() if "secret" in value]


def test_machines_with_the_same_settings_share_a_template(ec2: Ec2Server, provider: Ec2Provider) -> None:
    provider.start([launch(number, environment={"A": "1", "ID": f"wrk_{number:032x}"}) for number in (1, 2)])
    provider.start([launch(3, environment={"A": "2"})])

    assert len(ec2.actions("CreateLaunchTemplate")) == 2


def test_a_template_that_another_process_made_is_used(ec2: Ec2Server, terms: Ec2Terms) -> None:
    started(Ec2Provider(terms).start([launch(1)]))
    started(Ec2Provider(terms).start([launch(2)]))

    assert len(ec2.actions("CreateLaunchTemplate")) == 2


def test_a_template_that_was_deleted_is_made_again_by_the_next_try(
    ec2: Ec2Server, provider: Ec2Provider, client: EC2Client
) -> None:
    provider.start([launch(1)])
    name = ec2.actions("CreateFleet")[0]["LaunchTemplateConfigs.1.LaunchTemplateSpecification.LaunchTemplateName"]
    client.delete_launch_template(LaunchTemplateName=name)

    assert refused(provider.start([launch(2)])).kind is RefusalKind.THROTTLED
    ec2.forget_tokens()
    started(provider.start([launch(2)]))


def test_templates_of_long_ago_are_deleted_with_the_secrets_in_them(terms: Ec2Terms, client: EC2Client) -> None:
    Ec2Provider(terms).start([launch(1, environment={"PASSWORD": "old"})])
    later = Ec2Provider(terms, now=lambda: datetime.now(UTC) + timedelta(days=2))

    later.start([launch(2, environment={"PASSWORD": "new"})])

    held = client.describe_launch_templates(
        Filters=[{"Name": "tag:nightrate:deployment", "Values": [terms.deployment]}]
    )
    assert len(held["LaunchTemplates"]) == 1


def test_the_same_launch_again_is_the_same_machine(provider: Ec2Provider) -> None:
    first = started(provider.start([launch()]))

    again = started(provider.start([launch()]))

    assert [each.provider_id for each in again] == [each.provider_id for each in first]
    assert len(provider.machines()) == 1


def test_a_launch_whose_answer_was_lost_is_not_started_twice(ec2: Ec2Server, provider: Ec2Provider) -> None:
    ec2.cut_off["CreateFleet"] = 1

    started(provider.start([launch()]))

    tokens = {asked["ClientToken"] for asked in ec2.actions("CreateFleet")}
    assert len(ec2.actions("CreateFleet")) == 2
    assert len(tokens) == 1
    assert len(provider.machines()) == 1


def test_a_launch_from_before_ec2_forgot_its_token_is_known_by_its_tag(ec2: Ec2Server, terms: Ec2Terms) -> None:
    first = started(Ec2Provider(terms).start([launch()]))
    ec2.forget_tokens()

    again = started(Ec2Provider(terms).start([launch()]))

    assert again[0].provider_id == first[0].provider_id
    assert len(ec2.actions("CreateFleet")) == 1


def test_a_launch_whose_machine_is_gone_is_not_started_again(provider: Ec2Provider) -> None:
    first = started(provider.start([launch()]))
    provider.stop([first[0].provider_id])

    assert started(provider.start([launch()]))[0].provider_id == first[0].provider_id
    assert provider.machines() == []


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        ("InsufficientInstanceCapacity", RefusalKind.CAPACITY),
        ("UnfulfillableCapacity", RefusalKind.CAPACITY),
        ("InsufficientFreeAddressesInSubnet", RefusalKind.CAPACITY),
        ("MaxSpotInstanceCountExceeded", RefusalKind.QUOTA),
        ("VcpuLimitExceeded", RefusalKind.QUOTA),
        ("RequestLimitExceeded", RefusalKind.THROTTLED),
        ("Unsupported", RefusalKind.REJECTED),
        ("InvalidAMIID.NotFound", RefusalKind.REJECTED),
    ],
)
def test_a_fleet_without_a_machine_says_why_by_kind(
    ec2: Ec2Server, provider: Ec2Provider, terms: Ec2Terms, code: str, kind: RefusalKind
) -> None:
    ec2.lacking[terms.subnets[ZONE]] = code

    answer = refused(provider.start([launch()]))

    assert answer.kind is kind
    assert code in answer.message
    assert provider.machines() == []


def test_a_fleet_that_found_a_machine_elsewhere_is_a_start(
    ec2: Ec2Server, provider: Ec2Provider, terms: Ec2Terms
) -> None:
    there, *others = sorted(terms.subnets)
    for zone in others:
        ec2.lacking[terms.subnets[zone]] = "InsufficientInstanceCapacity"

    (answer,) = started(provider.start([launch(zone=None)]))

    assert answer.zone == there


def test_of_several_launches_some_are_started_and_some_are_refused(
    ec2: Ec2Server, provider: Ec2Provider, terms: Ec2Terms
) -> None:
    ec2.lacking[terms.subnets["us-east-1b"]] = "InsufficientInstanceCapacity"
    launches = [launch(number, zone=ZONE if number % 2 else "us-east-1b") for number in range(6)]

    answers = provider.start(launches)

    assert [answer.worker_id for answer in answers] == [each.worker_id for each in launches]
    assert [isinstance(answer, Launched) for answer in answers] == [False, True] * 3
    assert {machine.worker_id for machine in provider.machines()} == {each.worker_id for each in launches[1::2]}


def test_where_places_differ_the_most_hopeful_refusal_counts(
    ec2: Ec2Server, provider: Ec2Provider, terms: Ec2Terms
) -> None:
    codes = ["Unsupported", "InsufficientInstanceCapacity", "MaxSpotInstanceCountExceeded"]
    for index, subnet in enumerate(terms.subnets.values()):
        ec2.lacking[subnet] = codes[index % 3]

    assert refused(provider.start([launch(zone=None)])).kind is RefusalKind.CAPACITY


def test_throttling_is_tried_through_and_then_told(ec2: Ec2Server, provider: Ec2Provider) -> None:
    ec2.troubles["CreateFleet"] = [(503, "RequestLimitExceeded")]
    started(provider.start([launch(1)]))
    ec2.troubles["CreateFleet"] = [(503, "RequestLimitExceeded")] * 3

    assert refused(provider.start([launch(2)])).kind is RefusalKind.THROTTLED
    started(provider.start([launch(2)]))
    assert len(provider.machines()) == 2


def test_once_ec2_has_had_enough_the_rest_is_not_asked_for(
    ec2: Ec2Server, provider: Ec2Provider, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("infra.cloud.ec2.REQUESTS_AT_ONCE", 1)
    ec2.troubles["CreateFleet"] = [(503, "RequestLimitExceeded")] * 3

    answers = provider.start([launch(number) for number in range(5)])

    assert [answer.kind for answer in answers if isinstance(answer, Refused)] == [RefusalKind.THROTTLED] * 5
    assert len(ec2.actions("CreateFleet")) == 3


def test_a_request_refused_as_a_whole_says_why_by_kind(ec2: Ec2Server, provider: Ec2Provider) -> None:
    for code, kind in (
        ("VcpuLimitExceeded", RefusalKind.QUOTA),
        ("UnauthorizedOperation", RefusalKind.REJECTED),
        ("IdempotentParameterMismatch", RefusalKind.THROTTLED),
    ):
        ec2.troubles["CreateFleet"] = [(400, code)]
        assert refused(provider.start([launch()])).kind is kind


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"instance_type": None}, "names no instance type"),
        ({"market": Market.RESERVED}, "on spot or on demand"),
        ({"region": "eu-west-1"}, "in us-east-1, not in eu-west-1"),
        ({"zone": "us-east-1z"}, "no subnet in us-east-1z"),
        ({"environment": {"A B": "1"}}, "no name of an environment variable"),
        ({"environment": {"A": "x" * 20_000}}, "EC2 takes 16384"),
        ({"worker_id": WorkerId("a b")}, "cannot name a machine"),
    ],
)
def test_a_launch_that_makes_no_sense_is_rejected_unasked(
    ec2: Ec2Server, provider: Ec2Provider, changes: dict[str, object], message: str
) -> None:
    answer = refused(provider.start([launch(**changes)]))

    assert answer.kind is RefusalKind.REJECTED
    assert message in answer.message
    assert not ec2.actions("CreateFleet")


def test_on_demand_is_asked_for_at_the_lowest_price(ec2: Ec2Server, provider: Ec2Provider) -> None:
    started(provider.start([launch(market=Market.ON_DEMAND)]))

    (asked,) = ec2.actions("CreateFleet")
    assert asked["TargetCapacitySpecification.DefaultTargetCapacityType"] == "on-demand"
    assert asked["OnDemandOptions.AllocationStrategy"] == "lowest-price"


def test_types_that_are_as_good_are_offered_beside_the_one_asked_for(ec2: Ec2Server, terms: Ec2Terms) -> None:
    provider = Ec2Provider(replace(terms, alternatives={"m5.large": ("m5a.large",)}))

    started(provider.start([launch()]))

    (asked,) = ec2.actions("CreateFleet")
    overrides = "LaunchTemplateConfigs.1.Overrides."
    assert [asked[f"{overrides}{index}.InstanceType"] for index in (1, 2)] == ["m5.large", "m5a.large"]


def test_machines_are_stopped_and_those_that_nobody_knows_are_passed_over(provider: Ec2Provider) -> None:
    ids = [each.provider_id for each in started(provider.start([launch(number) for number in range(3)]))]

    provider.stop([ids[0], "i-00000000000000000", "nonsense", ids[1], ids[1]])

    assert [machine.provider_id for machine in provider.machines()] == [ids[2]]
    provider.stop([])


def test_machines_are_stopped_in_chunks(ec2: Ec2Server, provider: Ec2Provider, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("infra.cloud.ec2._TERMINATED_AT_ONCE", 2)
    ids = [each.provider_id for each in started(provider.start([launch(number) for number in range(5)]))]

    provider.stop(ids)

    assert len(ec2.actions("TerminateInstances")) == 3
    assert provider.machines() == []


def test_all_pages_of_machines_are_read(ec2: Ec2Server, provider: Ec2Provider, monkeypatch: pytest.MonkeyPatch) -> None:
    started(provider.start([launch(number) for number in range(7)]))
    monkeypatch.setattr("infra.cloud.ec2._PAGE", 5)
    ec2.asked.clear()

    assert len({machine.worker_id for machine in provider.machines()}) == 7
    assert len(ec2.actions("DescribeInstances")) == 2


def test_machines_of_another_deployment_are_none_of_ours(terms: Ec2Terms) -> None:
    started(Ec2Provider(replace(terms, deployment=f"{terms.deployment}-x")).start([launch()]))

    assert Ec2Provider(terms).machines() == []


def test_a_machine_with_our_mark_and_no_workers_is_listed(
    provider: Ec2Provider, terms: Ec2Terms, client: EC2Client
) -> None:
    made = client.run_instances(ImageId=IMAGE, MinCount=1, MaxCount=1, InstanceType="m5.large")["Instances"][0]
    client.create_tags(
        Resources=[made["InstanceId"]], Tags=[{"Key": "nightrate:deployment", "Value": terms.deployment}]
    )

    (machine,) = provider.machines()
    assert machine == Machine(
        provider_id=made["InstanceId"],
        state=MachineState.RUNNING,
        worker_id=None,
        launched_at=machine.launched_at,
    )
    assert machine.launched_at is not None


def test_what_cannot_be_asked_at_all_is_told_as_such(ec2: Ec2Server, provider: Ec2Provider) -> None:
    ec2.troubles["DescribeInstances"] = [(401, "AuthFailure")]
    with pytest.raises(ProviderUnavailableError, match=r"AuthFailure.*docs/machines\.md"):
        provider.machines()
    ec2.troubles["DescribeInstances"] = [(400, "UnauthorizedOperation")]
    with pytest.raises(ProviderUnavailableError, match="UnauthorizedOperation"):
        provider.start([launch()])
    ec2.troubles["TerminateInstances"] = [(400, "OperationNotPermitted")]
    with pytest.raises(ProviderUnavailableError, match="OperationNotPermitted"):
        provider.stop(["i-00000000000000000"])


def test_machines_that_nobody_knows_are_stopped_and_workers_without_one_are_lost(
    provider: Ec2Provider, client: EC2Client
) -> None:
    """A scheduler that died after a launch left an orphan; EC2 took a spot machine back; the third is as it should be."""
    orphan, taken, kept = started(provider.start([launch(number) for number in (1, 2, 3)]))
    client.terminate_instances(InstanceIds=[taken.provider_id])
    known = [
        KnownWorker(
            worker_id=each.worker_id,
            state=WorkerState.BOOTING,
            provider="ec2",
            provider_id=each.provider_id,
            launched_at=each.launched_at,
        )
        for each in (taken, kept)
    ]
    grace = timedelta(minutes=5)
    now = datetime.now(UTC)

    early = sweep(provider.machines(), known, provider="ec2", now=now, grace=grace)
    late = sweep(provider.machines(), known, provider="ec2", now=now + 2 * grace, grace=grace, memory=early.memory)
    provider.stop(late.stops)

    assert (early.stops, early.lost) == ((), ())
    assert (late.stops, late.lost) == ((orphan.provider_id,), (taken.worker_id,))
    assert [machine.provider_id for machine in provider.machines()] == [kept.provider_id]


def test_placement_scores_come_best_first(ec2: Ec2Server, provider: Ec2Provider) -> None:
    ec2.answers["GetSpotPlacementScores"] = [scores((REGION, "use1-az1", 3), (REGION, "use1-az4", 9))]

    assert provider.placement_scores(["m5.large", "m5a.large", "m4.large"], count=4) == [
        PlacementScore(region=REGION, zone_id="use1-az4", score=9),
        PlacementScore(region=REGION, zone_id="use1-az1", score=3),
    ]


def test_the_rights_in_the_documentation_are_those_that_are_used(ec2: Ec2Server, terms: Ec2Terms) -> None:
    started(Ec2Provider(terms).start([launch(1, environment={"A": "1"})]))
    later = Ec2Provider(terms, now=lambda: datetime.now(UTC) + timedelta(days=2))
    later.start([launch(2, environment={"A": "2"})])
    later.stop([machine.provider_id for machine in later.machines()])
    ec2.answers["GetSpotPlacementScores"] = [scores()]
    later.placement_scores(["m5.large"])
    text = (Path(__file__).resolve().parents[3] / "docs" / "machines.md").read_text()
    policy = json.loads(text.partition("```json")[2].partition("```")[0])

    rights = {
        right
        for statement in policy["Statement"]
        for right in ([statement["Action"]] if isinstance(statement["Action"], str) else statement["Action"])
    }

    used = {f"ec2:{asked['Action']}" for asked in ec2.asked} - {"ec2:DescribeSubnets"}
    assert rights == used | {"ec2:RunInstances", "ec2:CreateTags", "iam:PassRole"}


def test_terms_that_no_machine_could_be_started_on_are_refused(terms: Ec2Terms) -> None:
    with pytest.raises(UsageError, match="cannot name a deployment"):
        replace(terms, deployment="a b")
    with pytest.raises(UsageError, match="need a subnet"):
        replace(terms, subnets={})
    with pytest.raises(UsageError, match="not yours to set"):
        replace(terms, tags={"nightrate:worker": "x"})
    with pytest.raises(UsageError, match="metadata cannot serve the tag 'cost centre'"):
        replace(terms, tags={"cost centre": "7"})
    with pytest.raises(UsageError, match="EC2 cannot be asked"):
        connect(replace(terms, endpoint_url="no url"))
