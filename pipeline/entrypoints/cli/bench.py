"""`bench engines`: variants side by side on one workload, with what this machine could do at most."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pipeline.entrypoints.cli.exits import ExitCode
from pipeline.entrypoints.cli.options import AsJson
from pipeline.entrypoints.cli.talk import print_document, print_line, print_table, say

if TYPE_CHECKING:  # the engines are imported by the command
    from pipeline.config import Settings
    from pipeline.domain.models import ModelSpec
    from workers.bench.trial import Trial

app = typer.Typer(help="Measure this machine.", no_args_is_help=True, rich_markup_mode=None)

_TOKENS_PER_PRICE = 1_000_000
_HOUR_SECONDS = 3600


@app.callback()
def _bench() -> None:
    """Measure this machine."""


@app.command("engines")
def engines(
    variants: Annotated[
        list[str] | None, typer.Argument(metavar="[VARIANT]...", help="The first is what others are likened to.")
    ] = None,
    *,
    prompts: Annotated[int, typer.Option("--prompts", min=1, max=100_000, help="Chat prompts to answer.")] = 128,
    report: Annotated[Path | None, typer.Option("--report", help="Write a chart here, as HTML.")] = None,
    as_json: AsJson = False,
) -> int:
    """Run one workload over variants: tokens/s, cost, memory, load time, likeness, share of the roofline."""
    from pipeline.domain.errors import NightrateError
    from pipeline.entrypoints.cli.connection import stack_settings
    from workers.bench.trial import Task, run_trial

    settings = stack_settings()
    task = Task(
        prompts=prompts,
        cache_dir=settings.home_folder / "models",
        device=settings.device,
        threads=settings.engine_threads,
    )
    trials: list[Trial] = []
    failures: dict[str, str] = {}
    for spec in _specs(settings, variants or ["smollm2-135m-instruct"]):
        say(f"{spec.variant} …")
        try:
            trials.append(run_trial(spec, task))
        except NightrateError as error:
            failures[spec.variant] = error.message
            say(f"  {error.message}")
    figures = [_figures(trial, trials[0], settings) for trial in trials]
    if report is not None and trials:
        from workers.bench.chart import page_of

        report.write_text(page_of(figures), encoding="utf-8")
    if as_json:
        print_document({"prompts": prompts, "variants": figures, "failures": failures})
    else:
        _print(figures, settings)
    return ExitCode.FAILED if failures else ExitCode.OK


def _specs(settings: Settings, names: list[str]) -> list[ModelSpec]:
    """Return the variants named; those that were added are known only while the stack is up."""
    from pipeline.app.stack import variants_of
    from pipeline.domain.errors import NotFoundError
    from pipeline.entrypoints.cli.connection import connected

    if settings.database_url is None:
        known = variants_of(settings)
    else:
        with connected(settings) as stack:
            known = stack.variants()
    if unknown := [name for name in names if name not in known]:
        raise NotFoundError(f"there is no variant {unknown[0]}", hint="known are " + ", ".join(sorted(known)))
    return [known[name] for name in names]


def _figures(trial: Trial, reference: Trial, settings: Settings) -> dict[str, object]:
    from workers.bench.trial import likeness

    equal, common = likeness(trial.answers, reference.answers)
    tokens = trial.input_tokens + trial.output_tokens
    micros = settings.rate_micros_per_hour * trial.seconds / _HOUR_SECONDS
    return {
        "variant": trial.variant,
        "engine": trial.engine,
        "fingerprint": trial.fingerprint,
        "output_tokens_per_second": round(trial.output_tokens_per_second, 1),
        "tokens_per_second": round(trial.tokens_per_second, 1),
        "cost_micros_per_million_tokens": round(micros * _TOKENS_PER_PRICE / tokens),
        "seconds": round(trial.seconds, 2),
        "load_seconds": round(trial.load_seconds, 2),
        "memory_peak_bytes": trial.memory_peak_bytes,
        "equal_answers_share": round(equal, 4),
        "common_beginning_share": round(common, 4),
        "roofline_seconds": round(trial.roofline_seconds, 2),
        "roofline_share": round(trial.roofline_seconds / trial.seconds, 4),
        "device_flops_per_second": round(trial.roofline.flops_per_second),
        "device_bytes_per_second": round(trial.roofline.bytes_per_second),
    }


def _print(figures: list[dict[str, object]], settings: Settings) -> None:
    from pipeline.entrypoints.cli.figures import money, size

    if not figures:
        return
    rows = [
        (
            str(each["variant"]),
            str(each["engine"]),
            f"{each['output_tokens_per_second']:,}",
            money(int(str(each["cost_micros_per_million_tokens"])), settings.currency),
            size(int(str(each["memory_peak_bytes"]))),
            f"{each['load_seconds']} s",
            f"{float(str(each['equal_answers_share'])):.0%}",
            f"{float(str(each['roofline_share'])):.0%}",
        )
        for each in figures
    ]
    heads = ("VARIANT", "ENGINE", "OUT TOK/S", "PER 1M TOKENS", "MEMORY", "LOAD", "EQUAL ANSWERS", "OF ROOFLINE")
    print_table(heads, rows, right=heads[2:])
    first = figures[0]
    gflops = float(str(first["device_flops_per_second"])) / 1e9
    gbytes = float(str(first["device_bytes_per_second"])) / 1e9
    print_line(f"This device reaches {gflops:,.0f} GFLOP/s in a product and {gbytes:,.1f} GB/s in a copy.")
