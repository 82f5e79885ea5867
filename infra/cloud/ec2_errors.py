"""What EC2 and boto3 say instead of starting a machine, in our words."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from http import HTTPStatus
from typing import Final

from botocore.exceptions import BotoCoreError, ClientError, HTTPClientError
from botocore.exceptions import ConnectionError as BotoConnectionError

from pipeline.ports.fleet import ProviderUnavailableError, RefusalKind

MISMATCH: Final = "IdempotentParameterMismatch"
TEMPLATE_EXISTS: Final = "InvalidLaunchTemplateName.AlreadyExistsException"
#: Of a template that was deleted since we last saw it.
TEMPLATE_GONE: Final = frozenset(
    {
        "InvalidLaunchTemplateId.NotFound",
        "InvalidLaunchTemplateName.NotFoundException",
        "InvalidLaunchTemplateId.VersionNotFound",
    }
)
#: Of instances that are gone, or were never there.
INSTANCE_GONE: Final = frozenset({"InvalidInstanceID.NotFound", "InvalidInstanceID.Malformed"})

_CAPACITY: Final = frozenset(
    {
        "InsufficientCapacity",
        "InsufficientFreeAddressesInSubnet",
        "InsufficientHostCapacity",
        "InsufficientInstanceCapacity",
        "ReservationCapacityExceeded",
        "SpotMaxPriceTooLow",
        "UnfulfillableCapacity",
    }
)
_QUOTA: Final = frozenset(
    {
        "AddressLimitExceeded",
        "InstanceLimitExceeded",
        "MaxFleetCountExceeded",
        "MaxSpotFleetRequestCountExceeded",
        "MaxSpotInstanceCountExceeded",
        "NetworkInterfaceLimitExceeded",
        "VcpuLimitExceeded",
        "VolumeLimitExceeded",
    }
)
_THROTTLED: Final = frozenset(
    {
        "EC2ThrottledException",
        "InternalError",
        "InternalFailure",
        "RequestLimitExceeded",
        "RequestThrottled",
        "ResourceCountExceeded",
        "ServiceUnavailable",
        "SlowDown",
        "Throttling",
        "ThrottlingException",
        "TooManyRequestsException",
        "Unavailable",
    }
)
#: The most hopeful first: one of several places may have a machine later.
_HOPE: Final = (RefusalKind.THROTTLED, RefusalKind.CAPACITY, RefusalKind.QUOTA, RefusalKind.REJECTED)
_RIGHTS: Final = "docs/machines.md has the rights that are needed; check the credentials and the clock, too"


def kind_of(code: str) -> RefusalKind:
    """Return what an error code of EC2 means for a launch; what nobody has heard of is for a person to look at."""
    if code in _CAPACITY:
        return RefusalKind.CAPACITY
    if code in _QUOTA:
        return RefusalKind.QUOTA
    return RefusalKind.THROTTLED if code in _THROTTLED else RefusalKind.REJECTED


def likeliest(kinds: Iterable[RefusalKind]) -> RefusalKind:
    """Return the kind that several refusals of one launch make together; REJECTED where there are none."""
    return min(kinds, key=_HOPE.index, default=RefusalKind.REJECTED)


def code_of(error: ClientError) -> str:
    """Return EC2's code of an error."""
    return error.response.get("Error", {}).get("Code", "")


def refusal_of(error: ClientError | BotoCoreError) -> tuple[RefusalKind, str]:
    """Return what an error means for a launch, and in EC2's words.

    Where no answer came, nobody knows whether a machine was started: the same launch again finds out.
    """
    if not isinstance(error, ClientError):
        unheard = isinstance(error, (BotoConnectionError, HTTPClientError))
        return (RefusalKind.THROTTLED if unheard else RefusalKind.REJECTED), str(error)
    code = code_of(error)
    message = f"{code}: {error.response.get('Error', {}).get('Message', 'no message')}"
    status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    kind = kind_of(code)
    if kind is RefusalKind.REJECTED and status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        # Those of its 5xx that name a lack of something were told apart above.
        return RefusalKind.THROTTLED, message
    return kind, message


@contextmanager
def ec2_errors(what: str) -> Iterator[None]:
    """Raise what goes wrong while EC2 is asked to do `what` as ours."""
    try:
        yield
    except (ClientError, BotoCoreError) as error:
        kind, message = refusal_of(error)
        hint = _RIGHTS if kind is RefusalKind.REJECTED else None
        raise ProviderUnavailableError(f"EC2 did not {what}: {message}", hint=hint) from error
