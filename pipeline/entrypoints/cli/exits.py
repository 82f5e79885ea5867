"""Exit codes: what a script may rely on, decided in one place."""

from __future__ import annotations

from enum import IntEnum
from typing import TYPE_CHECKING

from pipeline.domain.lifecycle import BatchState

if TYPE_CHECKING:  # keeps `nightrate --help` from importing what only a batch needs
    from pipeline.ports.batches import BatchView


class ExitCode(IntEnum):
    """How a command ended."""

    OK = 0
    FAILED = 1
    USAGE = 2
    NOT_FOUND = 3
    REFUSED = 4
    #: The batch ended with rows that have a result and rows that have none.
    PARTIAL = 5
    #: Ctrl-C: we stopped looking, the batch goes on.
    DETACHED = 130


def exit_code_of(view: BatchView) -> ExitCode:
    """Return how a command that waited for this batch ends."""
    assert view.state.is_terminal, f"{view.batch_id} is still {view.state}"
    rows_completed, rows_failed = view.rows_completed or 0, view.rows_failed or 0
    if view.state is BatchState.FAILED or not rows_completed:
        return ExitCode.FAILED
    return ExitCode.PARTIAL if rows_failed else ExitCode.OK
