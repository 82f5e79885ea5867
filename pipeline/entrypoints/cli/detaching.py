"""Ctrl-C: we stop looking, the batch goes on, and the person hears how to come back to it."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType

from pipeline.domain.errors import NightrateError
from pipeline.entrypoints.cli.exits import ExitCode


class Detached(NightrateError):  # noqa: N818 -- a way to end, not a failure
    """Interrupted before a batch was taken in; `nightrate list` shows whether one was made."""

    code = "detached"
    exit_code = ExitCode.DETACHED


@dataclass(slots=True)
class Watched:
    """What a command has in hand when it is interrupted."""

    batch_id: str | None = None
    #: Whether the stack ends with the command.
    owns_stack: bool = False


@contextmanager
def detachable() -> Iterator[Watched]:
    """Turn Ctrl-C and SIGTERM inside the block into `Detached`, which says how to come back."""
    watched = Watched()
    before = signal.signal(signal.SIGTERM, _interrupt)
    try:
        yield watched
    except KeyboardInterrupt:
        raise _detached(watched) from None
    finally:
        signal.signal(signal.SIGTERM, before)


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _detached(watched: Watched) -> Detached:
    batch_id = watched.batch_id
    if batch_id is None:
        return Detached()
    if watched.owns_stack:
        return Detached(
            f"stopped; {batch_id} stays in the database with the rows it has",
            hint=f"`nightrate up` and then `nightrate watch {batch_id}` resume it",
        )
    return Detached(
        f"detached; {batch_id} goes on",
        hint=f"`nightrate watch {batch_id}` follows it again, `nightrate cancel {batch_id}` ends it",
    )
