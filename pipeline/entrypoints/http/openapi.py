"""The published document: what FastAPI derives from the routes, and what it cannot know."""

from __future__ import annotations

import re
from functools import cache
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


def methods_at(app: FastAPI, path: str) -> str:
    """Return the methods that `path` can be asked by, as an `Allow` header has them; empty: it leads nowhere."""
    paths = document_of(app)["paths"]
    # A path that is written out goes before those with something in it.
    found = {method.upper() for method in paths.get(path, {})}
    for template, methods in () if found else paths.items():
        if _matches(template, path):
            found |= {method.upper() for method in methods}
    return ", ".join(sorted(found))


@cache
def _pattern(template: str) -> re.Pattern[str]:
    pieces = re.split(r"\{[^}]*\}", template)
    return re.compile("[^/]+".join(re.escape(piece) for piece in pieces))


def _matches(template: str, path: str) -> bool:
    return _pattern(template).fullmatch(path) is not None
