"""`nightrate cost`: what was spent, whether it adds up, what will be, and what might."""

from __future__ import annotations

import typer

from pipeline.entrypoints.cli import (
    cost_advise,
    cost_calc,
    cost_export,
    cost_forecast,
    cost_reconcile,
    cost_report,
    cost_statement,
)

app = typer.Typer(
    no_args_is_help=True,
    help="Costs: what was spent, whether it adds up, what will be, and what might; calculators, advice.",
)
app.command("report")(cost_report.report)
app.command("statement")(cost_statement.statement)
app.command("export")(cost_export.export)
app.command("reconcile")(cost_reconcile.reconcile)
app.command("forecast")(cost_forecast.forecast)
app.command("advise")(cost_advise.advise)
app.add_typer(cost_calc.app, name="calc")
