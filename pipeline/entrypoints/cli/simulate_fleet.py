"""`simulate fleet`: what policies for the fleet would have cost, machine by machine, on a clock that need not wait."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from pipeline.entrypoints.cli.exits import ExitCode
from pipeline.entrypoints.cli.options import AsJson
from pipeline.entrypoints.cli.talk import print_document, print_facts, print_line, print_table, say

if TYPE_CHECKING:  # the simulation is imported by the command
    from collections.abc import Callable

    from pipeline.domain.costs.prices import Market
    from pipeline.domain.costs.rate_card import RateCard
    from pipeline.ports.fleet import FleetPolicy
    from scheduler.simulate.arrivals import Arrival
    from scheduler.simulate.fleet_record import FleetFigures, FleetRecord
    from scheduler.simulate.scene import Scene

_HEADS: Final = (
    "POLICY",
    "COST",
    "ON DEMAND",
    "SPOT",
    "MISSED",
    "BROKEN",
    "UTILISATION",
    "WASTE",
    "SPOT SHARE",
    "WORKER HOURS",
    "STARTS",
    "REFUSED",
    "TAKEN",
    "PEAK",
)
_FIXED: Final = "fixed:"


def simulate_fleet(  # noqa: PLR0913 -- each is one thing of the world that a person may want otherwise
    *,
    trace: Annotated[
        Path | None, typer.Option("--trace", help="Recorded arrivals, as JSON lines. Default: made up.")
    ] = None,
    policies: Annotated[
        str, typer.Option("--policy", metavar="A,B,C", help="Policies to compare; fixed:OFFER:N keeps N workers.")
    ] = "nightrate",
    pools: Annotated[
        Path | None, typer.Option("--pools", help="Pools and offers, as TOML. Default: one pool, spot and on demand.")
    ] = None,
    hours: Annotated[
        float, typer.Option("--hours", min=0.1, max=8760, help="How long batches arrive, without --trace.")
    ] = 24.0,
    batches_an_hour: Annotated[
        float, typer.Option("--batches-an-hour", min=0.01, max=1e4, help="Mean rate of arrivals, without --trace.")
    ] = 6.0,
    pack_seconds: Annotated[
        float, typer.Option("--pack-seconds", min=1, max=3600, help="Predicted seconds of a full pack.")
    ] = 120.0,
    cold_start: Annotated[
        float | None,
        typer.Option("--cold-start", min=0, max=86_400, help="Seconds from request to work, of all pools."),
    ] = None,
    price_factor: Annotated[
        float, typer.Option("--spot-price-factor", min=0, max=100, help="Times the price of every spot offer.")
    ] = 1.0,
    quota: Annotated[
        int | None, typer.Option("--quota", min=0, max=100_000, help="Workers at once of each offer, at most.")
    ] = None,
    spend_per_hour: Annotated[
        float | None, typer.Option("--spend-per-hour", min=0, help="What all workers may cost an hour.")
    ] = None,
    seed: Annotated[int, typer.Option("--seed", help="Equal seeds give equal runs.")] = 0,
    report: Annotated[Path | None, typer.Option("--report", help="Write timelines here, as HTML.")] = None,
    as_json: AsJson = False,
) -> int:
    """Run policies for the fleet over arrivals, spot capacity and cold starts; starts and changes nothing."""
    from scheduler.simulate.expectations import Expectations
    from scheduler.simulate.fleet_bound import lower_bound
    from scheduler.simulate.fleet_record import figures_of

    arrivals = _arrivals_of(trace, hours=hours, batches_an_hour=batches_an_hour, seed=seed)
    scene = _scene_of(pools, arrivals, seed=seed)
    scene = _changed(
        scene, cold_start=cold_start, price_factor=price_factor, quota=quota, spend_per_hour=spend_per_hour
    )
    makers = [_policy_of(name.strip(), scene) for name in policies.split(",") if name.strip()]
    offers = len(scene.offerings)
    say(f"{len(arrivals):,} batches, {len(scene.pools)} pools, {offers} offers, {len(makers)} policies …")
    expectations = Expectations(arrivals)
    runs = [
        _run(make(), arrivals, scene, pack_seconds=pack_seconds, seed=seed, expectations=expectations)
        for make in makers
    ]
    figures = [figures_of(run) for run in runs]
    bound = lower_bound(arrivals, scene)
    if report is not None:
        from scheduler.simulate.fleet_timeline import page_of

        title = "Fleet, simulated: " + ("made-up arrivals" if trace is None else trace.name)
        table = (_HEADS, *map(_cells_of, figures))
        report.write_text(page_of(runs, title=title, table=table, facts=_facts_of(bound)), encoding="utf-8")
    if as_json:
        print_document({"policies": [_document_of(each) for each in figures], "lower_bound": bound.cost})
    else:
        print_table(_HEADS, [_cells_of(each) for each in figures], right=_HEADS[1:])
        print_line("")
        print_facts(_facts_of(bound))
    return ExitCode.OK


def _arrivals_of(trace: Path | None, *, hours: float, batches_an_hour: float, seed: int) -> tuple[Arrival, ...]:
    from pipeline.domain.errors import UsageError
    from scheduler.simulate.arrivals import Workload, made_up
    from scheduler.simulate.trace import read_trace

    if trace is not None:
        return read_trace(trace)
    found = made_up(Workload(hours=hours, batches_an_hour=batches_an_hour, output_tokens_a_row=500.0), seed=seed)
    if not found:
        raise UsageError("no batch arrives in that time", hint="ask for more --hours or --batches-an-hour")
    return found


def _scene_of(pools: Path | None, arrivals: tuple[Arrival, ...], *, seed: int) -> Scene:
    from scheduler.simulate.scene_file import read_scene

    models = frozenset(arrival.model for arrival in arrivals)
    until = max(arrival.at_seconds + arrival.window_seconds for arrival in arrivals)
    if pools is not None:
        return read_scene(pools, models=models, until_seconds=until, price_of=_catalogued, seed=seed)
    return _plain_scene(models, until, seed)


def _plain_scene(models: frozenset[str], until_seconds: float, seed: int) -> Scene:
    from pipeline.domain.costs.prices import Market
    from scheduler.simulate.capacity import made_up_capacity
    from scheduler.simulate.fleet import Speed
    from scheduler.simulate.scene import ElasticPool, Offering, Scene

    steady = _catalogued(Market.ON_DEMAND, "aws", "g5.xlarge", "us-east-1", None) or 0
    on_demand = Offering(
        name="on-demand",
        pool="gpu",
        market=Market.ON_DEMAND,
        provider="aws",
        rate_micros_per_hour=steady,
        on_demand_micros_per_hour=steady,
    )
    capacity = made_up_capacity(
        workers=16, run_hours=8, outage_hours=2, until_seconds=until_seconds, seed=f"{seed} spot"
    )
    spot = Offering(
        name="spot",
        pool="gpu",
        market=Market.SPOT,
        provider="aws",
        rate_micros_per_hour=steady * 4 // 10,
        on_demand_micros_per_hour=steady,
        capacity=capacity,
    )
    speeds = dict.fromkeys(sorted(models), Speed())
    return Scene(pools=(ElasticPool(name="gpu", offerings=(spot, on_demand), speeds=speeds),))


@cache
def _catalogue_card() -> RateCard:
    from pipeline.domain.costs import catalogue
    from pipeline.domain.costs.rate_card import PriceBook, RateCard

    return RateCard(book=PriceBook(catalogue.load().prices), currency="USD", flat_micros_per_hour=0)


def _catalogued(
    market: Market, provider: str | None, instance_type: str | None, region: str | None, zone: str | None
) -> int | None:
    """Return the catalogue's price of an hour in micro-units; None where it has none."""
    from datetime import UTC, datetime

    from pipeline.domain.costs.rate_card import Offer, PriceUnknownError

    offer = Offer(market=market, provider=provider, instance_type=instance_type, region=region, zone=zone)
    if offer.item is None:
        return None
    try:
        return _catalogue_card().hourly_rates(offer, datetime.now(UTC)).rates.list_micros
    except PriceUnknownError:
        return None


def _changed(
    scene: Scene,
    *,
    cold_start: float | None,
    price_factor: float,
    quota: int | None,
    spend_per_hour: float | None,
) -> Scene:
    """Return the scene as a person wants it otherwise."""
    from dataclasses import replace

    from pipeline.domain.costs.prices import Market
    from scheduler.simulate.scene import Delay, ElasticPool, Offering

    def offering(each: Offering) -> Offering:
        factor = price_factor if each.market is Market.SPOT else 1.0
        limits = [limit for limit in (each.workers_max, quota) if limit is not None]
        return replace(
            each,
            rate_micros_per_hour=round(each.rate_micros_per_hour * factor),
            workers_max=min(limits, default=None),
        )

    def pool(each: ElasticPool) -> ElasticPool:
        changed = replace(each, offerings=tuple(map(offering, each.offerings)))
        if cold_start is None:
            return changed
        half = Delay(mean_seconds=cold_start / 2, spread=each.boot.spread)
        return replace(changed, boot=half, load=half)

    most = scene.spend_micros_per_hour_max if spend_per_hour is None else round(spend_per_hour * 1_000_000)
    return replace(scene, pools=tuple(map(pool, scene.pools)), spend_micros_per_hour_max=most)


def _policy_of(name: str, scene: Scene) -> Callable[[], FleetPolicy]:
    from pipeline.domain.errors import UsageError
    from scheduler.fleet.policies import FLEET_POLICIES
    from scheduler.fleet.terms import FleetTerms
    from scheduler.simulate.plain_fleets import Fixed

    if name.startswith(_FIXED):
        offer, _, count = name.removeprefix(_FIXED).rpartition(":")
        if offer not in scene.offerings or not count.isdecimal():
            raise UsageError(
                f"{name!r} keeps no workers",
                hint="write fixed:OFFER:N; offers are " + ", ".join(scene.offerings),
            )
        return lambda: Fixed(offer=offer, workers=int(count))
    if name not in FLEET_POLICIES:
        raise UsageError(
            f"there is no policy {name!r}", hint="known are " + ", ".join(FLEET_POLICIES) + " and fixed:OFFER:N"
        )
    terms = FleetTerms(step_seconds=scene.interval_seconds)
    return lambda: FLEET_POLICIES[name](terms)


def _run(
    policy: FleetPolicy,
    arrivals: tuple[Arrival, ...],
    scene: Scene,
    *,
    pack_seconds: float,
    seed: int,
    expectations: object,
) -> FleetRecord:
    from dataclasses import replace

    from pipeline.app.policies import policy_of
    from pipeline.config import load_settings
    from scheduler.simulate.elastic import ElasticSimulation

    plain = replace(policy_of(load_settings()), pack_seconds_target=pack_seconds, pack_rows_min=1)
    simulation = ElasticSimulation(
        arrivals,
        scene,
        plain,
        policy,
        seed=seed,
        expectations=expectations,  # type: ignore[arg-type] # imported by the caller
    )
    simulation.run()
    return simulation.fleet_record


# --- what came of it ---------------------------------------------------------------------------


def _cells_of(figures: FleetFigures) -> tuple[str, ...]:
    from pipeline.entrypoints.cli.figures import count, share

    return (
        figures.policy,
        f"{figures.cost:,.2f}",
        *(f"{cost:,.2f}" for cost in figures.cost_by_market.values()),
        count(figures.missed),
        count(figures.promises_broken),
        share(figures.utilisation),
        share(figures.waste_share),
        share(figures.spot_share),
        f"{figures.worker_hours:,.1f}",
        count(figures.starts),
        count(figures.refusals),
        count(figures.interruptions),
        count(figures.peak_workers),
    )


def _facts_of(bound: object) -> dict[str, str]:
    from scheduler.simulate.fleet_bound import Bound

    assert isinstance(bound, Bound), "what the simulation bounds"
    facts = {"nobody could have paid less than": f"{bound.cost:,.2f}"}
    if bound.impossible_seconds > 1:
        facts["worker hours that no offer had room for in time"] = f"{bound.impossible_seconds / 3600:,.1f}"
    return facts


def _document_of(figures: FleetFigures) -> dict[str, object]:
    from dataclasses import asdict

    return {**asdict(figures), "waste_share": figures.waste_share}
