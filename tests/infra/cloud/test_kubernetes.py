"""Workers as Pods, against recordings of an API server."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from infra.cloud.kubernetes import ApiServer, KubernetesProvider
from infra.cloud.pods import PodTerms
from pipeline.domain.costs.prices import Market
from pipeline.domain.errors import UsageError
from pipeline.domain.ids import WorkerId
from pipeline.ports.fleet import (
    Launch,
    Launched,
    Machine,
    MachineState,
    ProviderUnavailableError,
    RefusalKind,
    Refused,
)
from tests.infra.cloud.api_server import Replay, replaying

NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)
MADE = datetime(2026, 11, 22, 12, 0, 1, tzinfo=UTC)
TERMS = PodTerms(
    deployment="prod",
    namespace="nightrate",
    image="registry.example/nightrate-worker:1.0",
    command=("nightrate", "worker"),
    resources={"nvidia.com/gpu": "1", "memory": "24Gi"},
    environment_from="nightrate-worker",
    node_labels={"karpenter.sh/nodepool": "gpu"},
    tolerations=({"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"},),
    labels={"app.kubernetes.io/name": "nightrate"},
    service_account="nightrate-worker",
)


def launch(number: int = 1, **changes: object) -> Launch:
    base = Launch(
        worker_id=WorkerId(f"wrk_{number:032x}"),
        pool="large",
        offer="eks/us-east-1a/spot",
        market=Market.SPOT,
        ends_by=NOW + timedelta(hours=6),
        instance_type="g5.xlarge",
        zone="us-east-1a",
        environment={"NIGHTRATE_POOL": "large", "NIGHTRATE_DATABASE_URL": "postgresql://of:secret@host/db"},
    )
    return replace(base, **changes)  # type: ignore[arg-type]


@contextmanager
def cluster(recording: str, tmp_path: Path) -> Iterator[tuple[KubernetesProvider, Replay]]:
    token = tmp_path / "token"
    token.write_text("first\n")
    with replaying(recording) as replay:
        provider = KubernetesProvider(TERMS, ApiServer(url=replay.url, token_file=token), now=lambda: NOW)
        try:
            yield provider, replay
        finally:
            provider.close()


def launched(number: int = 1) -> Launched:
    return Launched(
        worker_id=WorkerId(f"wrk_{number:032x}"),
        provider_id=f"wrk-{number:032x}",
        launched_at=MADE,
        zone="us-east-1a",
    )


def test_a_worker_is_a_pod_that_ends_by_itself_and_a_secret_that_goes_with_it(tmp_path: Path) -> None:
    with cluster("start", tmp_path) as (provider, replay):
        assert provider.start([launch()]) == [launched()]
        assert replay.tokens == {"Bearer first"}


def test_the_same_launch_again_finds_its_pod(tmp_path: Path) -> None:
    with cluster("start_again", tmp_path) as (provider, _):
        assert provider.start([launch()]) == [launched()]


def test_an_earlier_try_that_got_no_further_than_its_pod_is_finished(tmp_path: Path) -> None:
    with cluster("start_half", tmp_path) as (provider, _):
        assert provider.start([launch()]) == [launched()]


@pytest.mark.parametrize(
    ("recording", "kind", "words"),
    [
        ("quota", RefusalKind.QUOTA, "exceeded quota"),
        ("forbidden", RefusalKind.REJECTED, "cannot create resource"),
        ("throttled", RefusalKind.THROTTLED, "Too many requests"),
        ("invalid", RefusalKind.REJECTED, "is invalid"),
        ("malformed", RefusalKind.REJECTED, "unable to parse quantity"),
        ("unavailable", RefusalKind.THROTTLED, "etcdserver: request timed out"),
        ("secret_forbidden", RefusalKind.REJECTED, "secrets is forbidden"),
    ],
)
def test_a_pod_that_is_not_made_says_why_by_kind(tmp_path: Path, recording: str, kind: RefusalKind, words: str) -> None:
    with cluster(recording, tmp_path) as (provider, _):
        (answer,) = provider.start([launch()])

    assert isinstance(answer, Refused)
    assert answer.kind is kind
    assert words in answer.message


def test_launches_that_make_no_sense_are_rejected_unasked(tmp_path: Path) -> None:
    with cluster("nothing", tmp_path) as (provider, _):
        answers = provider.start([launch(market=Market.RESERVED), launch(worker_id=WorkerId("a/b"))])

    assert [answer.kind for answer in answers if isinstance(answer, Refused)] == [RefusalKind.REJECTED] * 2


def test_pods_are_deleted_and_those_that_are_gone_are_passed_over(tmp_path: Path) -> None:
    with cluster("stop", tmp_path) as (provider, _):
        provider.stop([f"wrk-{1:032x}", "wrk-gone"])


def test_pods_are_listed_page_by_page_and_long_ended_ones_deleted(tmp_path: Path) -> None:
    with cluster("list", tmp_path) as (provider, _):
        assert provider.machines() == [
            Machine(provider_id="wrk-a", state=MachineState.PENDING, worker_id=WorkerId("wrk_a"), launched_at=MADE),
            Machine(provider_id="wrk-b", state=MachineState.RUNNING, worker_id=WorkerId("wrk_b"), launched_at=MADE),
            Machine(provider_id="wrk-c", state=MachineState.STOPPING, worker_id=WorkerId("wrk_c"), launched_at=MADE),
            Machine(provider_id="stray", state=MachineState.RUNNING, worker_id=None, launched_at=MADE),
        ]


def test_what_is_no_list_is_not_an_empty_one(tmp_path: Path) -> None:
    with (
        cluster("no_list", tmp_path) as (provider, _),
        pytest.raises(ProviderUnavailableError, match="no list of Pods"),
    ):
        provider.machines()


def test_a_token_that_was_renewed_is_used(tmp_path: Path) -> None:
    with cluster("list_twice", tmp_path) as (provider, replay):
        provider.machines()
        (tmp_path / "token").write_text("second\n")
        provider.machines()
        assert replay.tokens == {"Bearer first", "Bearer second"}


def test_what_cannot_be_asked_is_told(tmp_path: Path) -> None:
    with cluster("list_forbidden", tmp_path) as (provider, _):
        with pytest.raises(ProviderUnavailableError, match=r"cannot list resource.*docs/machines\.md"):
            provider.machines()
        with pytest.raises(ProviderUnavailableError, match="did not delete"):
            provider.stop(["wrk-a"])
    silent = KubernetesProvider(TERMS, ApiServer(url=_nobody(), token_file=tmp_path / "token"))
    with pytest.raises(ProviderUnavailableError, match="cannot be asked"):
        silent.machines()
    (answer,) = silent.start([launch()])
    assert isinstance(answer, Refused)
    assert answer.kind is RefusalKind.THROTTLED
    silent.close()


def _nobody() -> str:
    with replaying("nothing") as replay:
        return replay.url


def test_a_pod_finds_its_cluster_by_itself(tmp_path: Path) -> None:
    server = ApiServer.of_this_pod({"KUBERNETES_SERVICE_HOST": "fd00::1", "KUBERNETES_SERVICE_PORT": "6443"}, tmp_path)

    assert server == ApiServer(url="https://[fd00::1]:6443", token_file=tmp_path / "token", ca_file=tmp_path / "ca.crt")
    with pytest.raises(UsageError, match="no Pod of a Kubernetes cluster"):
        ApiServer.of_this_pod({})
    with pytest.raises(UsageError, match="namespace and an image"):
        replace(TERMS, image="")
