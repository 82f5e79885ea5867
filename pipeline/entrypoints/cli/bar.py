"""The live bar on a terminal."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from pipeline.entrypoints.cli.documents import rows_done, why
from pipeline.entrypoints.cli.following import Display, Progress, progress_line


class BarDisplay:
    """A bar, the counts beside it, and why the batch stands where it stands below."""

    def __init__(self, live: Live) -> None:
        """Draw through `live`."""
        self._live = live

    def show(self, progress: Progress) -> None:
        """Draw the batch as it stands."""
        view = progress.view
        total = progress.rows_expected
        row = Table.grid(padding=(0, 1))
        row.add_column(width=30)
        row.add_column()
        row.add_row(
            ProgressBar(total=total or None, completed=rows_done(view), pulse=not total, width=30),
            Text(progress_line(progress)),
        )
        self._live.update(Group(row, Text(why(view), style="dim")))


@contextmanager
def bar_display() -> Iterator[Display]:
    """Yield a bar on stderr; its last picture stays."""
    with Live(console=Console(stderr=True), refresh_per_second=4) as live:
        yield BarDisplay(live)
