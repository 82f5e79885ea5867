"""`nightrate cost calc`: calculators."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer
from typer.core import TyperGroup
from typer.main import get_group

if TYPE_CHECKING:  # what typer has its commands from is its own
    from typer._click import Command, Context


class _Calculators(TyperGroup):
    """Learns its commands when somebody asks for them: to declare all their fields takes longer than `--help` of others may."""

    def list_commands(self, ctx: Context) -> list[str]:
        """Return the names of the calculators."""
        self._learn()
        return super().list_commands(ctx)

    def get_command(self, ctx: Context, cmd_name: str) -> Command | None:
        """Return the command of a calculator."""
        self._learn()
        return super().get_command(ctx, cmd_name)

    def _learn(self) -> None:
        if not self.commands:
            from pipeline.entrypoints.cli.calculating import calculator_commands

            self.commands = get_group(calculator_commands()).commands


app = typer.Typer(
    cls=_Calculators, no_args_is_help=True, help="Calculators: what a model, servers or a move would cost."
)
