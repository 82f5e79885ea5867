"""`nightrate cost`: what was spent, and what will be."""

from __future__ import annotations

import typer

from pipeline.entrypoints.cli import cost_forecast

app = typer.Typer(no_args_is_help=True, help="Cost: what was spent, and what will be.")


@app.callback()
def _cost() -> None:
    """Cost: what was spent, and what will be."""


app.command("forecast")(cost_forecast.forecast)
