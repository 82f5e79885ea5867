"""`nightrate cost`: what was had and what it cost."""

from __future__ import annotations

import typer

from pipeline.entrypoints.cli import cost_export, cost_report, cost_statement

app = typer.Typer(no_args_is_help=True, help="Costs: reports, statements, exports.")

app.command("report")(cost_report.report)
app.command("statement")(cost_statement.statement)
app.command("export")(cost_export.export)
