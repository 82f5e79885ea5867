"""An HTTP server with one answer, for what a healthy S3 server never says."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@contextmanager
def answering(
    status: int, content: bytes, *, missing_bytes: int = 0, head_status: int | None = None
) -> Iterator[tuple[str, list[str]]]:
    """Run a server that gives one answer to everything; yield its URL and the paths asked for so far."""
    paths: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def answer(self) -> None:
            paths.append(self.path)
            self.rfile.read(int(self.headers.get("Content-Length", "0")))
            self.send_response(head_status or status if self.command == "HEAD" else status)
            self.send_header("Content-Length", str(len(content) + missing_bytes))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(content)

        do_GET = do_PUT = do_HEAD = answer  # noqa: N815  # the names that http.server calls

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", paths
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
