"""The published document: what FastAPI derives from the routes, and what it cannot know."""

from __future__ import annotations

from typing import Any, Final

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

_SCHEME: Final = "apiKey"


def document_of(app: FastAPI) -> dict[str, Any]:
    """Return the app's OpenAPI document, made once."""
    if app.openapi_schema is None:
        document = get_openapi(
            title=app.title, version=app.version, summary=app.summary, routes=app.routes, openapi_version="3.1.0"
        )
        for methods in document["paths"].values():
            for operation in methods.values():
                operation["security"] = [{_SCHEME: []}]
                # FastAPI's own, which `errors` answers with 400 in the envelope.
                if "HTTPValidationError" in str(operation["responses"].get("422")):
                    del operation["responses"]["422"]
        components = document.setdefault("components", {})
        components["securitySchemes"] = {
            _SCHEME: {"type": "http", "scheme": "bearer", "description": "An API key, such as `sk-nr-…`."}
        }
        for unused in ("HTTPValidationError", "ValidationError"):
            components.get("schemas", {}).pop(unused, None)
        app.openapi_schema = document
    return app.openapi_schema
