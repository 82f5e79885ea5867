"""What a worker says at registration that its time costs: what the rate card says of its pool."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic import SecretStr

from pipeline.app.stack import Stack, open_stack
from pipeline.app.working import _priced
from pipeline.config import Settings
from pipeline.domain.costs.amounts import Amounts
from pipeline.domain.costs.rate_card import PriceUnknownError
from pipeline.domain.ids import new_worker_id
from pipeline.ports.packs import WorkerRegistration
from pipeline.rate_settings import RateCardSettings
from storage.workers import covered_workers
from tests.services import fresh_database
from tests.storage.world import World, open_world

P5 = {"provider": "aws", "instance_type": "p5.48xlarge", "region": "us-east-1"}


@pytest.fixture
def stack(template_url: str, redis_url: str, tmp_path: Path) -> Iterator[Stack]:
    with fresh_database(template_url) as url:
        settings = Settings(home=tmp_path, database_url=SecretStr(url), redis_url=SecretStr(redis_url))
        with open_stack(settings) as stack:
            yield stack


def settings_with(stack: Stack, **rate_card: object) -> Settings:
    return stack.settings.model_copy(update={"rate_card": RateCardSettings.model_validate(rate_card)})


def test_a_pool_of_which_nothing_is_said_costs_the_settings_price(stack: Stack) -> None:
    offer, rates = _priced(stack.settings, stack)

    assert offer.instance_type is None
    assert rates == Amounts.cost(100_000)


def test_a_pool_on_a_known_machine_costs_what_the_catalogue_says_less_what_was_negotiated(stack: Stack) -> None:
    settings = settings_with(stack, pools={"local": P5}, discounts=[{"provider": "aws", "discount_ppm": 250_000}])

    offer, rates = _priced(settings, stack)

    assert (offer.provider, offer.instance_type, offer.region) == ("aws", "p5.48xlarge", "us-east-1")
    assert rates.list_micros == rates.on_demand_micros > 10_000_000
    assert rates.contracted_micros == rates.effective_micros == rates.billed_micros == (rates.list_micros * 3 + 2) // 4


def test_a_machine_without_a_price_starts_no_worker(stack: Stack) -> None:
    unheard_of = {"provider": "aws", "instance_type": "z9.metal", "region": "us-east-1"}

    with pytest.raises(PriceUnknownError, match=r"no price in USD is known for aws z9\.metal"):
        _priced(settings_with(stack, pools={"local": unheard_of}), stack)


def test_a_commitment_covers_as_many_workers_as_it_says(stack: Stack) -> None:
    committed = {"provider": "aws", "family": "p5", "workers": 1, "rate_per_hour": "12.5"}
    settings = settings_with(stack, pools={"local": P5}, commitments=[committed])
    offer, first = _priced(settings, stack)
    with open_world(stack.database.url) as world:
        register(world, first)
        assert [each.instance_type for each in covered_workers(stack.database)] == [offer.instance_type]

    _, second = _priced(settings, stack)

    assert (first.effective_micros, first.billed_micros) == (12_500_000, 0)
    assert second.effective_micros == second.billed_micros == second.list_micros > first.effective_micros


def register(world: World, rates: Amounts) -> None:
    world.workers.register(
        WorkerRegistration(
            worker_id=new_worker_id(),
            pool="local",
            market="on_demand",
            host="here",
            pid=1,
            variants={},
            rate_micros_per_hour=rates.effective_micros,
            currency="USD",
            rates=rates,
            **P5,
        )
    )
