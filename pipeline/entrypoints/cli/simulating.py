"""`simulate`: a command of its own, and `simulate fleet` below it."""

from __future__ import annotations

from typing import Any, Final

import typer
from typer.core import TyperGroup

from pipeline.entrypoints.cli import simulate, simulate_fleet

_DEFAULT: Final = "batches"


class _Defaulting(TyperGroup):
    """Takes what names no subcommand for arguments of the default one."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:  # noqa: ANN401 -- typer keeps its own
        if not args or args[0] not in {*self.commands, *self.get_help_option_names(ctx)}:
            args = [_DEFAULT, *args]
        return super().parse_args(ctx, args)


app = typer.Typer(
    cls=_Defaulting,
    help="Run the scheduler's own decisions on a virtual clock: `batches` (also without a subcommand) over a fleet that "
    "stays, `fleet` over one that comes and goes.",
)
app.command(_DEFAULT)(simulate.simulate)
app.command("fleet")(simulate_fleet.simulate_fleet)
