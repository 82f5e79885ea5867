"""What S3 and boto3 raise, in our words."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from http import HTTPStatus
from typing import Final

from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    FlexibleChecksumError,
    HTTPClientError,
    IncompleteReadError,
    ResponseStreamingError,
)
from botocore.exceptions import (
    ConnectionError as BotoConnectionError,
)

from pipeline.domain.errors import (
    NightrateError,
    ObjectCorruptError,
    ObjectMissingError,
    StoreUnavailableError,
    UsageError,
)

#: Answers below 500 after which the same request may succeed later. A digest is refused where bytes were
#: damaged on the way or the source file changed meanwhile; both are over on the next try.
_TRANSIENT_CODES: Final = frozenset(
    {
        "BadDigest",
        "ConditionalRequestConflict",
        "OperationAborted",
        "RequestLimitExceeded",
        "RequestTimeout",
        "SlowDown",
        "Throttling",
        "ThrottlingException",
        "TooManyRequests",
        "XAmzContentChecksumMismatch",
        "XAmzContentSHA256Mismatch",
    }
)
_TRANSIENT_STATUSES: Final = frozenset({HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.TOO_MANY_REQUESTS})
#: Every request failed on the way to the server or back, not on what it asked.
_TRANSPORT_ERRORS: Final = (BotoConnectionError, HTTPClientError, IncompleteReadError, ResponseStreamingError)


@contextmanager
def s3_errors(key: str) -> Iterator[None]:
    """Raise boto3's errors as ours."""
    try:
        yield
    except (ClientError, BotoCoreError) as error:
        raise translated(key, error) from error


def translated(key: str, error: ClientError | BotoCoreError) -> NightrateError:
    """Return the error that `error`, met while handling `key`, means to a caller."""
    if isinstance(error, ClientError):
        return _refusal(key, error)
    if isinstance(error, FlexibleChecksumError):
        return ObjectCorruptError(f"object {key!r} does not match the checksum that S3 keeps for it")
    if isinstance(error, _TRANSPORT_ERRORS):
        return StoreUnavailableError(f"object {key!r}: {error}")
    return UsageError(f"S3 cannot be used: {error}", hint="check the credentials, the region and the endpoint")


def status_of(error: ClientError) -> int:
    """Return the HTTP status of the answer."""
    return error.response["ResponseMetadata"]["HTTPStatusCode"]


def code_of(error: ClientError) -> str:
    """Return S3's error code, such as `NoSuchKey`; a HEAD has no body, so there it is the status as text."""
    return error.response["Error"].get("Code", "")


def _refusal(key: str, error: ClientError) -> NightrateError:
    status, code = status_of(error), code_of(error)
    answer = f"{code} ({error.response['Error'].get('Message', 'no message')})"
    if code == "NoSuchBucket":
        return UsageError("the S3 bucket does not exist", hint="create it, or correct the s3: URL")
    if code == "NoSuchKey":
        return ObjectMissingError(f"no object {key!r} in the bucket")
    if status >= HTTPStatus.INTERNAL_SERVER_ERROR or status in _TRANSIENT_STATUSES or code in _TRANSIENT_CODES:
        return StoreUnavailableError(f"object {key!r}: S3 answered {answer}")
    if status == HTTPStatus.NOT_FOUND:
        return ObjectMissingError(f"no object {key!r} in the bucket")
    if status in {HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN}:
        return UsageError(
            f"S3 refuses the credentials for {key!r}: {answer}",
            hint="check the access key, its secret, its rights on this bucket and prefix, and this machine's clock",
        )
    return UsageError(f"S3 refuses the request for {key!r}: {answer}", hint="check the region and the endpoint")
