"""Prices as AWS says them: on-demand and reserved from its price list, spot from EC2's history.

Tries of one request, their pauses when AWS is overloaded, and the credentials are boto3's own: the environment, the
shared files, the machine's role.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Final, Protocol, cast

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError

from infra.prices.aws_answers import PROVIDER, SpotAnswer, products_of, spot_prices
from infra.prices.aws_errors import aws_errors
from pipeline.domain.costs.prices import Market, Price
from pipeline.domain.errors import UsageError
from pipeline.ports.prices import PriceFeedError, PriceQuestion

if TYPE_CHECKING:
    from boto3.session import Session

_CONNECT_TIMEOUT_SECONDS: Final = 5
_READ_TIMEOUT_SECONDS: Final = 30
_TRIES_MAX: Final = 5
#: Of a thousand changes each: a year of an instance type in the largest region.
_PAGES_MAX: Final = 100
_PAGE_ENTRIES: Final = 1000
_PRODUCTS_PAGE: Final = 100
#: One of the few places that the price list of all regions is served from.
_PRICE_LIST_REGION: Final = "us-east-1"
_LINUX: Final = "Linux/UNIX"
_REGION: Final = re.compile(r"[a-z]{2}(-[a-z]+)+-[0-9]{1,2}")
_INSTANCE_TYPE: Final = re.compile(r"[a-z0-9][a-z0-9-]*\.[a-z0-9-]+")
#: What a Linux machine of nobody else's, reserved by nobody, is called in the price list.
_LINUX_MACHINE: Final[Mapping[str, str]] = {
    "operatingSystem": "Linux",
    "preInstalledSw": "NA",
    "tenancy": "Shared",
    "capacitystatus": "Used",
    "licenseModel": "No License required",
}


class _Client(Protocol):
    """What is used of boto3's clients, which are made at run time."""

    def get_products(self, **arguments: object) -> Mapping[str, object]: ...

    def describe_spot_price_history(self, **arguments: object) -> Mapping[str, object]: ...


class AwsPrices:
    """A `PriceFeed` of EC2's prices for Linux. Not safe to share between threads."""

    def __init__(self) -> None:
        """Ask nothing yet."""
        self._clients: dict[tuple[str, str], _Client] = {}
        self._session: Session | None = None

    def ask(self, question: PriceQuestion, *, since: datetime, now: datetime) -> Sequence[Price]:
        """Return prices of one instance type in one region; see the port."""
        if question.provider != PROVIDER:
            raise UsageError(f"{question.provider} cannot be asked for prices", hint="aws can")
        if not _REGION.fullmatch(question.region):
            raise UsageError(f"{question.region!r} is no AWS region", hint="such as us-east-1")
        if not _INSTANCE_TYPE.fullmatch(question.instance_type):
            raise UsageError(f"{question.instance_type!r} is no EC2 instance type", hint="such as g5.xlarge")
        what = f"{question.instance_type} ({question.market}) in {question.region}"
        with aws_errors(what):
            if question.market is Market.SPOT:
                return spot_prices(self._spot_history(question, since, now), since=since, now=now)
            return products_of(self._products(question), question, now=now)

    def _products(self, question: PriceQuestion) -> Iterator[str]:
        """Yield the products of the price list, each a JSON document."""
        client = self._client("pricing", _PRICE_LIST_REGION)
        fields = {**_LINUX_MACHINE, "instanceType": question.instance_type, "regionCode": question.region}
        arguments: dict[str, object] = {
            "ServiceCode": "AmazonEC2",
            "FormatVersion": "aws_v1",
            "MaxResults": _PRODUCTS_PAGE,
            "Filters": [{"Type": "TERM_MATCH", "Field": name, "Value": value} for name, value in fields.items()],
        }
        for page in _pages(client.get_products, arguments):
            yield from cast("Sequence[str]", page.get("PriceList", ()))

    def _spot_history(self, question: PriceQuestion, since: datetime, now: datetime) -> Iterator[SpotAnswer]:
        """Yield the price in force at `since` in each zone, and each change up to now."""
        client = self._client("ec2", question.region)
        arguments: dict[str, object] = {
            "InstanceTypes": [question.instance_type],
            "ProductDescriptions": [_LINUX],
            "StartTime": since,
            "EndTime": now,
            "MaxResults": _PAGE_ENTRIES,
        }
        for page in _pages(client.describe_spot_price_history, arguments):
            for entry in cast("Sequence[Mapping[str, object]]", page.get("SpotPriceHistory", ())):
                yield SpotAnswer.model_validate({"region": question.region, **entry})

    def _client(self, service: str, region: str) -> _Client:
        client = self._clients.get((service, region))
        if client is None:
            client = self._clients[service, region] = self._connect(service, region)
        return client

    def _connect(self, service: str, region: str) -> _Client:
        config = Config(
            connect_timeout=_CONNECT_TIMEOUT_SECONDS,
            read_timeout=_READ_TIMEOUT_SECONDS,
            retries={"mode": "standard", "total_max_attempts": _TRIES_MAX},
        )
        try:
            if self._session is None:
                self._session = boto3.session.Session()  # one of our own: the default one is not safe to share
            # Its services are names at run time, which no overload of its stubs takes.
            connect = cast("_Connect", self._session.client)
            return connect(service, region_name=region, config=config)
        except (BotoCoreError, ValueError) as error:
            raise UsageError(f"AWS cannot be asked: {error}", hint="check the profile and the endpoint") from error


class _Connect(Protocol):
    def __call__(self, service: str, *, region_name: str, config: Config) -> _Client: ...


class _Operation(Protocol):
    def __call__(self, **arguments: object) -> Mapping[str, object]: ...


def _pages(ask: _Operation, arguments: Mapping[str, object]) -> Iterator[Mapping[str, object]]:
    token: object = None
    for _ in range(_PAGES_MAX):
        page = ask(**arguments, **({"NextToken": token} if token else {}))
        yield page
        token = page.get("NextToken")
        if not token:
            return
    raise PriceFeedError(f"AWS has more than {_PAGES_MAX} pages to say", hint="ask for fewer days")
