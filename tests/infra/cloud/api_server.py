"""A Kubernetes API server that replays what is in a recording, and fails whatever is not.

A recording is a JSON array of exchanges: a request (method, path with query, document) and the response to it (status,
document). Each exchange is had once, in any order; requests that are not in it are answered 599 and kept.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

RECORDINGS = Path(__file__).parent / "recordings"


@dataclass(kw_only=True)
class Replay:
    """A recording as it is played."""

    url: str = ""
    exchanges: list[dict[str, Any]] = field(default_factory=list)
    unrecorded: list[dict[str, Any]] = field(default_factory=list)
    tokens: set[str] = field(default_factory=set)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def answer(self, request: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        with self._lock:
            for exchange in self.exchanges:
                if exchange["request"] == request:
                    self.exchanges.remove(exchange)
                    return exchange["response"]["status"], exchange["response"]["document"]
            self.unrecorded.append(request)
            return 599, {"kind": "Status", "message": "not in the recording"}


@contextmanager
def replaying(name: str) -> Iterator[Replay]:
    """Play a recording; on the way out, all of it was asked for and nothing else."""
    replay = Replay(exchanges=json.loads((RECORDINGS / f"{name}.json").read_text()))

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _answer(self) -> None:
            size = int(self.headers.get("Content-Length", 0))
            request: dict[str, Any] = {"method": self.command, "path": self.path}
            if size:
                request["document"] = json.loads(self.rfile.read(size))
            replay.tokens.add(self.headers.get("Authorization", ""))
            status, document = replay.answer(request)
            content = json.dumps(document).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def do_GET(self) -> None:
            self._answer()

        def do_POST(self) -> None:
            self._answer()

        def do_DELETE(self) -> None:
            self._answer()

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    replay.url = f"http://127.0.0.1:{server.server_port}"
    try:
        yield replay
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
    assert replay.unrecorded == []
    assert replay.exchanges == []
