"""What routes find behind a request."""

from __future__ import annotations

from fastapi import Request

from pipeline.app.serving import Service


def service_of(request: Request) -> Service:
    """Return the service that the app was built on."""
    service: Service = request.app.state.service
    return service
