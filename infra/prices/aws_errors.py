"""What AWS and boto3 raise when asked for prices, in our words."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from http import HTTPStatus
from typing import Final

from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    CredentialRetrievalError,
    HTTPClientError,
    NoAuthTokenError,
    NoCredentialsError,
    PartialCredentialsError,
    TokenRetrievalError,
)
from botocore.exceptions import ConnectionError as BotoConnectionError
from pydantic import ValidationError

from pipeline.domain.errors import NightrateError, UsageError
from pipeline.ports.prices import PriceFeedError

_NO_CREDENTIALS: Final = (
    NoCredentialsError,
    PartialCredentialsError,
    CredentialRetrievalError,
    NoAuthTokenError,
    TokenRetrievalError,
)
_UNREACHED: Final = (BotoConnectionError, HTTPClientError)
_REFUSED_CODES: Final = frozenset(
    {
        "AccessDenied",
        "AccessDeniedException",
        "AuthFailure",
        "ExpiredToken",
        "ExpiredTokenException",
        "InvalidClientTokenId",
        "InvalidSignatureException",
        "OptInRequired",
        "RequestExpired",
        "SignatureDoesNotMatch",
        "UnauthorizedOperation",
        "UnrecognizedClientException",
    }
)
_OVERLOADED_CODES: Final = frozenset(
    {
        "RequestLimitExceeded",
        "RequestThrottled",
        "SlowDown",
        "Throttling",
        "ThrottlingException",
        "TooManyRequestsException",
    }
)
_RIGHTS: Final = "reading prices needs pricing:GetProducts and ec2:DescribeSpotPriceHistory; check the clock, too"
_SET: Final = "AWS_PROFILE, AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or a role of this machine"


@contextmanager
def aws_errors(what: str) -> Iterator[None]:
    """Raise what goes wrong while AWS is asked for the price of `what` as ours."""
    try:
        yield
    except (ClientError, BotoCoreError) as error:
        raise _translated(what, error) from error
    except ValidationError as error:
        problem = error.errors()[0]
        where = ".".join(str(step) for step in problem["loc"])
        raise PriceFeedError(f"the answer about {what} cannot be read: {where}: {problem['msg']}") from error


def _translated(what: str, error: ClientError | BotoCoreError) -> NightrateError:
    if isinstance(error, ClientError):
        return _refusal(what, error)
    if isinstance(error, _NO_CREDENTIALS):
        return UsageError(f"AWS has no credentials from here: {error}", hint=_SET)
    if isinstance(error, _UNREACHED):
        return PriceFeedError(f"AWS cannot be reached about {what}: {error}")
    return UsageError(f"AWS cannot be asked about {what}: {error}", hint="check the credentials and the region")


def _refusal(what: str, error: ClientError) -> NightrateError:
    code = error.response["Error"].get("Code", "")
    answer = f"{code} ({error.response['Error'].get('Message', 'no message')})"
    status = error.response["ResponseMetadata"]["HTTPStatusCode"]
    if code in _REFUSED_CODES or status in {HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN}:
        return UsageError(f"AWS refuses to tell the price of {what}: {answer}", hint=_RIGHTS)
    if (
        code in _OVERLOADED_CODES
        or status >= HTTPStatus.INTERNAL_SERVER_ERROR
        or status == HTTPStatus.TOO_MANY_REQUESTS
    ):
        return PriceFeedError(f"AWS is overloaded; it said of {what}: {answer}")
    return UsageError(f"AWS does not know {what}: {answer}", hint="check the instance type and the region")
