"""How boto3 is set up: signature, timeouts, retries."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError

from pipeline.domain.errors import UsageError
from storage.objects.locations import S3Credentials, check_endpoint

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

CONNECT_TIMEOUT_SECONDS: Final = 2
READ_TIMEOUT_SECONDS: Final = 10
#: Tries of one request after the first; boto3 pauses up to 1, 2 and 4 s before them.
REQUEST_RETRIES_MAX: Final = 3
#: Connections kept per store; more threads than this still work, but reconnect.
CONNECTIONS_MAX: Final = 32
#: Used where a server is named and a region is not: it is signed, and such servers do not care.
REGION_DEFAULT: Final = "us-east-1"


def connect(
    *, endpoint_url: str | None, region: str | None, credentials: S3Credentials | None, read_timeout_seconds: float
) -> S3Client:
    """Return a client for any number of threads; the server is not contacted yet.

    Without `credentials` boto3 looks for some at once, in the end at the cloud's metadata address.

    Raises:
        UsageError: The endpoint is no URL, or boto3's own settings contradict themselves.
    """
    if endpoint_url is not None:
        check_endpoint(endpoint_url)
    config = Config(
        signature_version="s3v4",
        s3={"addressing_style": "path"},
        connect_timeout=CONNECT_TIMEOUT_SECONDS,
        read_timeout=read_timeout_seconds,
        retries={"mode": "standard", "max_attempts": REQUEST_RETRIES_MAX},
        max_pool_connections=CONNECTIONS_MAX,
        # Puts carry their own SHA-256; the CRC that boto3 adds by default changes the framing, which some
        # servers cannot read.
        request_checksum_calculation="when_required",
    )
    try:
        session = boto3.session.Session()  # one of our own: the default one is not safe to share
        return session.client(
            "s3",
            endpoint_url=endpoint_url,
            region_name=region or session.region_name or (None if endpoint_url is None else REGION_DEFAULT),
            aws_access_key_id=None if credentials is None else credentials.access_key_id,
            aws_secret_access_key=None if credentials is None else credentials.secret_access_key,
            config=config,
        )
    except (BotoCoreError, ValueError) as error:
        raise UsageError(
            f"S3 cannot be used: {error}", hint="check the region, the profile and the endpoint"
        ) from error
