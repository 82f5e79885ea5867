"""Fourteen days of demand and of spot capacity, for fleets: from recorded files, or made up where there are none."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from random import Random
from typing import Final

import numpy as np

from pipeline.domain.costs import catalogue
from pipeline.domain.costs.prices import Market
from pipeline.domain.costs.rate_card import Offer, PriceBook, RateCard
from pipeline.domain.ids import BatchId, TenantId
from pipeline.domain.tiers import DEFAULT_WINDOWS, Tier
from pipeline.domain.windows import parse_window
from pipeline.ports.cycle import WorkSize
from scheduler.simulate.arrivals import Arrival
from scheduler.simulate.capacity import Capacity, made_up_capacity
from scheduler.simulate.fleet import Speed, Trouble
from scheduler.simulate.scene import Delay, ElasticPool, Offering, Scene
from tests.bench.spot_traces import spot_traces

DAYS: Final = 14
BIN: Final = 600.0
#: Share of the work, and batches an hour of each model, by tier.
SHARES: Final[Mapping[Tier, float]] = {Tier.URGENT: 0.1, Tier.STANDARD: 0.4, Tier.BULK: 0.3, Tier.NIGHTLY: 0.2}
BATCHES_AN_HOUR: Final = 0.6
TENANTS: Final = 6
#: Rows as large as production's, on a machine of eight H100.
MODELS: Final[Mapping[str, Speed]] = {
    "m-large": Speed(input_tokens_per_second=20_000.0, output_tokens_per_second=2_500.0),
    "m-small": Speed(input_tokens_per_second=80_000.0, output_tokens_per_second=10_000.0),
}
ROW_TOKENS: Final = (600.0, 250.0)
_COLUMNS: Final = {"m-large": "language/m-large_req_per_s", "m-small": "language/m-small_req_per_s"}
POOL: Final = "gpu"
#: Machines of one zone where a trace tells only whether there are any.
ZONE_WORKERS: Final = 16
V100_PRICES: Final = (0.9731, 3.06)


def rates(folder: Path | None) -> dict[str, list[float]]:
    """Return how much is asked for in each ten minutes, by model, 1 on average; a tide where nothing was recorded."""
    bins = round(DAYS * 86_400 / BIN)
    if folder is None:
        tide = [1 + 0.6 * math.sin(2 * math.pi * number * BIN / 86_400) for number in range(bins)]
        return dict.fromkeys(MODELS, tide)
    with (folder / "servegen" / "total_rate_10min_14d.csv").open(encoding="utf-8") as lines:
        rows = list(csv.DictReader(lines))
    made = {}
    for model, column in _COLUMNS.items():
        values = np.array([float(row[column] or 0) for row in rows])[:bins]
        made[model] = list(values / values.mean())
    return made


def arrivals(folder: Path | None, *, workers: float, days: float = DAYS, seed: int = 0) -> tuple[Arrival, ...]:
    """Return batches that together ask for `workers` worker-seconds a second, half of it of each model.

    Work piles up as the rates say, a share of it for each tier; at moments of a Poisson process, of model and tier each, a
    batch takes what has piled up. Its tenant is drawn, few have much; its answers are shorter than intake estimates by a
    factor that is drawn.
    """
    random = Random(seed)
    made = [
        arrival
        for model, series in rates(folder).items()
        for tier in Tier
        for arrival in _of_lane(model, tier, series, random, workers=workers / len(MODELS) * SHARES[tier], days=days)
    ]
    made.sort(key=lambda arrival: (arrival.at_seconds, arrival.model, arrival.tier))
    return tuple(
        replace(arrival, batch_id=BatchId(f"batch_{number:06d}"), template=number + 1)
        for number, arrival in enumerate(made)
    )


def _of_lane(
    model: str, tier: Tier, series: Sequence[float], random: Random, *, workers: float, days: float
) -> Iterator[Arrival]:
    at, taken = 0.0, 0.0
    piled = np.concatenate([[0.0], np.cumsum(np.array(series)) * BIN * workers])
    while (at := at + random.expovariate(BATCHES_AN_HOUR / 3600)) < days * 86_400:
        whole = float(np.interp(at / BIN, np.arange(len(piled)), piled))
        seconds, taken = whole - taken, whole
        ratio = min(1.0, random.lognormvariate(-0.2, 0.25))
        rows = max(1, round(seconds / _row_seconds(model)))
        yield Arrival(
            batch_id=BatchId("batch"),
            tenant_id=TenantId(f"tnt_{_zipf(random)}"),
            tier=tier,
            model=model,
            at_seconds=at,
            window_seconds=parse_window(DEFAULT_WINDOWS[tier]).total_seconds(),
            estimated=WorkSize(
                rows=rows, input_tokens=rows * ROW_TOKENS[0], output_tokens=rows * ROW_TOKENS[1] / ratio
            ),
            output_ratio=ratio,
        )


def _row_seconds(model: str) -> float:
    return MODELS[model].seconds(WorkSize(rows=1, input_tokens=ROW_TOKENS[0], output_tokens=ROW_TOKENS[1]))


def _zipf(random: Random) -> int:
    return random.choices(range(TENANTS), weights=[1 / (rank + 1) for rank in range(TENANTS)])[0]


# --- where it runs -----------------------------------------------------------------------------


def scene(offerings: Sequence[Offering], *, interval_seconds: float, notice_seconds: float) -> Scene:
    """Return a scene with these offers; packs take as long as they are, so that the bound holds to the second."""
    pool = ElasticPool(
        name=POOL,
        offerings=tuple(offerings),
        speeds=MODELS,
        boot=Delay(mean_seconds=90.0),
        load=Delay(mean_seconds=210.0),
        workers_max=64,
    )
    return Scene(
        pools=(pool,),
        trouble=Trouble(spread=0.0),
        interval_seconds=interval_seconds,
        cycle_seconds=interval_seconds,
        notice_seconds=notice_seconds,
    )


def only(whole: Scene, market: Market) -> Scene:
    """Return the scene with the offers of one market."""
    (pool,) = whole.pools
    kept = tuple(each for each in pool.offerings if each.market is market)
    return replace(whole, pools=(replace(pool, offerings=kept),))


def h100(folder: Path | None, *, days: float, interval_seconds: float) -> Scene:
    """Return machines of eight H100 in 13 zones of Google's cloud: counts recorded every ten minutes.

    Of 16 asked for, so many could be had. Eight days, begun again from the first one after the last.
    """
    until = (days + 2) * 86_400
    card = _card()
    made = []
    for zone, counts in _counts(folder, until).items():
        region = zone.rpartition("-")[0]
        spot, on_demand = (
            _rate(card, "gcp", "a3-highgpu-8g", region, market) for market in (Market.SPOT, Market.ON_DEMAND)
        )
        made.append(
            Offering(
                name=f"spot-{zone}",
                pool=POOL,
                market=Market.SPOT,
                provider="gcp",
                instance_type="a3-highgpu-8g",
                region=region,
                zone=zone,
                rate_micros_per_hour=spot,
                on_demand_micros_per_hour=on_demand,
                capacity=counts,
            )
        )
    cheapest = min(made, key=lambda each: (each.on_demand_micros_per_hour, each.name))
    steady = replace(
        cheapest,
        name=f"on-demand-{cheapest.region}",
        market=Market.ON_DEMAND,
        zone=None,
        rate_micros_per_hour=cheapest.on_demand_micros_per_hour,
        capacity=None,
    )
    return scene([*made, steady], interval_seconds=interval_seconds, notice_seconds=30.0)


def v100(folder: Path | None, *, days: float, interval_seconds: float) -> Scene:
    """Return V100 machines in nine zones of AWS, from the first day of the traces on; 16 at once where there are any."""
    until = (days + 2) * 86_400
    names = [f"us-east-{number}a" for number in range(4)]
    capacities = {
        name: made_up_capacity(workers=ZONE_WORKERS, run_hours=5, outage_hours=4, until_seconds=until, seed=name)
        for name in names
    }
    if folder is not None:
        capacities = {
            name.removesuffix("_v100_1"): Capacity.tiled(
                [ZONE_WORKERS * int(value) for value in values], tick_seconds=195.0, until_seconds=until
            )
            for name, values in spot_traces(folder / "spot-v100-2023", 195).items()
        }
    spot, on_demand = (round(price * 1_000_000) for price in V100_PRICES)
    shared = {"pool": POOL, "provider": "aws", "instance_type": "p3.2xlarge", "on_demand_micros_per_hour": on_demand}
    made = [
        Offering(
            name=f"spot-{zone}",
            market=Market.SPOT,
            region=zone[:-1],
            zone=zone,
            rate_micros_per_hour=spot,
            capacity=capacity,
            **shared,  # type: ignore[arg-type] # fields of an offering
        )
        for zone, capacity in sorted(capacities.items())
    ]
    steady = Offering(
        name="on-demand",
        market=Market.ON_DEMAND,
        region="us-east-1",
        rate_micros_per_hour=on_demand,
        **shared,  # type: ignore[arg-type] # fields of an offering
    )
    return scene([*made, steady], interval_seconds=interval_seconds, notice_seconds=120.0)


def _counts(folder: Path | None, until: float) -> dict[str, Capacity]:
    if folder is None:
        zones = ("us-central1-a", "us-east4-a", "us-west1-a")
        return {
            zone: made_up_capacity(workers=16, run_hours=8, outage_hours=2, until_seconds=until, seed=zone)
            for zone in zones
        }
    with next(iter(sorted((folder / "h100-gcp-2025").glob("capacity_*.csv")))).open(encoding="utf-8") as lines:
        rows = list(csv.DictReader(lines))
    zones = [name for name in rows[0] if name not in {"scheduled_at", "status"}]
    times = [datetime.fromisoformat(row["scheduled_at"]).timestamp() for row in rows]
    grid = np.arange(times[0], times[-1] + 1, BIN)
    seen = np.searchsorted(np.array(times), grid, side="right") - 1
    return {
        zone: Capacity.tiled(
            [int(float(rows[number][zone] or 0)) for number in seen.tolist()], tick_seconds=BIN, until_seconds=until
        )
        for zone in zones
    }


def _card() -> RateCard:
    return RateCard(book=PriceBook(catalogue.load().prices), currency="USD", flat_micros_per_hour=0)


def _rate(card: RateCard, provider: str, instance_type: str, region: str, market: Market) -> int:
    offer = Offer(market=market, provider=provider, instance_type=instance_type, region=region)
    return card.hourly_rates(offer, datetime(2026, 11, 22, tzinfo=UTC)).rates.list_micros
