"""A whole stack in a folder, for benchmarks: the embedded servers, a scheduler and workers, as `run` has them."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pydantic import SecretStr
from sqlalchemy import text

from pipeline import app
from pipeline.config import Settings
from pipeline.domain.endpoints import Endpoint
from pipeline.domain.ids import DEFAULT_TENANT
from pipeline.domain.tiers import Tier
from pipeline.entrypoints.cli.local_stack import supervisor_of
from pipeline.ports.batches import BatchView, Submission

_READY_SECONDS_MAX = 120.0


@contextmanager
def running_stack(home: Path, *, workers: int) -> Iterator[app.Stack]:
    """Run a stack in `home` until the block ends; its workers are ready when the block begins."""
    settings = Settings(home=home, workers=workers, database_url=None, redis_url=None)
    with supervisor_of(settings, workers=workers) as urls:
        update = {"database_url": SecretStr(urls.database_url), "redis_url": SecretStr(urls.redis_url)}
        with app.open_stack(settings.model_copy(update=update)) as stack:
            _await_workers(stack, workers)
            yield stack


def submit_and_wait(stack: app.Stack, source: Path, *, endpoint: Endpoint = Endpoint.CHAT_COMPLETIONS) -> BatchView:
    """Submit a file the way `nightrate run` does and return the batch when it has ended."""
    view = app.submit(
        stack,
        Submission(
            tenant_id=DEFAULT_TENANT,
            input_file_id=app.store_input(stack, source),
            endpoint=endpoint,
            completion_window="24h",
            tier=Tier.STANDARD,
            budget_micros=None,
            metadata=None,
            idempotency_key=None,
        ),
    )
    while not view.state.is_terminal:
        time.sleep(0.05)
        view = stack.batches.get(view.batch_id)
    return view


def _await_workers(stack: app.Stack, workers: int) -> None:
    give_up_at = time.monotonic() + _READY_SECONDS_MAX
    ready = text("SELECT count(*) FROM workers WHERE state = 'ready'")
    while time.monotonic() < give_up_at:
        with stack.database.transaction() as connection:
            if connection.execute(ready).scalar_one() >= workers:
                return
        time.sleep(0.05)
    raise TimeoutError("the workers did not come up; see the logs in the stack's home")
