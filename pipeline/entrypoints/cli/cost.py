"""`nightrate cost`: what was spent, whether it adds up, what will be, and what might."""

from __future__ import annotations

import typer

from pipeline.entrypoints.cli import cost_advise, cost_calc, cost_forecast, cost_reconcile

app = typer.Typer(
    no_args_is_help=True,
    help="Costs: what was spent, whether it adds up, what will be, and what might; calculators, advice.",
)
app.add_typer(cost_calc.app, name="calc")
app.command("advise")(cost_advise.advise)
app.command("forecast")(cost_forecast.forecast)
app.command("reconcile")(cost_reconcile.reconcile)
