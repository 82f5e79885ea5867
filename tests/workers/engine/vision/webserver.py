"""A web server on loopback that answers as it is told, raw bytes included."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

#: From the request's bytes to the answer's, piece by piece.
Answer = Callable[[bytes], Iterator[bytes]]


def answer(content: bytes, status: str = "200 OK", *headers: str, length: int | None = None) -> bytes:
    lines = [f"HTTP/1.1 {status}", *headers, f"Content-Length: {len(content) if length is None else length}"]
    return "\r\n".join([*lines, "", ""]).encode() + content


@dataclass
class WebServer:
    """Answers by path; a list is used up request by request, its last entry again and again."""

    port: int
    answers: dict[str, list[bytes | Answer]] = field(default_factory=dict)
    #: The requests so far.
    asked: list[bytes] = field(default_factory=list)
    #: Set to let answers that wait for it go on.
    go_on: threading.Event = field(default_factory=threading.Event)

    def url(self, path: str, host: str = "127.0.0.1") -> str:
        return f"http://{host}:{self.port}{path}"

    def reply(self, stream: socket.socket) -> None:
        request = b""
        while b"\r\n\r\n" not in request:
            block = stream.recv(65_536)
            if not block:
                return
            request += block
            if request[:1] == b"\x16":  # the hello of TLS, which is not spoken here
                stream.sendall(answer(b"", "400 Bad Request"))
                return
        self.asked.append(request)
        path = request.split(b" ")[1].decode()
        known = self.answers.get(path)
        reply = answer(b"", "404 Not Found") if not known else known.pop(0) if len(known) > 1 else known[0]
        for piece in [reply] if isinstance(reply, bytes) else reply(request):
            stream.sendall(piece)


@contextmanager
def running() -> Iterator[WebServer]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = WebServer(listener.getsockname()[1])
        threads: list[threading.Thread] = []

        def talk(stream: socket.socket) -> None:
            with stream, suppress(OSError):
                server.reply(stream)

        def accept() -> None:
            with suppress(OSError):
                while True:
                    stream, _ = listener.accept()
                    threads.append(threading.Thread(target=talk, args=(stream,)))
                    threads[-1].start()

        acceptor = threading.Thread(target=accept)
        acceptor.start()
        try:
            yield server
        finally:
            server.go_on.set()
            listener.shutdown(socket.SHUT_RDWR)
            acceptor.join()
            for thread in threads:
                thread.join()
