"""A whole stack in a folder, for benchmarks: the embedded servers, a scheduler and workers, as `run` has them."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pydantic import SecretStr
from sqlalchemy import text

from pipeline.app.stack import Stack, open_stack
from pipeline.config import Settings
from pipeline.entrypoints.cli.local_stack import supervisor_of

_READY_SECONDS_MAX = 120.0


@contextmanager
def running_stack(home: Path, *, workers: int, **more: object) -> Iterator[Stack]:
    """Run a stack in `home` until the block ends, `more` being further settings; its workers are ready by then."""
    settings = Settings(home=home, workers=workers, database_url=None, redis_url=None).model_copy(update=more)
    with supervisor_of(settings, workers=workers) as urls:
        update = {"database_url": SecretStr(urls.database_url), "redis_url": SecretStr(urls.redis_url)}
        with open_stack(settings.model_copy(update=update)) as stack:
            _await_workers(stack, workers)
            yield stack


def _await_workers(stack: Stack, workers: int) -> None:
    give_up_at = time.monotonic() + _READY_SECONDS_MAX
    ready = text("SELECT count(*) FROM workers WHERE state = 'ready'")
    while time.monotonic() < give_up_at:
        with stack.database.transaction() as connection:
            if connection.execute(ready).scalar_one() >= workers:
                return
        time.sleep(0.05)
    raise TimeoutError("the workers did not come up; see the logs in the stack's home")
