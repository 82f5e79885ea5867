"""`nightrate cost`: what was spent, and whether it adds up."""

from __future__ import annotations

import typer

from pipeline.entrypoints.cli import cost_reconcile

app = typer.Typer(no_args_is_help=True, help="Cost: what was spent, and whether it adds up.")


@app.callback()
def _cost() -> None:
    """Cost: what was spent, and whether it adds up."""


app.command("reconcile")(cost_reconcile.reconcile)
