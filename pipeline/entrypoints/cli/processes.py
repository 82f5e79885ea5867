"""The long-running processes: what the supervisor, a container or systemd starts."""

from __future__ import annotations

import logging
import os
from functools import partial
from importlib.util import find_spec
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from pipeline.domain.errors import NightrateError, UsageError
from pipeline.entrypoints.cli.exits import ExitCode

if TYPE_CHECKING:  # settings cost a quarter of a second that `nightrate --help` need not pay
    from pipeline.config import Settings

_LOG = logging.getLogger(__name__)


def scheduler() -> int:
    """Run a scheduler: the one that leads decides, others stand by."""
    return _live("scheduler", None)


def worker(
    *,
    pool: Annotated[str | None, typer.Option("--pool", help="Pool to work for. Default: the setting `pool`.")] = None,
) -> int:
    """Run one worker: it leases packs, runs them and commits results until told to stop."""
    return _live("worker", pool)


def api() -> int:
    """Serve the API: OpenAI's files and batches, on `api_host` and `api_port`, by `api_processes` processes."""
    from infra.crew import run_crew
    from infra.logs import log_to_stderr
    from pipeline.entrypoints.cli.connection import process_settings

    require_api()
    log_to_stderr()
    try:
        settings = process_settings()
        if settings.api_processes == 1:
            return _serve(settings, is_shared=False)
        from pipeline.entrypoints.http.server import free_port

        port = free_port(settings.api_host, settings.api_port)
    except NightrateError as error:
        return _failed(error)
    settings = settings.model_copy(update={"api_port": port})
    return run_crew(settings.api_processes, partial(_serve, settings, is_shared=True))


def _serve(settings: Settings, *, is_shared: bool) -> int:
    from infra.logs import log_to_stderr
    from pipeline.entrypoints.http.server import serve

    # Only now: it writes from a thread of its own.
    log_to_stderr(is_gathered=True)
    try:
        # The server listens to signals itself: what is under way may finish.
        serve(settings, is_shared=is_shared)
    except NightrateError as error:
        return _failed(error)
    return ExitCode.OK


def _failed(error: NightrateError) -> int:
    _LOG.error("process_failed", extra={"role": "api", "code": error.code, "reason": str(error)})
    return error.exit_code


def has_api() -> bool:
    """Say whether what the API needs is installed."""
    return all(find_spec(name) is not None for name in ("fastapi", "uvicorn", "python_multipart"))


def require_api() -> None:
    """Raise `UsageError` unless what the API needs is installed."""
    if not has_api():
        raise UsageError("the API is not installed", hint="pip install 'nightrate[api]'")


def _live(role: Literal["scheduler", "worker"], pool: str | None) -> int:
    """Run until a signal; whatever ends it otherwise is in the log, as one JSON line like all the rest."""
    from infra.embedded.daemon import stop_on_signals
    from infra.logs import log_to_stderr

    must_stop = stop_on_signals()
    log_to_stderr()
    from pipeline.app.scheduling import run_scheduler
    from pipeline.app.working import run_worker
    from pipeline.entrypoints.cli.connection import process_settings

    body = run_scheduler if role == "scheduler" else run_worker
    try:
        settings = process_settings(pool=pool)
        _LOG.info("process_started", extra={"role": role, "pid": os.getpid()})
        body(settings, must_stop)
    except NightrateError as error:
        _LOG.error("process_failed", extra={"role": role, "code": error.code, "reason": str(error)})
        return error.exit_code
    except Exception:  # noqa: BLE001 -- the last seam of the process; the log has all of it
        _LOG.exception("process_crashed", extra={"role": role})
        return ExitCode.FAILED
    _LOG.info("process_stopped", extra={"role": role})
    return ExitCode.OK
