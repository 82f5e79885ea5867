"""Launch templates: one for each content, named by its hash, never changed."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from threading import Lock
from typing import TYPE_CHECKING, Final

from botocore.exceptions import BotoCoreError, ClientError

from infra.cloud.ec2_boot import USER_DATA_BYTES_MAX, user_data
from infra.cloud.ec2_errors import TEMPLATE_EXISTS, code_of
from infra.cloud.ec2_terms import Ec2Terms
from infra.cloud.marks import DEPLOYMENT
from pipeline.domain.errors import UsageError
from pipeline.ports.fleet import Launch

if TYPE_CHECKING:
    from mypy_boto3_ec2 import EC2Client
    from mypy_boto3_ec2.literals import ResourceTypeType
    from mypy_boto3_ec2.type_defs import RequestLaunchTemplateDataTypeDef, TagSpecificationTypeDef

#: Of one that nobody used since we started, such as those of settings that were changed since: it may hold old secrets.
_KEPT: Final = timedelta(days=1)
_PAGE: Final = 200


def tagged(kind: ResourceTypeType, tags: Mapping[str, str]) -> TagSpecificationTypeDef:
    """Return tags for what is about to be made."""
    return {"ResourceType": kind, "Tags": [{"Key": name, "Value": value} for name, value in sorted(tags.items())]}


class LaunchTemplates:
    """Those of one deployment. Safe to share between threads."""

    def __init__(self, client: EC2Client, terms: Ec2Terms, *, now: Callable[[], datetime]) -> None:
        """Make none yet."""
        self._client = client
        self._terms = terms
        self._now = now
        self._used: set[str] = set()
        self._lock = Lock()

    def name_of(self, launch: Launch) -> str:
        """Return the name of the template of a launch, which exists on return; raises boto3's errors, and `UsageError`."""
        data = self._data(launch)
        digest = hashlib.sha256(json.dumps(data, sort_keys=True).encode()).hexdigest()
        name = f"nightrate-{self._terms.deployment}-{digest[:24]}"
        with self._lock:
            if name not in self._used:
                self._create(name, data)
                self._used.add(name)
                self._forget_old()
        return name

    def forget(self, name: str) -> None:
        """Make it again before its next use: it is gone."""
        with self._lock:
            self._used.discard(name)

    def _create(self, name: str, data: RequestLaunchTemplateDataTypeDef) -> None:
        try:
            self._client.create_launch_template(
                LaunchTemplateName=name,
                LaunchTemplateData=data,
                TagSpecifications=[tagged("launch-template", {DEPLOYMENT: self._terms.deployment})],
            )
        except ClientError as error:
            if code_of(error) != TEMPLATE_EXISTS:
                raise

    def _forget_old(self) -> None:
        """Delete templates of the deployment that were made long ago and are not in use; failing at it does no harm."""
        try:
            pages = self._client.get_paginator("describe_launch_templates").paginate(
                Filters=[{"Name": f"tag:{DEPLOYMENT}", "Values": [self._terms.deployment]}],
                PaginationConfig={"PageSize": _PAGE},
            )
            old = [
                template["LaunchTemplateName"]
                for page in pages
                for template in page["LaunchTemplates"]
                if template["LaunchTemplateName"] not in self._used and self._now() - template["CreateTime"] > _KEPT
            ]
            for name in old:
                self._client.delete_launch_template(LaunchTemplateName=name)
        except (ClientError, BotoCoreError):
            return

    def _data(self, launch: Launch) -> RequestLaunchTemplateDataTypeDef:
        terms = self._terms
        script = user_data(terms, launch).encode()
        if len(script) > USER_DATA_BYTES_MAX:
            raise UsageError(
                f"the machine's user data has {len(script)} bytes, EC2 takes {USER_DATA_BYTES_MAX}",
                hint="withhold variables, and fetch them in boot_script",
            )
        data: RequestLaunchTemplateDataTypeDef = {
            "ImageId": terms.image_id,
            "UserData": base64.b64encode(script).decode(),
            "InstanceInitiatedShutdownBehavior": "terminate",
            "MetadataOptions": {
                "HttpTokens": "required",
                "HttpPutResponseHopLimit": terms.metadata_hops,
                "HttpEndpoint": "enabled",
                "InstanceMetadataTags": "enabled",
            },
        }
        if terms.security_group_ids:
            data["SecurityGroupIds"] = list(terms.security_group_ids)
        if terms.instance_profile:
            kind = "Arn" if terms.instance_profile.startswith("arn:") else "Name"
            data["IamInstanceProfile"] = (
                {"Arn": terms.instance_profile} if kind == "Arn" else {"Name": terms.instance_profile}
            )
        if terms.key_name:
            data["KeyName"] = terms.key_name
        if terms.volume_gigabytes:
            volume: dict[str, object] = {
                "VolumeSize": terms.volume_gigabytes,
                "VolumeType": "gp3",
                "Encrypted": True,
                "DeleteOnTermination": True,
            }
            data["BlockDeviceMappings"] = [{"DeviceName": terms.volume_device, "Ebs": volume}]  # type: ignore[typeddict-item]
        return data
