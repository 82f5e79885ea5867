"""A receiver of webhooks on loopback: keeps what arrives, and answers as it is told."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import orjson


@dataclass(frozen=True, slots=True)
class Arrived:
    """One request."""

    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def event(self) -> dict[str, Any]:
        event: dict[str, Any] = orjson.loads(self.body)
        return event


@dataclass
class Receiver:
    """What arrived so far, and the statuses to answer by path, used up one by one to the last, which stays."""

    port: int
    arrived: list[Arrived] = field(default_factory=list)
    statuses: dict[str, list[int]] = field(default_factory=dict)
    #: Requests to these paths are answered once `go_on` is set.
    slow: set[str] = field(default_factory=set)
    go_on: threading.Event = field(default_factory=threading.Event)

    def url(self, path: str = "/") -> str:
        return f"http://127.0.0.1:{self.port}{path}"

    def at(self, path: str) -> list[Arrived]:
        return [each for each in self.arrived if each.path == path]

    def types_at(self, path: str) -> list[str]:
        return [each.event["type"] for each in self.at(path)]


@contextmanager
def receiving() -> Iterator[Receiver]:
    """Receive until the block ends."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            receiver.arrived.append(Arrived(self.path, {k.lower(): v for k, v in self.headers.items()}, body))
            if self.path in receiver.slow:
                receiver.go_on.wait()
            known = receiver.statuses.get(self.path, [204])
            status = known.pop(0) if len(known) > 1 else known[0]
            self.send_response(status)
            if 300 <= status < 400:
                self.send_header("Location", receiver.url("/elsewhere"))
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_arguments: object) -> None:
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        receiver = Receiver(server.server_address[1])
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield receiver
        finally:
            receiver.go_on.set()
            server.shutdown()
            thread.join()
