from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.app.children import child_environment
from pipeline.config import Settings
from pipeline.domain.addresses import Reach


def test_children_read_the_very_settings_that_their_parent_had(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = Settings(
        home=tmp_path,
        models={"m": "vision:/m"},
        url_reach=Reach.LISTED,
        url_hosts=["images.example", "10.0.0.0/8"],
        image_prefixes=["s3://pictures/shared"],
    )

    for name, value in child_environment(settings).items():
        monkeypatch.setenv(name, value)

    read = Settings()
    assert (read.url_reach, read.url_hosts, read.image_prefixes) == (
        settings.url_reach, settings.url_hosts, settings.image_prefixes,
    )  # fmt: skip
    assert read.models.keys() == {"m"}


def test_children_read_all_that_the_file_says_of_money(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "nightrate.toml").write_text("""
        share_overhead = "even"
        tiers.bulk.price_multiplier = 0.5
        plans.paid.price_multiplier = 0.9
        tenants.tnt_a.price_multiplier = 0.000001
        tariff.zone = "Europe/Berlin"
        tariff.hours = [{ days = ["mon"], from = "22:00", to = "06:00", multiplier = 0.6 }]
        tariff.fleet = { floor = 0.7, ceiling = 1.5 }
        prices.echo = { input_per_million = "0.000001", output_per_million = "100000" }
        rate_card.pools.east = { provider = "aws", instance_type = "p5.48xlarge", region = "us-east-1", zone = "use1-az1" }
        rate_card.pools.lab = { rate_per_hour = "0.000001" }
        rate_card.discounts = [{ provider = "aws", discount_ppm = 120000 }]
        rate_card.commitments = [{ provider = "aws", rate_per_hour = "0.333333" }]
    """)
    monkeypatch.chdir(tmp_path)
    settings = Settings(home=tmp_path)

    for name, value in child_environment(settings).items():
        monkeypatch.setenv(name, value)
    (tmp_path / "nightrate.toml").unlink()

    read = Settings()
    assert (read.share_overhead, read.rate_card, read.plan_book) == (
        settings.share_overhead, settings.rate_card, settings.plan_book,
    )  # fmt: skip
