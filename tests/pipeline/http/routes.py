"""The routes of the API, as its route table has them, and bodies that they accept."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from fastapi import FastAPI
from fastapi.routing import APIRoute
from starlette.routing import BaseRoute

from pipeline.domain.access import Permission


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One method of one route."""

    method: str
    path: str
    route: APIRoute
    #: None: it asks for no key.
    permission: Permission | None
    path_params: tuple[str, ...]
    query_params: tuple[str, ...]
    #: The example of its body; None where it takes none, or has no example.
    body: object

    def __str__(self) -> str:
        return f"{self.method} {self.path}"

    def url(self, ids: Mapping[str, str]) -> str:
        """Return its path with these ids in it."""
        url = self.path.replace(":path}", "}")
        for name, value in ids.items():
            url = url.replace(f"{{{name}}}", value)
        return url


def endpoints_of(app: FastAPI) -> list[Endpoint]:
    """Return every method of every route; what OpenAPI publishes of the app is among them."""
    document = app.openapi()
    found = [
        Endpoint(
            method=method,
            path=route.path,
            route=route,
            permission=_permission(route),
            path_params=tuple(param.name for param in route.dependant.path_params),
            query_params=tuple(param.alias for param in route.dependant.query_params),
            body=_example(document, route.path.replace(":path}", "}"), method.lower()),
        )
        for route in _flat(app.routes)
        for method in sorted(route.methods)
    ]
    published = {(method.upper(), path) for path, item in document["paths"].items() for method in item}
    assert published <= {(endpoint.method, endpoint.path.replace(":path}", "}")) for endpoint in found}
    return found


def _flat(routes: Iterable[BaseRoute]) -> Iterator[APIRoute]:
    for route in routes:
        # A router that is included stands in the table as a whole.
        nested = getattr(route, "original_router", None)
        if isinstance(route, APIRoute):
            yield route
        elif nested is not None:
            yield from _flat(nested.routes)


def _permission(route: APIRoute) -> Permission | None:
    for dependency in route.dependant.dependencies:
        if dependency.call is not None and inspect.isfunction(dependency.call):
            permission = inspect.getclosurevars(dependency.call).nonlocals.get("permission")
            if permission is not None:
                return Permission(permission)
    return None


def _example(document: Mapping[str, Any], path: str, method: str) -> object:
    item = document["paths"].get(path, {}).get(method, {})
    schema = item.get("requestBody", {}).get("content", {}).get("application/json", {}).get("schema", {})
    for each in (schema, *schema.get("anyOf", ())):
        found = document["components"]["schemas"].get(each.get("$ref", "").rpartition("/")[2], {})
        if "example" in found:
            example: object = found["example"]
            return example
    return None
