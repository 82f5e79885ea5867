"""Following a batch until it ends: a live bar on a terminal, a line per change elsewhere."""

from __future__ import annotations

import sys
import time
from collections import deque
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Final, Protocol

from pipeline.domain.lifecycle import BatchState
from pipeline.entrypoints.cli.documents import batch_document, rows_done, why
from pipeline.entrypoints.cli.figures import count, duration, money, rate
from pipeline.entrypoints.cli.talk import print_json_line, print_line, say
from pipeline.ports.batches import BatchView

_LOOK_EVERY_SECONDS: Final = 0.5
#: Without a terminal: at most one line of progress in this time; a change of state is said at once.
_LINE_EVERY_SECONDS: Final = 2.0
#: Speeds are taken over the last so many seconds.
_SPEED_SECONDS: Final = 20.0


class Display(Protocol):
    """Shows a batch on its way."""

    def show(self, progress: Progress) -> None:
        """Show it as it stands now."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """A batch as it stands, and how fast it goes."""

    view: BatchView
    output_tokens_per_second: float
    eta_seconds: float | None

    @property
    def rows_expected(self) -> int:
        """Return how many rows get a result of their own: duplicates share another's."""
        return self.view.rows_total - (0 if self.view.state.is_terminal else self.view.rows_duplicate)


@dataclass(slots=True)
class Speedometer:
    """Speeds over the last seconds, so that they follow what happens now."""

    _samples: deque[tuple[float, int, int]] = field(default_factory=deque)

    def measure(self, view: BatchView, *, now_seconds: float) -> Progress:
        """Take a sample and return the progress; `now_seconds` is any clock that only goes forward."""
        samples = self._samples
        samples.append((now_seconds, rows_done(view), view.output_tokens))
        while len(samples) > 2 and samples[1][0] <= now_seconds - _SPEED_SECONDS:  # noqa: PLR2004 -- a speed takes two
            samples.popleft()
        first_at, first_rows, first_tokens = samples[0]
        seconds = now_seconds - first_at
        rows_per_second = (rows_done(view) - first_rows) / seconds if seconds else 0.0
        rows_left = view.rows_total - view.rows_duplicate - rows_done(view)
        is_running = view.state is BatchState.IN_PROGRESS and rows_left > 0 and rows_per_second > 0
        return Progress(
            view=view,
            output_tokens_per_second=max(0.0, (view.output_tokens - first_tokens) / seconds) if seconds else 0.0,
            eta_seconds=rows_left / rows_per_second if is_running else None,
        )


def follow(
    look: Callable[[], BatchView],
    display: Display,
    *,
    check: Callable[[BatchView], None] | None = None,
) -> BatchView:
    """Show the batch until it ends, and return it; `check` sees each look and may raise to give up."""
    speedometer = Speedometer()
    while True:
        view = look()
        display.show(speedometer.measure(view, now_seconds=time.monotonic()))
        if view.state.is_terminal:
            return view
        if check is not None:
            check(view)
        time.sleep(_LOOK_EVERY_SECONDS)


def progress_line(progress: Progress) -> str:
    """Return the progress as one line of text."""
    view = progress.view
    parts = [str(view.state)]
    if view.rows_total:
        parts.append(f"{count(rows_done(view))}/{count(progress.rows_expected)} rows")
    failed = view.rows_failed if view.rows_failed is not None else view.rows_errored + view.rows_refused
    if failed:
        parts.append(f"{count(failed)} failed")
    if progress.output_tokens_per_second:
        parts.append(f"{rate(progress.output_tokens_per_second)} tok/s")
    if progress.eta_seconds is not None:
        parts.append(f"{duration(progress.eta_seconds)} left")
    parts.append(money(view.cost_micros, view.currency))
    return " · ".join(parts)


class LineDisplay:
    """One line per change, and not too many of them."""

    def __init__(self, write: Callable[[str], None] = say, *, monotonic: Callable[[], float] = time.monotonic) -> None:
        """Write lines through `write`."""
        self._write = write
        self._monotonic = monotonic
        self._said = ""
        self._said_at = float("-inf")
        self._standing: tuple[object, object] = (None, None)

    def show(self, progress: Progress) -> None:
        """Write a line where something changed."""
        view = progress.view
        standing = (view.state, view.reason)
        is_new = standing != self._standing
        if not is_new and self._monotonic() < self._said_at + _LINE_EVERY_SECONDS:
            return
        line = f"{view.batch_id} {progress_line(progress)}" + (f" · {why(view)}" if is_new else "")
        if line == self._said:
            return
        self._write(line)
        self._standing, self._said, self._said_at = standing, line, self._monotonic()


class JsonDisplay:
    """One JSON line per change of what is counted."""

    def __init__(self) -> None:
        """Start with nothing said."""
        self._said: object = None
        self._said_at = float("-inf")

    def show(self, progress: Progress) -> None:
        """Write a line where something changed."""
        document = batch_document(progress.view)
        if document == self._said:
            return
        if not progress.view.state.is_terminal and time.monotonic() < self._said_at + _LINE_EVERY_SECONDS / 2:
            return
        print_json_line(
            document
            | {
                "output_tokens_per_second": round(progress.output_tokens_per_second, 1),
                "eta_seconds": None if progress.eta_seconds is None else round(progress.eta_seconds, 1),
            }
        )
        self._said, self._said_at = document, time.monotonic()


def lines_as_data() -> LineDisplay:
    """Return a display whose lines are what was asked for."""
    return LineDisplay(print_line)


def talking_display() -> AbstractContextManager[Display]:
    """Return a display on stderr: a bar on a terminal, lines elsewhere."""
    if sys.stderr.isatty():
        from pipeline.entrypoints.cli.bar import bar_display

        return bar_display()
    return nullcontext(LineDisplay())
