"""A server that answers by a script, well or badly, and remembers what it was asked."""

from __future__ import annotations

import json
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from random import Random

from infra.remote.patience import Clock


@dataclass(frozen=True)
class Asked:
    """One request."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes


Act = Callable[["Handler"], None]


class Handler(BaseHTTPRequestHandler):
    """Plays the next act of the script."""

    protocol_version = "HTTP/1.1"
    server: HostileServer

    def play(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        headers = {name.lower(): value for name, value in self.headers.items()}
        self.server.asked.append(Asked(self.command, self.path, headers, body))
        acts = self.server.acts
        act = acts.pop(0) if len(acts) > 1 else acts[0]
        act(self)

    do_GET = do_POST = do_PATCH = do_DELETE = play  # noqa: N815 -- as http.server calls them

    def log_message(self, *_given: object) -> None:
        """Say nothing."""


class HostileServer(ThreadingHTTPServer):
    """Plays its acts in order, the last one for ever."""

    daemon_threads = True

    def __init__(self, *acts: Act, port: int = 0) -> None:
        self.acts = list(acts)
        self.asked: list[Asked] = []
        self.scheme = "http"
        super().__init__(("127.0.0.1", port), Handler)

    @property
    def url(self) -> str:
        return f"{self.scheme}://127.0.0.1:{self.server_address[1]}"

    def handle_error(self, *_given: object) -> None:
        """Say nothing: clients of a hostile server break off."""


@contextmanager
def hostile(*acts: Act, tls: ssl.SSLContext | None = None, port: int = 0) -> Iterator[HostileServer]:
    """Serve until the block ends."""
    server = HostileServer(*acts, port=port)
    if tls is not None:
        server.socket = tls.wrap_socket(server.socket, server_side=True)
        server.scheme = "https"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def says(status: int, body: object = None, *, cut: int | None = None, **headers: str) -> Act:
    """Answer; `body` is bytes, or becomes JSON; `cut`: break off after so many bytes of it."""
    content = body if isinstance(body, bytes) else json.dumps(body or {}).encode()

    def act(handler: Handler) -> None:
        handler.send_response(status)
        for name, value in headers.items():
            handler.send_header(name.replace("_", "-"), value)
        handler.send_header("Content-Length", str(len(content)))
        handler.end_headers()
        handler.wfile.write(content if cut is None else content[:cut])
        if cut is not None:
            drops(handler)

    return act


def refuses(status: int, code: str | None = None, message: str = "No.", **headers: str) -> Act:
    """Answer an error in OpenAI's envelope."""
    error = {"message": message, "type": "invalid_request_error", "param": None, "code": code}
    return says(status, {"error": error}, **headers)


def drops(handler: Handler) -> None:
    """Close the connection without another word."""
    handler.close_connection = True
    handler.wfile.flush()
    handler.connection.shutdown(socket.SHUT_RDWR)


def sends(content: bytes, *, ranges: bool = True, cut: int | None = None, etag: str | None = None) -> Act:
    """Answer with a file or the range of it that is asked for; `cut`: break off after so many bytes."""

    def act(handler: Handler) -> None:
        asked = handler.headers.get("Range")
        start = int(asked.removeprefix("bytes=").removesuffix("-")) if asked and ranges else 0
        headers = {"ETag": etag} if etag else {}
        if asked and ranges:
            headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
        says(206 if asked and ranges else 200, content[start:], cut=cut, **headers)(handler)

    return act


@dataclass
class Time:
    """A clock that moves where somebody sleeps, and by `tick` with every look at it."""

    now: float = 1000.0
    tick: float = 0.0
    slept: list[float] = field(default_factory=list)
    said: list[str] = field(default_factory=list)

    @property
    def clock(self) -> Clock:
        return Clock(
            monotonic=self._look,
            wall=lambda: 1_780_000_000.0,
            sleep=self._sleep,
            say=self.said.append,
            jitter=Random(1),
        )

    def _look(self) -> float:
        self.now += self.tick
        return self.now

    def _sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds
