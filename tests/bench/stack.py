"""A whole stack in a folder, for benchmarks: the embedded servers, a scheduler and workers, as `run` has them."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pydantic import SecretStr
from sqlalchemy import text

from infra.embedded.folder import DataFolder
from infra.embedded.supervisor import Supervisor
from infra.processes import ProcessSpec
from pipeline import app
from pipeline.config import Settings
from pipeline.domain.endpoints import Endpoint
from pipeline.domain.ids import DEFAULT_TENANT
from pipeline.domain.tiers import Tier
from pipeline.ports.batches import BatchView, Submission
from storage.migrations import upgrade

_MODULE = "pipeline.entrypoints.cli"
_READY_SECONDS_MAX = 120.0


@contextmanager
def running_stack(home: Path, *, workers: int) -> Iterator[app.Stack]:
    """Run a stack in `home` until the block ends; its workers are ready when the block begins."""
    os.environ["NIGHTRATE_WORKERS"] = str(workers)
    roles = ["scheduler", *(f"worker-{number}" for number in range(workers))]
    specs = [
        ProcessSpec(name=role, command=(sys.executable, "-m", _MODULE, role.partition("-")[0]), grace_seconds=30)
        for role in roles
    ]
    supervisor = Supervisor(DataFolder(home), specs, on_services_up=lambda urls: upgrade(urls.database_url))
    with supervisor as urls:
        settings = Settings(
            home=home,
            database_url=SecretStr(urls.database_url),
            redis_url=SecretStr(urls.redis_url),
            workers=workers,
        )
        with app.open_stack(settings) as stack:
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
