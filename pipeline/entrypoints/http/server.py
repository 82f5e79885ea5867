"""The API as an app, and the process that serves it."""

from __future__ import annotations

import logging
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.metadata import version
from typing import Final

import uvicorn
from fastapi import FastAPI

from pipeline.app.serving import Service, open_service
from pipeline.app.stack import collect_seldom
from pipeline.config import Settings
from pipeline.domain.errors import UsageError
from pipeline.entrypoints.http import batches, errors, files, forecasts, health, models, steering
from pipeline.entrypoints.http.access import Doorkeeper
from pipeline.entrypoints.http.middleware import BODY_BYTES_MAX, BoundedBody, Envelope

_LOG = logging.getLogger(__name__)

#: Requests under way may finish before the process leaves.
_SHUTDOWN_SECONDS: Final = 25
_BACKLOG: Final = 2048
#: Of an upload, for what the form has around its file.
_FORM_BYTES: Final = 64 * 1024
_ROUTERS: Final = (files.router, batches.router, forecasts.router, steering.router, models.router, health.router)


def build_app(service: Service) -> FastAPI:
    """Return the API on a service that is open."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        # Here, because lookups belong to the event loop.
        app.state.doorkeeper = Doorkeeper(service)
        app.state.batch_lookups = batches.lookups_of(service.batches.among)
        yield

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
    app.add_middleware(
        BoundedBody,
        bytes_max=BODY_BYTES_MAX,
        upload_bytes_max=service.settings.upload_bytes_max + _FORM_BYTES,
        upload_paths=frozenset({"/v1/files"}),
    )
    app.add_middleware(Envelope)
    return app


def serve(settings: Settings) -> None:
    """Serve the API until a signal; requests under way may finish."""
    with open_service(settings) as service, listening(settings.api_host, settings.api_port) as listener:
        collect_seldom()
        host, port = listener.getsockname()[:2]
        _LOG.info("api_listening", extra={"host": host, "port": port})
        config = uvicorn.Config(
            build_app(service),
            log_config=None,
            access_log=False,
            server_header=False,
            date_header=True,
            timeout_keep_alive=75,
            timeout_graceful_shutdown=_SHUTDOWN_SECONDS,
            backlog=_BACKLOG,
        )
        uvicorn.Server(config).run(sockets=[listener])


def listening(host: str, port: int) -> socket.socket:
    """Return a socket that listens there; raises `UsageError`."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except OSError as error:
        listener.close()
        raise UsageError(
            f"the API cannot listen on {host}:{port}: {error.strerror}", hint="NIGHTRATE_API_PORT names another port"
        ) from error
    listener.listen(_BACKLOG)
    return listener
