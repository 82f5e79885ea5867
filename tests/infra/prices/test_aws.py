"""Prices as AWS says them, from a server on the loopback that speaks as AWS does."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from infra.prices.aws import AwsPrices
from pipeline.domain.costs.prices import Market, Price, PriceSource, picos_of, price_text
from pipeline.domain.errors import UsageError
from pipeline.ports.prices import PriceFeedError, PriceQuestion
from tests.infra.prices.aws_server import Aws, SpotChange, product, running_aws

NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)


@pytest.fixture(autouse=True)
def aws(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Aws]:
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIATEST")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    with running_aws() as server:
        monkeypatch.setenv("AWS_ENDPOINT_URL_PRICING", server.url)
        monkeypatch.setenv("AWS_ENDPOINT_URL_EC2", server.url)
        yield server


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Make boto3's pauses between tries take no time; return how long they would have been."""
    slept: list[float] = []
    monkeypatch.setattr(time, "sleep", slept.append)
    return slept


def ask(
    market: Market = Market.ON_DEMAND,
    *,
    instance_type: str = "g5.xlarge",
    region: str = "us-east-1",
    since: datetime = NOW - 24 * HOUR,
) -> list[Price]:
    question = PriceQuestion(provider="aws", instance_type=instance_type, market=market, region=region)
    return list(AwsPrices().ask(question, since=since, now=NOW))


def told(prices: list[Price]) -> list[tuple[str, str | None, str, datetime]]:
    return [
        (str(price.item.market), price.item.zone, price_text(price.unit_price_picos or 0), price.effective_at)
        for price in prices
    ]


def test_the_price_list_tells_on_demand_and_reserved_prices(aws: Aws) -> None:
    aws.products = [product("g5.xlarge", "1.0060000000", reserved="0.6340000000")]

    found = ask()

    began = datetime(2026, 1, 1, tzinfo=UTC)
    assert told(found) == [("on_demand", None, "1.006", began), ("reserved", None, "0.634", began)]
    [price, _] = found
    assert (price.source, price.as_of, price.origin) == (PriceSource.REFRESHED, NOW, "AWS Price List")
    assert (price.item.name, price.item.region, price.currency) == ("g5.xlarge", "us-east-1", "USD")
    [asked] = aws.asked
    filters = {each["Field"]: each["Value"] for each in asked["Filters"]}  # type: ignore[attr-defined] # as boto3 wrote it
    assert (filters["instanceType"], filters["regionCode"], filters["tenancy"]) == ("g5.xlarge", "us-east-1", "Shared")


def test_pages_are_read_to_the_last_and_capacity_blocks_passed_over(aws: Aws) -> None:
    aws.page_entries = 1
    aws.products = [
        product("p5.48xlarge", "31.4640000000", marketoption="CapacityBlock"),
        product("p5.48xlarge", "55.0400000000", marketoption="OnDemand"),
        product("p5.48xlarge", "55.0400000000"),
    ]

    assert [price for _, _, price, _ in told(ask(instance_type="p5.48xlarge"))] == ["55.04"]
    assert [asked.get("NextToken") for asked in aws.asked] == [None, "1", "2"]


def test_a_spot_history_tells_each_change_of_each_zone_by_id_and_name(aws: Aws) -> None:
    aws.page_entries = 2
    aws.spot = [
        SpotChange(instance_type="g5.xlarge", zone=zone, zone_id=zone_id, price=price, at=NOW - hours * HOUR)
        for zone, zone_id, price, hours in (
            ("us-east-1a", "use1-az6", "0.402300", 70),
            ("us-east-1a", "use1-az6", "0.410000", 30),
            ("us-east-1a", "use1-az6", "0.420000", 2),
            ("us-east-1b", "use1-az1", "0.500000", 48),
        )
    ] + [SpotChange(instance_type="g6.xlarge", zone="us-east-1a", zone_id="use1-az6", price="9", at=NOW)]

    found = ask(Market.SPOT)

    # What was in force a day ago, and what came since; not what was over by then.
    assert sorted(told([price for price in found if price.item.zone])) == sorted(
        ("spot", zone, price, NOW - hours * HOUR)
        for zones, price, hours in (
            (("us-east-1a", "use1-az6"), "0.41", 30),
            (("us-east-1a", "use1-az6"), "0.42", 2),
            (("us-east-1b", "use1-az1"), "0.50", 48),
        )
        for zone in zones
    )
    assert {asked["ProductDescription.1"] for asked in aws.asked} == {"Linux/UNIX"}
    assert [asked.get("NextToken") for asked in aws.asked] == [None, "2"]


def test_a_region_has_the_median_of_its_zones_from_when_all_are_known(aws: Aws) -> None:
    aws.spot = [
        SpotChange(instance_type="g5.xlarge", zone=zone, zone_id="", price=price, at=NOW - hours * HOUR)
        for zone, price, hours in (
            ("us-east-1a", "0.1", 70),
            ("us-east-1a", "0.2", 40),
            ("us-east-1b", "0.3", 30),
            ("us-east-1c", "0.4", 50),
            ("us-east-1b", "0.5", 10),
            ("us-east-1d", "0.1", 5),
        )
    ]

    def medians(since: datetime) -> list[tuple[str, datetime]]:
        found = told([price for price in ask(Market.SPOT, since=since) if price.item.zone is None])
        return [(price, at) for _, _, price, at in found]

    expected = [("0.30", NOW - 30 * HOUR), ("0.40", NOW - 10 * HOUR), ("0.20", NOW - 5 * HOUR)]
    assert medians(NOW - 24 * HOUR) == expected
    # Asked again later, it says the same of what is still told.
    assert medians(NOW - 7 * HOUR) == expected[1:]
    assert medians(NOW) == expected[2:]


@pytest.mark.parametrize("market", [Market.ON_DEMAND, Market.SPOT])
def test_an_instance_type_that_a_region_does_not_have_has_no_prices(market: Market) -> None:
    assert ask(market) == []


@pytest.mark.parametrize(
    ("market", "status", "code"),
    [
        (Market.ON_DEMAND, 400, "ThrottlingException"),
        (Market.ON_DEMAND, 500, "InternalErrorException"),
        (Market.SPOT, 503, "RequestLimitExceeded"),
        (Market.SPOT, 503, "Unavailable"),
    ],
)
def test_an_overloaded_aws_is_asked_again(
    aws: Aws, pauses: list[float], market: Market, status: int, code: str
) -> None:
    aws.products = [product("g5.xlarge", "1.006")]
    aws.spot = [SpotChange(instance_type="g5.xlarge", zone="us-east-1a", zone_id="", price="0.4", at=NOW)]
    aws.troubles = [(status, code)] * 2

    assert {price.unit_price_picos for price in ask(market)} == {
        picos_of("1.006" if market is Market.ON_DEMAND else "0.4")
    }
    assert len(aws.asked) == 3
    assert len(pauses) >= 2


@pytest.mark.parametrize("market", [Market.ON_DEMAND, Market.SPOT])
def test_an_aws_that_stays_overloaded_is_given_up(aws: Aws, pauses: list[float], market: Market) -> None:
    aws.troubles = [(503, "RequestLimitExceeded")] * 9

    with pytest.raises(PriceFeedError, match=r"overloaded; it said of g5\.xlarge .* in us-east-1"):
        ask(market)

    assert len(aws.asked) == 5
    assert pauses


@pytest.mark.parametrize(
    ("market", "status", "code", "said"),
    [
        (Market.ON_DEMAND, 400, "AccessDeniedException", "pricing:GetProducts"),
        (Market.ON_DEMAND, 400, "UnrecognizedClientException", "pricing:GetProducts"),
        (Market.SPOT, 403, "UnauthorizedOperation", "ec2:DescribeSpotPriceHistory"),
        (Market.SPOT, 401, "AuthFailure", "ec2:DescribeSpotPriceHistory"),
        (Market.SPOT, 400, "InvalidParameterValue", "check the instance type"),
    ],
)
def test_a_refusal_says_what_is_needed(aws: Aws, market: Market, status: int, code: str, said: str) -> None:
    aws.troubles = [(status, code)]

    with pytest.raises(UsageError, match=code) as raised:
        ask(market)

    assert said in str(raised.value.hint)


def test_without_credentials_it_is_said_where_they_are_looked_for(aws: Aws, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")

    with pytest.raises(UsageError, match="no credentials") as raised:
        ask()

    assert "AWS_PROFILE" in str(raised.value.hint)
    assert aws.asked == []


def test_a_profile_that_there_is_not_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_PROFILE", "nobody")

    with pytest.raises(UsageError, match="nobody"):
        ask()


def test_an_aws_that_cannot_be_reached_is_named(monkeypatch: pytest.MonkeyPatch, pauses: list[float]) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_EC2", "http://127.0.0.1:9")

    with pytest.raises(PriceFeedError, match="cannot be reached"):
        ask(Market.SPOT)

    assert pauses


@pytest.mark.parametrize("content", ["{}", "no JSON", '{"product": {}, "terms": {"OnDemand": {"a": {}}}}'])
def test_an_answer_that_cannot_be_read_is_no_traceback(aws: Aws, content: str) -> None:
    aws.products = [content]

    with pytest.raises(PriceFeedError, match="cannot be read"):
        ask()


def test_a_price_that_is_none_cannot_be_read(aws: Aws) -> None:
    aws.spot = [SpotChange(instance_type="g5.xlarge", zone="us-east-1a", zone_id="", price="cheap", at=NOW)]

    with pytest.raises(PriceFeedError, match="'cheap' is not a price"):
        ask(Market.SPOT)


def test_two_prices_for_one_thing_are_not_chosen_from(aws: Aws) -> None:
    aws.products = [product("g5.xlarge", "1.006"), product("g5.xlarge", "1.206")]

    with pytest.raises(PriceFeedError, match="names 2 prices"):
        ask()


def test_a_history_without_end_is_given_up(aws: Aws) -> None:
    aws.page_entries = 0
    aws.spot = [SpotChange(instance_type="g5.xlarge", zone="us-east-1a", zone_id="", price="1", at=NOW)]

    with pytest.raises(PriceFeedError, match="pages"):
        ask(Market.SPOT)


@pytest.mark.parametrize(
    ("instance_type", "region", "said"),
    [("g5.xlarge", "mars", "no AWS region"), ("g5", "us-east-1", "no EC2 instance type"), ("*", "us-east-1", "no EC2")],
)
def test_what_cannot_be_asked_is_not(aws: Aws, instance_type: str, region: str, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        ask(instance_type=instance_type, region=region)

    assert aws.asked == []


def test_other_providers_are_not_asked() -> None:
    question = PriceQuestion(provider="gcp", instance_type="a3", market=Market.SPOT, region="us-east1")

    with pytest.raises(UsageError, match="gcp"):
        AwsPrices().ask(question, since=NOW, now=NOW)
