"""The processes of a fault run: `python -m tests.faults.entry worker|scheduler|submit`.

They are the product's own, except for an engine that takes its time, failpoints in the submitter, and a claim
as short as the leases. Nothing that is shipped reads the environment variables named here.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NoReturn, cast

from infra.embedded.daemon import stop_on_signals
from infra.logs import log_to_stderr
from pipeline.app.batches import store_input, submit
from pipeline.app.scheduling import run_scheduler
from pipeline.app.stack import open_stack
from pipeline.app.working import run_worker
from pipeline.config import load_settings
from pipeline.domain.endpoints import Endpoint
from pipeline.domain.ids import DEFAULT_TENANT
from pipeline.domain.models import ModelSpec
from pipeline.domain.tiers import Tier
from pipeline.ports.batches import Submission
from pipeline.ports.engine import Engine, EngineResult
from pipeline.ports.objects import ObjectStore
from workers.engine import registry
from workers.engine.echo import EchoEngine

#: Content of the pace file that makes every engine wait.
HOLD = "hold"
PACE_FILE = "FAULTS_PACE_FILE"
STEPS_FILE = "FAULTS_STEPS_FILE"
ROWS_PER_STEP = "FAULTS_ROWS_PER_STEP"
#: Where the submitter kills itself: `stored`, `submitted`, `admitted`, or `put:3` right after its third object.
DIE_AT = "FAULTS_DIE_AT"
_HOLD_LOOK_SECONDS = 0.01


class PacedEcho(EchoEngine):
    """Echo, a few rows at a time, as fast as the pace file says; each step's rows are noted for the rework figure."""

    def __init__(self, model: str) -> None:
        super().__init__(model)
        self._pace = Path(os.environ[PACE_FILE])
        self._rows_per_step = int(os.environ[ROWS_PER_STEP])
        self._steps = os.open(os.environ[STEPS_FILE], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)

    def room(self) -> int:
        return max(0, self._rows_per_step - self.in_flight())

    def step(self) -> Sequence[EngineResult]:
        while (pace := self._pace.read_text()) == HOLD:
            time.sleep(_HOLD_LOOK_SECONDS)
        time.sleep(float(pace))
        results = super().step()
        os.write(self._steps, b"%d\n" % len(results))
        return results


class DyingStore:
    """An object store whose user dies right after some put."""

    def __init__(self, store: ObjectStore, die_at: Callable[[str], None]) -> None:
        self._store = store
        self._die_at = die_at
        self._puts = 0

    def put(self, key: str, content: bytes | memoryview | Path) -> object:
        stored = self._store.put(key, content)
        self._puts += 1
        self._die_at(f"put:{self._puts}")
        return stored

    def __getattr__(self, name: str) -> object:
        return getattr(self._store, name)


def load_paced(
    spec: ModelSpec,
    *,
    cache_dir: Path,
    device: str | None = None,
    threads: int | None = None,
    images: object = None,
) -> Engine:
    del cache_dir, device, threads, images
    return PacedEcho(spec.name)


def die_at(point: str) -> None:
    """Kill this process where it was told to die."""
    if os.environ.get(DIE_AT) == point:
        os.kill(os.getpid(), signal.SIGKILL)


def submit_file(source: Path, key: str) -> None:
    """Submit a file under an idempotency key, as a client that retries does."""
    with open_stack(load_settings()) as opened:
        stack = replace(opened, objects=cast("ObjectStore", DyingStore(opened.objects, die_at)))
        file_id = store_input(stack, source)
        die_at("stored")
        submission = Submission(
            tenant_id=DEFAULT_TENANT,
            input_file_id=file_id,
            endpoint=Endpoint.CHAT_COMPLETIONS,
            completion_window="1h",
            tier=Tier.STANDARD,
            budget_micros=None,
            metadata=None,
            idempotency_key=key,
        )
        view = stack.batches.submit(submission)
        die_at("submitted")
        was_there = view.input_file_id != file_id
        view = submit(stack, submission)
        die_at("admitted")
        sys.stdout.write(json.dumps({"batch_id": view.batch_id, "state": view.state, "was_there": was_there}) + "\n")


def main() -> None:
    role = sys.argv[1]
    log_to_stderr()
    settings = load_settings()
    match role:
        case "worker":
            registry.load_engine = load_paced
            run_worker(settings, stop_on_signals())
        case "scheduler":
            run_scheduler(settings, stop_on_signals())
        case "submit":
            submit_file(Path(sys.argv[2]), sys.argv[3])
        case _:
            _refuse(role)


def _refuse(role: str) -> NoReturn:
    raise SystemExit(f"there is no role {role}")


if __name__ == "__main__":
    main()
