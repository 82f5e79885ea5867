"""The manifests among the examples: they can be read, and give the rights that are used."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import yaml

from tests.infra.cloud.api_server import RECORDINGS

MANIFESTS = Path(__file__).resolve().parents[3] / "examples" / "kubernetes"
VERBS = {"POST": "create", "DELETE": "delete"}


def documents(name: str) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all((MANIFESTS / name).read_text()))


def kinds(name: str, kind: str) -> list[dict[str, Any]]:
    return [document for document in documents(name) if document["kind"] == kind]


@pytest.mark.parametrize("recording", sorted(path.stem for path in RECORDINGS.glob("*.json")))
def test_what_is_asked_of_kubernetes_is_what_the_rights_allow(recording: str) -> None:
    who = "nightrate-worker" if recording == "watched" else "nightrate-scheduler"
    (role,) = [role for role in kinds("rights.yaml", "Role") if role["metadata"]["name"] == who]
    allowed = {(verb, resource) for rule in role["rules"] for verb in rule["verbs"] for resource in rule["resources"]}

    used = set()
    for exchange in json.loads((RECORDINGS / f"{recording}.json").read_text()):
        *_, resource, name = [*urlsplit(exchange["request"]["path"]).path.split("/")[5:], ""][:2]
        used.add((VERBS.get(exchange["request"]["method"], "get" if name else "list"), resource))

    assert used <= allowed


@pytest.mark.parametrize("name", ["keda-jobs.yaml", "keda-deployment.yaml"])
def test_keda_reads_how_many_workers_are_wanted(name: str) -> None:
    (scaled,) = [document for document in documents(name) if document["kind"].startswith("Scaled")]
    (trigger,) = scaled["spec"]["triggers"]

    assert trigger["type"] == "postgresql"
    assert "max(wanted), 0) FROM nightrate.workers_wanted WHERE pool =" in trigger["metadata"]["query"]
    assert trigger["metadata"]["targetQueryValue"] == "1"
    assert (
        trigger["authenticationRef"]["name"] == kinds("keda-jobs.yaml", "TriggerAuthentication")[0]["metadata"]["name"]
    )


def test_jobs_run_on_the_nodes_that_karpenter_makes() -> None:
    (job,) = kinds("keda-jobs.yaml", "ScaledJob")
    (pool,) = kinds("karpenter.yaml", "NodePool")
    pod = job["spec"]["jobTargetRef"]["template"]["spec"]

    assert pod["nodeSelector"]["karpenter.sh/nodepool"] == pool["metadata"]["name"]
    assert {each["key"] for each in pod["tolerations"]} == {
        each["key"] for each in pool["spec"]["template"]["spec"]["taints"]
    }
    assert (
        pool["spec"]["template"]["spec"]["nodeClassRef"]["name"]
        == kinds("karpenter.yaml", "EC2NodeClass")[0]["metadata"]["name"]
    )
