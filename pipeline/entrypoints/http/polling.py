"""Polls: the one request that comes a thousand times a second, and asks for the same few milliseconds each time.

`GET /v1/batches/{id}` without a query is answered here, past the routes, by the very functions that its route is made
of; the route stays, for the document and for everything else. FastAPI takes longer to find a route and what it depends
on than all of the rest takes.
"""

from __future__ import annotations

from typing import Final

from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from pipeline.domain.access import Permission
from pipeline.domain.errors import NightrateError
from pipeline.entrypoints.http.access import admitted
from pipeline.entrypoints.http.batches import POLL_PATH, looked_up
from pipeline.entrypoints.http.documents import answer, batch_document
from pipeline.entrypoints.http.errors import known_response

_PREFIX: Final = POLL_PATH.partition("{")[0]


class Polls:
    """Answers polls, and passes everything else on."""

    def __init__(self, app: ASGIApp) -> None:
        """Pass on to `app`."""
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one connection."""
        if not _is_poll(scope):
            await self._app(scope, receive, send)
            return
        scope["nightrate.route"] = POLL_PATH
        request = Request(scope, receive)
        try:
            caller = await admitted(request, Permission.READ_BATCHES)
            view = await looked_up(request, caller, scope["path"].removeprefix(_PREFIX))
            response = answer(batch_document(view))
        except NightrateError as error:
            response = known_response(request, error)
        await response(scope, receive, send)


def _is_poll(scope: Scope) -> bool:
    if scope["type"] != "http" or scope["method"] != "GET" or scope["query_string"]:
        return False
    path: str = scope["path"]
    return path.startswith(_PREFIX) and "/" not in path[len(_PREFIX) :] and len(path) > len(_PREFIX)
