"""`nightrate prices`, and the rate card in nightrate.toml."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from pipeline.config import load_settings
from pipeline.domain.costs.billing_rules import AWS_HOURLY_V1, FLAT_V1
from pipeline.domain.costs.prices import Market
from pipeline.domain.costs.rate_card import Commitment, Discount, Offer
from pipeline.domain.errors import UsageError
from pipeline.entrypoints.cli.main import main
from tests.infra.prices.aws_server import Aws, SpotChange, product, running_aws
from tests.pipeline.entrypoints.line import Line, at_home

TOML = """
[[rate_card.discounts]]
provider = "aws"
family = "p5"
market = "on_demand"
discount_ppm = 120000

[[rate_card.commitments]]
provider = "aws"
family = "p5"
region = "us-east-1"
workers = 4
rate_per_hour = "38.50"

[rate_card.pools.east]
provider = "aws"
instance_type = "g5.xlarge"
region = "us-east-1"
billing_rule = "aws_hourly_v1"

[rate_card.pools.own]
rate_per_hour = "0.33"
"""


@pytest.fixture(autouse=True)
def _home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    at_home(tmp_path, monkeypatch, prefixes=("AWS_",))
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")


@pytest.fixture
def line(capsys: pytest.CaptureFixture[str]) -> Line:
    return Line(capsys, "prices")


@pytest.fixture
def stored(line: Line, database_url: str, monkeypatch: pytest.MonkeyPatch) -> Line:
    monkeypatch.setenv("NIGHTRATE_DATABASE_URL", database_url)
    return line


@pytest.fixture
def aws(monkeypatch: pytest.MonkeyPatch) -> Iterator[Aws]:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIATEST")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    with running_aws() as server:
        monkeypatch.setenv("AWS_ENDPOINT_URL_PRICING", server.url)
        monkeypatch.setenv("AWS_ENDPOINT_URL_EC2", server.url)
        yield server


def holding(line: Line, *arguments: str) -> dict[str, tuple[str, str]]:
    """Return price and source of each item, by market and zone."""
    listed = line.document("list", "--instance-type", "g5.xlarge", "--region", "us-east-1", *arguments)["prices"]
    return {
        f"{each['market']} {each['zone']}": (each["holds"]["price"], each["holds"]["source"])
        for each in listed
        if each["holds"] is not None
    }


def test_the_catalogue_is_listed_with_nothing_up(line: Line) -> None:
    assert line.run("list", "--instance-type", "g5.xlarge", "--region", "us-east-1") == 0
    assert "catalogue's prices alone" in line.err
    assert "1.006 USD" in line.out

    [get] = line.document("list", "--name", "s3_standard.get")["prices"]
    assert (get["holds"]["price"], get["holds"]["unit_price_picos"], get["unit"]) == ("0.0000004", 400_000, "request")
    assert get["holds"]["age_seconds"] > 0
    assert "from memory" in get["holds"]["origin"]
    assert line.document("list", "--name", "nothing")["prices"] == []
    assert line.run("list", "--name", "nothing") == 0
    assert "No such price" in line.err


def test_without_a_filter_prices_are_told_by_family(line: Line) -> None:
    assert line.run("list") == 0
    heads, _rule, *families = line.out.splitlines()
    assert line.run("list", "--all") == 0
    _heads, _rule, *each = line.out.splitlines()

    assert heads.split() == ["PROVIDER", "FAMILY", "MARKET", "FOR", "NAMES", "PRICES", "FROM", "TO", "AGE"]
    assert sum(int(row.split()[5]) for row in families) == len(each)
    assert len(families) < len(each) / 4


def test_what_aws_says_is_kept_and_beats_the_catalogue(stored: Line, aws: Aws) -> None:
    aws.products = [product("g5.xlarge", "1.1000000000")]
    aws.spot = [
        SpotChange(
            instance_type="g5.xlarge",
            zone="us-east-1a",
            zone_id="use1-az6",
            price="0.4023",
            at=datetime.now(UTC) - timedelta(hours=5),
        )
    ]
    arguments = ("refresh", "--region", "us-east-1", "--instance-type", "g5.xlarge")

    assert stored.document(*arguments) == {"asked": 2, "still_fresh": 0, "new_prices": 4, "failures": []}
    # Not asked again: the answers are young.
    assert stored.document(*arguments) == {"asked": 0, "still_fresh": 2, "new_prices": 0, "failures": []}
    assert len(aws.asked) == 2
    # Asked again, and nothing of it is news.
    assert stored.document(*arguments, "--max-age", "0")["new_prices"] == 0
    assert stored.run(*arguments) == 0
    assert "0 new prices from 0 questions, 2 answers younger than 1h, 0 failures" in stored.out

    held = holding(stored)
    assert held["on_demand None"] == ("1.10", "refreshed")
    assert held["spot use1-az6"] == held["spot us-east-1a"] == held["spot None"] == ("0.4023", "refreshed")
    # The catalogue's other prices are kept with them.
    assert held["reserved None"][1] == "catalogue"


def test_a_question_that_fails_is_told_and_the_others_are_kept(
    stored: Line, aws: Aws, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("time.sleep", lambda _: None)
    aws.products = ["{}"]

    assert stored.run("refresh", "--region", "us-east-1", "--instance-type", "g5.xlarge", "--json") == 1
    [failure] = json.loads(stored.out)["failures"]
    assert (failure["instance_type"], failure["market"]) == ("g5.xlarge", "on_demand")
    assert failure["error"]["code"] == "price_feed_unavailable"
    assert "cannot be read" in stored.err
    assert "Traceback" not in stored.err


def test_refresh_without_credentials_says_so(stored: Line) -> None:
    assert stored.run("refresh", "--region", "us-east-1", "--instance-type", "g5.xlarge") == 2
    assert "no credentials" in stored.err
    assert "AWS_PROFILE" in stored.err
    assert "Traceback" not in stored.err


def test_the_operators_price_beats_all_from_its_instant_on_and_can_be_taken_back(stored: Line) -> None:
    where = ("--region", "us-east-1")

    said = stored.document("set", "g5.xlarge", "0.9", *where)
    assert (said["price"], said["source"], said["origin"], said["is_new"]) == ("0.90", "override", "cli", True)
    assert holding(stored)["on_demand None"] == ("0.90", "override")

    assert stored.run("set", "g5.xlarge", "0.8", *where, "--effective-at", "2100-01-01T00:00:00+00:00") == 0
    assert "aws g5.xlarge (on_demand) in us-east-1 costs 0.80 USD per hour from 2100-01-01" in stored.out
    assert stored.run("set", "g5.xlarge", "0.8", *where, "--effective-at", "2100-01-01") == 0
    assert stored.run("set", "g5.xlarge", "0.8", *where, "--effective-at", "2100-01-01T00:00:00Z") == 0
    assert "said before" in stored.err
    assert holding(stored)["on_demand None"] == ("0.90", "override")
    assert stored.run("list", "--instance-type", "g5.xlarge", *where) == 0
    assert "override from 2100-01-01" in stored.out

    assert stored.document("unset", "g5.xlarge", *where)["price"] is None
    assert holding(stored)["on_demand None"] == ("1.006", "catalogue")


def test_a_price_of_anything_can_be_said(stored: Line) -> None:
    told = stored.document(
        "set", "my-model", "0.00000015", "--provider", "house", "--unit", "input_token", "--market", "batch"
    )

    assert told["unit_price_picos"] == 150_000
    [listed] = stored.document("list", "--name", "my-model")["prices"]
    assert (listed["provider"], listed["market"], listed["holds"]["price"]) == ("house", "batch", "0.00000015")


def test_the_catalogue_is_imported_with_its_sources_named(stored: Line) -> None:
    assert stored.run("import") == 0
    assert "litellm 1.109.1" in stored.out
    assert stored.document("import")["new_prices"] == 0


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("set", "g5.xlarge", "dear"), "'dear' is not a price"),
        (("set", "g5.xlarge", "-1"), "No such option"),
        (("set", "g5.xlarge", "0.0000000000001"), "decimals"),
        (("set", "g5.xlarge", "1", "--unit", "day"), "hour, gb_month"),
        (("set", "g5.xlarge", "1", "--market", "black"), "on_demand, spot"),
        (("set", "g5.xlarge", "1", "--zone", "use1-az1"), "name the region"),
        (("set", "g5.xlarge", "1", "--effective-at", "soon"), "no instant"),
        (("set", "g5.xlarge", "1", "--effective-at", "0001-01-01"), "no instant"),
        (("set", "", "1"), "no name"),
        (("set", "g5\n", "1"), "no name"),
        (("set", "g5.xlarge", "1", "--region", " "), "no name"),
        (("unset", "g5.xlarge", "--provider", "x" * 201), "no name"),
        (("list", "--instance-type", "a", "--name", "b"), "leave one out"),
        (("list", "--unit", "mile"), "hour, gb_month"),
        (("refresh",), "--region us-east-1"),
        (("refresh", "--region", "us-east-1", "--max-age", "long"), "24h"),
        (("refresh", "--region", "us-east-1", "--history", "long"), "24h"),
    ],
)
def test_what_makes_no_sense_ends_with_2_and_says_what_would(line: Line, arguments: tuple[str, ...], said: str) -> None:
    assert line.run(*arguments) == 2
    assert said in line.err
    assert "Traceback" not in line.err


def test_what_aws_cannot_be_asked_is_said_before_it_is_asked(stored: Line, aws: Aws) -> None:
    assert stored.run("refresh", "--region", "mars") == 2
    assert "no AWS region" in stored.err
    assert stored.run("refresh", "--region", "us-east-1", "--instance-type", "g5") == 2
    assert "no EC2 instance type" in stored.err
    assert aws.asked == []


def test_the_rate_card_of_the_settings_is_read(tmp_path: Path) -> None:
    (tmp_path / "nightrate.toml").write_text(TOML)

    card = load_settings().rate_card

    assert card.contracted() == [Discount(provider="aws", family="p5", market=Market.ON_DEMAND, discount_ppm=120_000)]
    assert card.committed() == [
        Commitment(provider="aws", family="p5", region="us-east-1", workers=4, rate_micros_per_hour=38_500_000)
    ]
    assert card.offer_of("east", "spot") == Offer(
        market=Market.SPOT, provider="aws", instance_type="g5.xlarge", region="us-east-1"
    )
    assert card.offer_of("own", "on_demand").fixed_micros_per_hour == 330_000
    assert card.offer_of("local", "on_demand") == Offer(market=Market.ON_DEMAND)
    assert (card.billing_rule_of("east", "aws"), card.billing_rule_of("local", None)) == (AWS_HOURLY_V1, FLAT_V1)


@pytest.mark.parametrize(
    ("written", "said"),
    [
        ("[rate_card]\nrates = 1\n", "rate_card.rates"),
        ('[[rate_card.discounts]]\nprovider = "aws"\n', "discount_ppm"),
        ('[[rate_card.discounts]]\nprovider = "aws"\ndiscount_ppm = 1000001\n', "discount_ppm"),
        ('[[rate_card.discounts]]\nprovider = "aws"\ndiscount_ppm = 1\nmarket = "grey"\n', "market"),
        ('[[rate_card.commitments]]\nprovider = "aws"\nrate_per_hour = "-1"\n', "rate_per_hour"),
        ('[[rate_card.commitments]]\nprovider = "aws"\nrate_per_hour = "1"\nworkers = 0\n', "workers"),
        ('[rate_card.pools.a]\nprovider = "aws"\n', "go together"),
        ('[rate_card.pools.a]\nzone = "use1-az1"\n', "needs its region"),
        ('[rate_card.pools.a]\nbilling_rule = "aws_linux_v9"\n', "aws_linux_v1"),
        ('[rate_card.pools.a]\nrate_per_hour = "0.0000001"\n', "rate_per_hour"),
        ('[rate_card.pools."A b"]\nrate_per_hour = "1"\n', "rate_card.pools"),
    ],
)
def test_a_rate_card_that_makes_no_sense_is_named(written: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "nightrate.toml").write_text(written)

    with pytest.raises(UsageError, match="bad setting") as raised:
        load_settings()

    assert said in raised.value.message


def test_config_shows_the_rate_card_as_it_was_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "nightrate.toml").write_text(TOML)

    with pytest.raises(SystemExit):
        main(("config", "--json"))

    rows = {row["name"]: row for row in json.loads(capsys.readouterr().out)}
    assert rows["rate_card"]["value"]["pools"]["own"] == {"rate_per_hour": "0.33"}
    assert rows["rate_card"]["source"] == "file: nightrate.toml"
    assert "discount_ppm" in rows["rate_card"]["description"]
