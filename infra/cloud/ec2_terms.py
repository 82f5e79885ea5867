"""What machines of ours are at EC2, in one region: given by the settings."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError

from infra.cloud.marks import deployment_of
from pipeline.domain.errors import UsageError

if TYPE_CHECKING:
    from mypy_boto3_ec2 import EC2Client

_CONNECT_TIMEOUT_SECONDS: Final = 5
_READ_TIMEOUT_SECONDS: Final = 30
#: What is still throttled after these is told: the scheduler asks again by itself, later.
_TRIES_MAX: Final = 3
#: Requests at once; a connection each.
REQUESTS_AT_ONCE: Final = 8
_HOPS_MAX: Final = 64
_PREFIX: Final = "nightrate:"
#: Names of tags that metadata can serve: with another one, EC2 would start nothing.
_TAG: Final = re.compile(r"[A-Za-z0-9+=.,_:@-]{1,128}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Ec2Terms:
    """How machines are rented in one region.

    Attributes:
        deployment: tells machines of several installations apart in one account.
        image_id: an AMI with cloud-init, curl and systemd, and whatever `command` needs.
        subnets: by zone; a launch that names no zone may go to any of them.
        instance_profile: name or ARN; None: the machine has no role.
        command: starts a worker and ends with it, as root, with the launch's environment. An element `{environment}`
            becomes `--env NAME` for each variable, which is how `docker run` takes it over.
        boot_script: shell lines that run before, as root; what they append to `$ENVIRONMENT`, such as
            `export NAME='value'`, is the worker's environment too.
        withheld: variables that are not sent with the machine, for `boot_script` fetches them.
        alternatives: instance types that are as good, by instance type.
        lifetime_seconds_max: after this the machine ends even where it cannot read what it carries.
        metadata_hops: how far metadata may travel: 1, or 2 where the worker runs in a container with a network of its own.
        volume_gigabytes: of the root volume at `volume_device`; None: as the image says.
        tags: more of them, on instances and volumes.
        endpoint_url: instead of the region's own; boto3 reads `AWS_ENDPOINT_URL_EC2`, too.
    """

    deployment: str
    region: str
    image_id: str
    subnets: Mapping[str, str]
    command: tuple[str, ...]
    security_group_ids: tuple[str, ...] = ()
    instance_profile: str | None = None
    key_name: str | None = None
    boot_script: str = ""
    withheld: frozenset[str] = frozenset()
    alternatives: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    lifetime_seconds_max: int = 86_400
    metadata_hops: int = 1
    volume_gigabytes: int | None = None
    volume_device: str = "/dev/xvda"
    tags: Mapping[str, str] = field(default_factory=dict)
    endpoint_url: str | None = None

    def __post_init__(self) -> None:
        """Refuse terms that no machine could be started on."""
        deployment_of(self.deployment)
        if not self.subnets:
            raise UsageError("EC2 machines need a subnet", hint="one for each zone")
        if not self.command:
            raise UsageError("EC2 machines need a command that starts a worker")
        if not 1 <= self.metadata_hops <= _HOPS_MAX:
            raise UsageError(f"metadata cannot travel {self.metadata_hops} hops", hint="1, or 2 for containers")
        for name in self.tags:
            if name.startswith((_PREFIX, "aws:")):
                raise UsageError(f"the tag {name!r} is not yours to set", hint=f"not {_PREFIX}… or aws:…")
            if not _TAG.fullmatch(name):
                raise UsageError(f"metadata cannot serve the tag {name!r}", hint="letters, digits and + - = . , _ : @")


def connect(terms: Ec2Terms) -> EC2Client:
    """Return a client, safe to share between threads; raises `UsageError` where boto3's own settings are wrong."""
    config = Config(
        connect_timeout=_CONNECT_TIMEOUT_SECONDS,
        read_timeout=_READ_TIMEOUT_SECONDS,
        retries={"mode": "standard", "total_max_attempts": _TRIES_MAX},
        max_pool_connections=REQUESTS_AT_ONCE,
    )
    try:
        session = boto3.session.Session()  # one of our own: the default one is not safe to share
        return session.client("ec2", region_name=terms.region, endpoint_url=terms.endpoint_url, config=config)
    except (BotoCoreError, ValueError) as error:
        raise UsageError(f"EC2 cannot be asked: {error}", hint="check the region, profile and endpoint") from error
