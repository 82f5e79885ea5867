"""The API as an app, and the process that serves it."""

from __future__ import annotations

import logging
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from importlib.metadata import version
from typing import Final

import uvicorn
from anyio import CapacityLimiter
from fastapi import FastAPI

from pipeline.app.serving import Service, open_service
from pipeline.app.stack import collect_seldom
from pipeline.config import Settings
from pipeline.domain.errors import UsageError
from pipeline.domain.limits import UPLOAD_PART_BYTES_MAX
from pipeline.entrypoints.http import (
    advice,
    api_keys,
    audit_logs,
    batches,
    budgets,
    calculator_page,
    calculators,
    costs,
    errors,
    files,
    forecasts,
    health,
    limits,
    meters,
    models,
    outlooks,
    projects,
    results,
    steering,
    uploads,
    webhooks,
)
from pipeline.entrypoints.http.access import Doorkeeper
from pipeline.entrypoints.http.limiting import RateKeeper
from pipeline.entrypoints.http.middleware import BODY_BYTES_MAX, BoundedBody, Envelope
from pipeline.entrypoints.http.openapi import document_of
from pipeline.entrypoints.http.polling import Polls

_LOG = logging.getLogger(__name__)

#: Requests under way may finish before the process leaves.
_SHUTDOWN_SECONDS: Final = 25
#: Longer than load balancers keep a connection that nobody uses.
_KEEP_ALIVE_SECONDS: Final = 75
_BACKLOG: Final = 2048
_SWITCH_SECONDS: Final = 0.0005
#: Of an upload, for what the form has around its file.
_FORM_BYTES: Final = 64 * 1024
#: Requests at once that read or write whole files before they answer; the others keep their threads.
_HEAVY_MAX: Final = 4
_ROUTERS: Final = (
    files.router,
    uploads.router,
    batches.router,
    forecasts.router,
    steering.router,
    results.router,
    models.router,
    limits.router,
    outlooks.router,
    budgets.router,
    meters.router,
    projects.router,
    api_keys.router,
    audit_logs.router,
    costs.router,
    webhooks.router,
    advice.router,
    calculators.router,
    calculator_page.router,
    health.router,
)


def build_app(service: Service) -> FastAPI:
    """Return the API on a service that is open."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        # Here, because lookups belong to the event loop.
        app.state.doorkeeper = Doorkeeper(service)
        app.state.rates = rates = RateKeeper(service)
        app.state.batch_lookups = batches.lookups_of(service.batches.among)
        app.state.heavy = CapacityLimiter(_HEAVY_MAX)
        yield
        rates.close()

    app = FastAPI(
        title="Nightrate",
        version=version("nightrate"),
        summary="Bulk AI inference when compute is cheap: OpenAI's Batch API, and what goes beyond it.",
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
    )
    app.state.service = service
    for router in _ROUTERS:
        app.include_router(router)
    errors.install(app)
    app.openapi = partial(document_of, app)  # type: ignore[method-assign]  # as FastAPI's manual has it
    app.add_middleware(Polls)
    app.add_middleware(
        BoundedBody,
        bytes_max=BODY_BYTES_MAX,
        uploads={
            files.UPLOAD_PATH: service.settings.upload_bytes_max + _FORM_BYTES,
            uploads.PART_PATH: UPLOAD_PART_BYTES_MAX + _FORM_BYTES,
        },
    )
    app.add_middleware(Envelope)
    return app


def serve(settings: Settings, *, is_shared: bool = False) -> None:
    """Serve the API until a signal; requests under way may finish.

    Args:
        settings: All settings.
        is_shared: whether other processes listen on the same port, and the kernel shares connections out.
    """
    host, port = settings.api_host, settings.api_port
    with open_service(settings) as service, listening(host, port, is_shared=is_shared) as listener:
        collect_seldom()
        # The event loop wants its turn after each wait, and would be kept from it for five milliseconds by any thread.
        sys.setswitchinterval(_SWITCH_SECONDS)
        host, port = listener.getsockname()[:2]
        _LOG.info("api_listening", extra={"host": host, "port": port, "pid": os.getpid()})
        _Server(config_of(build_app(service))).run(sockets=[listener])


def config_of(app: FastAPI) -> uvicorn.Config:
    """Return how the app is served."""
    # It would log paths as people wrote them, keys and all.
    logging.getLogger("uvicorn.access").disabled = True
    return uvicorn.Config(
        app,
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_keep_alive=_KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=_SHUTDOWN_SECONDS,
        backlog=_BACKLOG,
    )


class _Server(uvicorn.Server):
    """Leaves in peace when it is told to; uvicorn's own sends itself the signal again at the end."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Stop on SIGTERM and SIGINT while the block runs."""
        before = {number: signal.signal(number, self.handle_exit) for number in (signal.SIGTERM, signal.SIGINT)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def free_port(host: str, port: int) -> int:
    """Return the port, or any that is free where it is 0; raises `UsageError` where somebody listens on it.

    Whoever shares a port would share it with another server, too, and neither would notice.
    """
    with listening(host, port) as listener:
        return int(listener.getsockname()[1])


def listening(host: str, port: int, *, is_shared: bool = False) -> socket.socket:
    """Return a socket that listens there; raises `UsageError`."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if is_shared:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    try:
        listener.bind((host, port))
    except OSError as error:
        listener.close()
        raise UsageError(
            f"the API cannot listen on {host}:{port}: {error.strerror}", hint="NIGHTRATE_API_PORT names another port"
        ) from error
    listener.listen(_BACKLOG)
    return listener
