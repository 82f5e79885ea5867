"""Providers of machines, as the settings have them."""

from __future__ import annotations

import os
from collections.abc import Mapping

from infra.cloud.kubernetes import ApiServer, KubernetesProvider
from infra.cloud.local import LocalProvider, LocalTerms
from infra.cloud.pods import PodTerms
from infra.cloud.scripts import ExecProvider, ScriptTerms
from pipeline.app.children import command_of
from pipeline.config import Settings
from pipeline.fleet_settings import Ec2Settings, FleetSettings, KubernetesSettings
from pipeline.ports.fleet import MachineProvider


def providers_of(settings: Settings) -> dict[str, MachineProvider]:
    """Return every provider that can be rented from, by name, whether or not an offer names it.

    One that no offer names any more is still looked after: machines of it may run.

    Raises:
        UsageError: one cannot be asked as it is described.
    """
    fleet = settings.fleet
    folder = settings.home_folder.absolute() / "fleet"
    found: dict[str, MachineProvider] = {
        "local": LocalProvider(
            LocalTerms(
                command=tuple(command_of("worker")), folder=folder / "local", workers_max=fleet.local_workers_max
            )
        )
    }
    if fleet.ec2 is not None:
        found["ec2"] = _ec2(fleet.ec2, fleet)
    if fleet.kubernetes is not None:
        found["kubernetes"] = KubernetesProvider(
            _pod_terms(fleet.kubernetes, fleet), _server_of(fleet.kubernetes, os.environ)
        )
    for name, script in fleet.scripts.items():
        terms = ScriptTerms(
            deployment=fleet.deployment,
            start=tuple(script.start),
            stop=tuple(script.stop),
            list=None if script.list is None else tuple(script.list),
            memory=folder / name,
            timeout_seconds=script.timeout_seconds,
        )
        found[name] = ExecProvider(terms, name=name)
    return found


def _ec2(terms: Ec2Settings, fleet: FleetSettings) -> MachineProvider:
    # boto3 costs a second that who rents elsewhere need not pay.
    from infra.cloud.ec2 import Ec2Provider
    from infra.cloud.ec2_terms import Ec2Terms

    return Ec2Provider(
        Ec2Terms(
            deployment=fleet.deployment,
            region=terms.region,
            image_id=terms.image_id,
            subnets=terms.subnets,
            command=tuple(terms.command),
            security_group_ids=terms.security_groups,
            instance_profile=terms.instance_profile,
            key_name=terms.key_name,
            boot_script=terms.boot_script,
            withheld=frozenset(terms.withheld),
            alternatives=terms.alternatives,
            lifetime_seconds_max=round(fleet.lifetime_hours * 3600),
            metadata_hops=terms.metadata_hops,
            volume_gigabytes=terms.volume_gigabytes,
            tags=terms.tags,
            endpoint_url=terms.endpoint_url,
        )
    )


def _pod_terms(terms: KubernetesSettings, fleet: FleetSettings) -> PodTerms:
    return PodTerms(
        deployment=fleet.deployment,
        namespace=terms.namespace,
        image=terms.image,
        command=tuple(terms.command),
        resources=terms.resources,
        environment_from=terms.environment_from,
        node_labels=terms.node_labels,
        spot_labels=terms.spot_labels,
        on_demand_labels=terms.on_demand_labels,
        tolerations=terms.tolerations,
        grace_seconds=terms.grace_seconds,
        labels=terms.labels,
        service_account=terms.service_account,
    )


def _server_of(terms: KubernetesSettings, environment: Mapping[str, str]) -> ApiServer:
    if terms.api_url is None:
        return ApiServer.of_this_pod(environment)
    return ApiServer(url=terms.api_url, token_file=terms.token_file, ca_file=terms.ca_file)
