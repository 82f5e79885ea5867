"""`simulate`: what this policy would do with a day's arrivals, on a clock that need not wait."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from pipeline.entrypoints.cli.exits import ExitCode
from pipeline.entrypoints.cli.options import AsJson
from pipeline.entrypoints.cli.talk import print_document, print_facts, print_line, print_table, say

if TYPE_CHECKING:  # the simulation is imported by the command
    from collections.abc import Mapping

    from scheduler.simulate.arrivals import Arrival
    from scheduler.simulate.fleet import Fleet, Speed
    from scheduler.simulate.record import Record, TierFigures

_HEADS: Final = (
    "TIER",
    "BATCHES",
    "ROWS",
    "FINISHED",
    "EXPIRED",
    "PROMISED",
    "BROKEN",
    "WAIT P50",
    "TURNAROUND P50",
    "TURNAROUND P95",
    "WORKER HOURS",
)
_ABSENCE_SECONDS: Final = 600.0
_SPEED_MAX: Final = 1e9


def simulate(  # noqa: PLR0913 -- each is one thing of the world that a person may want otherwise
    trace: Annotated[
        Path | None, typer.Argument(metavar="[TRACE]", help="Recorded arrivals, as JSON lines. Default: made up.")
    ] = None,
    *,
    hours: Annotated[
        float | None,
        typer.Option("--hours", min=0.01, max=8760, help="How long batches arrive, without a TRACE.  [default: 24]"),
    ] = None,
    batches_an_hour: Annotated[
        float | None,
        typer.Option(
            "--batches-an-hour", min=0.01, max=1e6, help="Mean rate of arrivals, without a TRACE.  [default: 20]"
        ),
    ] = None,
    tenants: Annotated[
        int | None,
        typer.Option("--tenants", min=1, max=100_000, help="Whose batches they are, without a TRACE.  [default: 8]"),
    ] = None,
    workers: Annotated[int, typer.Option("--workers", min=1, max=10_000, help="Workers in the pool.")] = 4,
    pool_speed: Annotated[
        str, typer.Option("--pool-speed", metavar="IN:OUT", help="Tokens a second a worker reads, and writes.")
    ] = "5000:500",
    spread: Annotated[
        float, typer.Option("--spread", min=0, max=3, help="Standard deviation of the log of a pack's seconds.")
    ] = 0.1,
    stragglers: Annotated[
        float, typer.Option("--stragglers", min=0, max=1, help="Share of packs 3 times slower.")
    ] = 0.0,
    lost_share: Annotated[
        float, typer.Option("--lost-share", min=0, max=0.95, help="Share of the time that each worker is gone.")
    ] = 0.0,
    pack_seconds: Annotated[
        float, typer.Option("--pack-seconds", min=0.1, max=3600, help="Predicted seconds of a full pack.")
    ] = 10.0,
    seed: Annotated[int, typer.Option("--seed", help="Equal seeds give equal runs.")] = 0,
    report: Annotated[Path | None, typer.Option("--report", help="Write a timeline here, as HTML.")] = None,
    as_json: AsJson = False,
) -> int:
    """Run the scheduler's own decisions over arrivals on a virtual clock; starts and changes nothing."""
    from pipeline.app.policies import policy_of
    from pipeline.config import load_settings
    from scheduler.simulate.fleet import Trouble
    from scheduler.simulate.simulation import Simulation

    speed = _speed_of(pool_speed)
    arrivals = _arrivals_of(
        trace, {"--hours": hours, "--batches-an-hour": batches_an_hour, "--tenants": tenants}, seed=seed
    )
    rows = round(sum(arrival.estimated.rows for arrival in arrivals))
    say(f"{len(arrivals):,} batches, {rows:,} rows on {workers:,} workers …")
    fleet = _fleet_of(
        arrivals,
        speed,
        Trouble(spread=spread, straggling=stragglers),
        workers=workers,
        lost_share=lost_share,
        seed=seed,
    )
    policy = replace(policy_of(load_settings()), pack_seconds_target=pack_seconds)
    record = Simulation(arrivals, fleet, policy, seed=seed).run()
    if report is not None:
        from scheduler.simulate.timeline import page_of

        title = "Simulation of " + ("made-up arrivals" if trace is None else trace.name)
        page = page_of(record, title=title, table=(_HEADS, *_rows_of(record)), facts=_facts_of(record))
        report.write_text(page, encoding="utf-8")
    if as_json:
        print_document(_document_of(record))
    else:
        print_table(_HEADS, _rows_of(record), right=_HEADS[1:])
        print_line("")
        print_facts(_facts_of(record))
    return ExitCode.OK


def _arrivals_of(trace: Path | None, asked: Mapping[str, float | None], *, seed: int) -> tuple[Arrival, ...]:
    """Return recorded arrivals, or made-up ones as `asked` by option; a trace says itself what the options ask for."""
    from pipeline.domain.errors import UsageError
    from scheduler.simulate.arrivals import Workload, made_up
    from scheduler.simulate.trace import read_trace

    given = {option: value for option, value in asked.items() if value is not None}
    if trace is None:
        names = {option.removeprefix("--").replace("-", "_"): value for option, value in given.items()}
        return made_up(Workload(**names), seed=seed)  # type: ignore[arg-type] # an option for each field, in its type
    if given:
        raise UsageError(
            f"{', '.join(given)} cannot be combined with a trace, which has its own batches, times and tenants",
            hint=f"leave out {trace} to make arrivals up, or the options to run it as it was recorded",
        )
    return read_trace(trace)


def _speed_of(text: str) -> Speed:
    from pipeline.domain.errors import UsageError
    from scheduler.simulate.fleet import Speed

    inputs, _, outputs = text.partition(":")
    try:
        speed = Speed(input_tokens_per_second=float(inputs), output_tokens_per_second=float(outputs))
    except ValueError:
        speed = Speed(input_tokens_per_second=0.0)
    if not all(0 < each <= _SPEED_MAX for each in (speed.input_tokens_per_second, speed.output_tokens_per_second)):
        raise UsageError(f"--pool-speed {text!r} is no speed", hint="write two positive numbers such as 5000:500")
    return speed


def _fleet_of(
    arrivals: tuple[Arrival, ...], speed: Speed, trouble: object, *, workers: int, lost_share: float, seed: int
) -> Fleet:
    from pipeline.domain.tiers import Tier
    from pipeline.ports.cycle import Serving
    from scheduler.simulate.fleet import Fleet, Pool, random_absences

    models = sorted({arrival.model for arrival in arrivals})
    ends = max((arrival.at_seconds + arrival.window_seconds for arrival in arrivals), default=0.0)
    pool = Pool(
        name="worker",
        workers=workers,
        speeds=dict.fromkeys(models, speed),
        servings=tuple(Serving(variant=model, model=model, tiers=frozenset(Tier)) for model in models),
        absences=random_absences(
            workers=workers, share=lost_share, mean_seconds=_ABSENCE_SECONDS, hours=ends / 3600, seed=seed
        )
        if lost_share
        else (),
    )
    return Fleet(pools=(pool,), trouble=trouble)  # type: ignore[arg-type]


# --- what came of it ---------------------------------------------------------------------------


def _rows_of(record: Record) -> list[tuple[str, ...]]:
    from scheduler.simulate.record import figures_of

    return [_cells_of(figures) for figures in figures_of(record)]


def _cells_of(figures: TierFigures) -> tuple[str, ...]:
    from pipeline.entrypoints.cli.figures import count, duration

    durations = (figures.wait_median, figures.turnaround_median, figures.turnaround_p95)
    counts = (
        figures.batches,
        figures.rows,
        figures.finished,
        figures.expired,
        figures.promised,
        figures.promises_broken,
    )
    return (
        figures.tier.value,
        *(count(number) for number in counts),
        *("-" if seconds is None else duration(seconds) for seconds in durations),
        f"{figures.worker_seconds / 3600:,.1f}",
    )


def _facts_of(record: Record) -> dict[str, str]:
    from pipeline.entrypoints.cli.figures import count, share
    from scheduler.simulate.record import prediction_error

    error = prediction_error(record)
    return {
        "utilisation": share(record.utilisation),
        "prediction error": "-" if error is None else f"{error:.1f} % of a pack's seconds, on average",
        "packs": count(len(record.packs)),
        "attempts lost": count(sum(pack.is_lost for pack in record.packs)),
        "cycles": count(record.cycles),
    }


def _document_of(record: Record) -> dict[str, object]:
    from dataclasses import asdict

    from scheduler.simulate.record import figures_of, prediction_error

    return {
        "tiers": [asdict(figures) for figures in figures_of(record)],
        "workers": sum(record.workers.values()),
        "utilisation": record.utilisation,
        "prediction_error_percent": prediction_error(record),
        "packs": len(record.packs),
        "attempts_lost": sum(pack.is_lost for pack in record.packs),
        "cycles": record.cycles,
        "simulated_seconds": record.seconds,
    }
