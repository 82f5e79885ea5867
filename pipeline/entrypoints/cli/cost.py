"""`nightrate cost`: what things cost, and what they would."""

from __future__ import annotations

import typer

from pipeline.entrypoints.cli import cost_advise, cost_calc

app = typer.Typer(no_args_is_help=True, help="Costs: calculators and advice.")
app.add_typer(cost_calc.app, name="calc")
app.command("advise")(cost_advise.advise)
