"""The stack that a `run` uses: the one that is up, or one that lives as long as the run."""

from __future__ import annotations

import logging
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

from pydantic import SecretStr

from infra.embedded.folder import DataFolder, FolderLockedError
from pipeline.config import Settings, load_settings
from pipeline.domain.errors import NightrateError, UsageError
from pipeline.domain.lifecycle import BatchState
from pipeline.entrypoints.cli.connection import ready_state, with_urls_of
from pipeline.entrypoints.cli.detaching import Watched
from pipeline.entrypoints.cli.local_stack import supervisor_of
from pipeline.entrypoints.cli.talk import say

if TYPE_CHECKING:  # the stores are opened once the stack is up
    from pipeline.app.stack import Stack
    from pipeline.ports.batches import BatchView
    from storage.overview import WorkerView

#: How long a batch may wait for a worker of its model before a run gives up: while workers boot, and once some are up.
_PATIENCE_BOOTING_SECONDS: Final = 90.0
_PATIENCE_READY_SECONDS: Final = 10.0
_LOOK_EVERY_SECONDS: Final = 2.0
_STARTS_MAX: Final = 5


class NoWorkerError(NightrateError):
    """No worker of this machine can run the model."""

    code = "no_worker"


@contextmanager
def stack_up(watched: Watched, workers: int | None) -> Iterator[Settings]:
    """Yield the settings of the stack that is up, or of one that lives as long as the block."""
    settings = load_settings()
    count = settings.workers if workers is None else workers
    with ExitStack() as resources:
        for _ in range(_STARTS_MAX):
            if ready_state(settings) is not None:
                yield with_urls_of(settings)
                return
            if count == 0:
                raise UsageError("a run needs a worker", hint="--workers 1, or `nightrate up` on a stack that has some")
            try:
                started = resources.enter_context(_own_stack(settings, count))
            except FolderLockedError:
                continue  # another was faster; its stack is ready soon
            watched.owns_stack = True
            yield started
            return
    raise FolderLockedError(f"another nightrate keeps starting and stopping in {settings.home_folder}")


@contextmanager
def _own_stack(settings: Settings, workers: int) -> Iterator[Settings]:
    say("Starting a stack for this run; `nightrate up` keeps one running.")
    logging.getLogger().addHandler(_Warnings(level=logging.WARNING))
    with supervisor_of(settings, workers=workers) as urls:
        try:
            yield settings.model_copy(
                update={"database_url": SecretStr(urls.database_url), "redis_url": SecretStr(urls.redis_url)}
            )
        finally:
            # A second Ctrl-C must not tear the orderly stop apart.
            signal.signal(signal.SIGINT, signal.SIG_IGN)
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            say("Stopping the stack.")


class NoWorkerGuard:
    """Ends the wait for a worker that a run's own stack will never have."""

    def __init__(
        self,
        look: Callable[[], Sequence[WorkerView]],
        *,
        logs: Path,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """Learn of the live workers through `look`; `logs` is where they say what ails them."""
        self._look = look
        self._logs = logs
        self._monotonic = monotonic
        self._looked_at = float("-inf")
        self._waiting_since: float | None = None

    def check(self, view: BatchView) -> None:
        """Raise `NoWorkerError` once the batch has waited too long for any worker of its model."""
        now = self._monotonic()
        if view.state is not BatchState.IN_PROGRESS or not view.models:
            self._waiting_since = None
            return
        if now < self._looked_at + _LOOK_EVERY_SECONDS:
            return
        self._looked_at = now
        workers = self._look()
        if any(set(view.models) & set(worker.variants) for worker in workers):
            self._waiting_since = None
            return
        self._waiting_since = now if self._waiting_since is None else self._waiting_since
        patience_seconds = _PATIENCE_READY_SECONDS if workers else _PATIENCE_BOOTING_SECONDS
        if now - self._waiting_since >= patience_seconds:
            raise NoWorkerError(
                f"no worker here can run {', '.join(view.models)}; {view.batch_id} waits in the database",
                hint=f"the workers say why in {self._logs}; `nightrate cancel {view.batch_id}` gives up on it",
            )


def guard_of(stack: Stack) -> NoWorkerGuard:
    """Return a guard that looks at the workers of `stack`."""
    from storage.overview import overview

    logs = DataFolder(stack.settings.home_folder).logs
    return NoWorkerGuard(lambda: overview(stack.database).workers, logs=logs)


class _Warnings(logging.Handler):
    """Says what the supervisor warns of, such as a worker that keeps dying."""

    def emit(self, record: logging.LogRecord) -> None:
        """Say one record as a line."""
        fields = {name: getattr(record, name) for name in ("service", "deaths", "reason") if hasattr(record, name)}
        say(f"  {record.getMessage()} {' '.join(f'{name}={value}' for name, value in fields.items())}".rstrip())
