"""A proxy in front of Postgres that loses the answer to a COMMIT: the client cannot know what became of it."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

_CHUNK = 65_536
_WAIT_SECONDS = 20.0


class LossyProxy:
    """Passes bytes on; once armed, passes the next COMMIT on as well, but hangs up on the client first."""

    def __init__(self, upstream: tuple[str, int]) -> None:
        self._upstream = upstream
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._armed = threading.Event()
        self._hold_until: bytes | None = None
        self._seen = threading.Event()
        #: COMMITs that reached the server and whose answer reached nobody.
        self.swallowed = 0

    @property
    def port(self) -> int:
        port: int = self._listener.getsockname()[1]
        return port

    def lose_next_commit(self, *, hold_until: bytes | None = None) -> None:
        """Lose the answer; deliver the COMMIT at once, or when another connection has sent `hold_until`."""
        self._hold_until = hold_until
        self._seen.clear()
        self._armed.set()

    def serve(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            server = socket.create_connection(self._upstream)
            threading.Thread(target=self._pump, args=(client, server, self._intercept), daemon=True).start()
            threading.Thread(target=self._pump, args=(server, client, None), daemon=True).start()

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _intercept(self, chunk: bytes, client: socket.socket) -> None:
        if b"COMMIT" in chunk and self._armed.is_set():
            self._armed.clear()
            client.shutdown(socket.SHUT_RDWR)
            if self._hold_until is not None:
                assert self._seen.wait(_WAIT_SECONDS), "nobody sent what the COMMIT was held for"
                self._hold_until = None
            self.swallowed += 1
        elif self._hold_until is not None and not self._armed.is_set() and self._hold_until in chunk:
            self._seen.set()

    @staticmethod
    def _pump(
        source: socket.socket, target: socket.socket, intercept: Callable[[bytes, socket.socket], None] | None
    ) -> None:
        with contextlib.suppress(OSError):
            while chunk := source.recv(_CHUNK):
                if intercept is not None:
                    intercept(chunk, source)
                target.sendall(chunk)
        with contextlib.suppress(OSError):
            target.shutdown(socket.SHUT_WR)
        if intercept is None:
            # The server has said its last: nobody needs either end any more.
            source.close()
            target.close()


@contextmanager
def lossy_proxy(host: str, port: int) -> Iterator[LossyProxy]:
    proxy = LossyProxy((host, port))
    thread = threading.Thread(target=proxy.serve, daemon=True)
    thread.start()
    try:
        yield proxy
    finally:
        proxy.close()
        thread.join()
