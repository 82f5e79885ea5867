"""A worker as a Kubernetes Pod, and what its API says of one."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

from infra.cloud.marks import deployment_of
from pipeline.domain.costs.prices import Market
from pipeline.domain.errors import UsageError
from pipeline.domain.ids import WorkerId
from pipeline.ports.fleet import Launch, Machine, MachineState

Document = dict[str, Any]

#: Labels and annotations of ours; the names are the same as elsewhere.
DEPLOYMENT_LABEL: Final = "nightrate/deployment"
WORKER_LABEL: Final = "nightrate/worker"
POOL_NOTE: Final = "nightrate/pool"
OFFER_NOTE: Final = "nightrate/offer"
_CAPACITY_TYPE: Final = "karpenter.sh/capacity-type"
_INSTANCE_TYPE: Final = "node.kubernetes.io/instance-type"
_ZONE: Final = "topology.kubernetes.io/zone"
_REGION: Final = "topology.kubernetes.io/region"
#: Its node is not emptied to save money while it runs, by either autoscaler: only we end it, or its provider does.
_NOT_DISTURBED: Final[Mapping[str, str]] = {
    "karpenter.sh/do-not-disrupt": "true",
    "cluster-autoscaler.kubernetes.io/safe-to-evict": "false",
}
_CONTAINER: Final = "worker"
_GONE: Final = frozenset({"Succeeded", "Failed"})


@dataclass(frozen=True, slots=True, kw_only=True)
class PodTerms:
    """How workers are run in one cluster.

    Attributes:
        deployment: tells Pods of several installations apart.
        namespace: where they are, and nothing else that must not be deleted by us.
        image: has the worker.
        command: starts it; empty: the image's own.
        resources: what one takes, as limits, such as `{"nvidia.com/gpu": "1", "memory": "24Gi"}`.
        environment_from: a Secret whose entries all workers have as environment, beside their own.
        node_labels: of nodes that it may run on.
        spot_labels: the same, for spot.
        on_demand_labels: the same, for on demand.
        tolerations: as Kubernetes has them.
        grace_seconds: from the order to end to the kill: time to hand rows back.
        labels: more of them.
        service_account: of the Pods; they need none but to see whether they were evicted.
    """

    deployment: str
    namespace: str
    image: str
    command: tuple[str, ...] = ()
    resources: Mapping[str, str] = field(default_factory=dict)
    environment_from: str | None = None
    node_labels: Mapping[str, str] = field(default_factory=dict)
    spot_labels: Mapping[str, str] = field(default_factory=lambda: {_CAPACITY_TYPE: "spot"})
    on_demand_labels: Mapping[str, str] = field(default_factory=lambda: {_CAPACITY_TYPE: "on-demand"})
    tolerations: tuple[Mapping[str, str], ...] = ()
    grace_seconds: int = 60
    labels: Mapping[str, str] = field(default_factory=dict)
    service_account: str | None = None

    def __post_init__(self) -> None:
        """Refuse terms that no Pod could be made of."""
        deployment_of(self.deployment)
        if not self.namespace or not self.image:
            raise UsageError("workers in Kubernetes need a namespace and an image")


def name_of(worker_id: WorkerId) -> str:
    """Return the name of a worker's Pod, and of its Secret."""
    return worker_id.lower().replace("_", "-")


def pod_of(terms: PodTerms, launch: Launch, *, now: datetime) -> Document:
    """Return a Pod that ends by itself; what its environment is, its Secret says."""
    name = name_of(launch.worker_id)
    sources: list[Document] = [{"secretRef": {"name": name}}]
    if terms.environment_from is not None:
        sources.insert(0, {"secretRef": {"name": terms.environment_from}})
    container: Document = {
        "name": _CONTAINER,
        "image": terms.image,
        "envFrom": sources,
        "env": [
            {"name": "NIGHTRATE_POD_NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
            {"name": "NIGHTRATE_POD_NAMESPACE", "valueFrom": {"fieldRef": {"fieldPath": "metadata.namespace"}}},
        ],
        "resources": {"limits": dict(terms.resources)},
    }
    if terms.command:
        container["command"] = list(terms.command)
    spec: Document = {
        "restartPolicy": "Never",
        "activeDeadlineSeconds": max(1, int((launch.ends_by - now).total_seconds())),
        "terminationGracePeriodSeconds": terms.grace_seconds,
        "automountServiceAccountToken": terms.service_account is not None,
        "nodeSelector": _node_labels(terms, launch),
        "tolerations": [dict(each) for each in terms.tolerations],
        "containers": [container],
    }
    if terms.service_account is not None:
        spec["serviceAccountName"] = terms.service_account
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": name,
            "labels": {
                **terms.labels,
                DEPLOYMENT_LABEL: terms.deployment,
                WORKER_LABEL: launch.worker_id,
            },
            "annotations": {**_NOT_DISTURBED, POOL_NOTE: launch.pool, OFFER_NOTE: launch.offer},
        },
        "spec": spec,
    }


def secret_of(terms: PodTerms, launch: Launch, *, pod_uid: str) -> Document:
    """Return the Secret that goes with a Pod, and is deleted with it by Kubernetes."""
    name = name_of(launch.worker_id)
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "type": "Opaque",
        "metadata": {
            "name": name,
            "labels": {DEPLOYMENT_LABEL: terms.deployment, WORKER_LABEL: launch.worker_id},
            "ownerReferences": [{"apiVersion": "v1", "kind": "Pod", "name": name, "uid": pod_uid}],
        },
        "immutable": True,
        "data": {key: base64.b64encode(value.encode()).decode() for key, value in sorted(launch.environment.items())},
    }


def machine_of(pod: Document) -> Machine | None:
    """Return a Pod as a machine; None: it has ended."""
    metadata, status = pod["metadata"], pod.get("status", {})
    phase = status.get("phase", "Pending")
    if phase in _GONE:
        return None
    worker_id = metadata.get("labels", {}).get(WORKER_LABEL)
    state = MachineState.PENDING if phase == "Pending" else MachineState.RUNNING
    return Machine(
        provider_id=metadata["name"],
        state=MachineState.STOPPING if metadata.get("deletionTimestamp") else state,
        worker_id=None if worker_id is None else WorkerId(worker_id),
        launched_at=moment(metadata["creationTimestamp"]),
    )


def ended_at(pod: Document) -> datetime | None:
    """Return when an ended Pod ended, or was made where that is not told; None: it has not."""
    status = pod.get("status", {})
    if status.get("phase") not in _GONE:
        return None
    ends = [
        state["terminated"]["finishedAt"]
        for state in (each.get("state", {}) for each in status.get("containerStatuses", ()))
        if state.get("terminated", {}).get("finishedAt")
    ]
    return moment(max(ends, default=pod["metadata"]["creationTimestamp"]))


def moment(text: str) -> datetime:
    """Return a time as Kubernetes writes it."""
    return datetime.fromisoformat(text)


def _node_labels(terms: PodTerms, launch: Launch) -> dict[str, str]:
    by_market = terms.spot_labels if launch.market is Market.SPOT else terms.on_demand_labels
    places = {_INSTANCE_TYPE: launch.instance_type, _REGION: launch.region, _ZONE: launch.zone}
    return {
        **terms.node_labels,
        **by_market,
        **{label: value for label, value in places.items() if value is not None},
    }
