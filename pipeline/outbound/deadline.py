"""A socket whose conversation has to be over at an instant, however slowly the other side talks.

A socket's own timeout starts again with every byte, so a server that sends one now and then would hold a thread
for as long as it likes.
"""

from __future__ import annotations

import contextlib
import io
import socket
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer, WriteableBuffer


class DeadlineSocket:
    """The part of a socket that `http.client` uses, each call within what is left of the time."""

    def __init__(self, stream: socket.socket, deadline: float, now_seconds: Callable[[], float]) -> None:
        """Talk through `stream`, which is closed with this, until `now_seconds()` reaches `deadline`."""
        self._stream = stream
        self._deadline = deadline
        self._now_seconds = now_seconds
        self._readers = 0
        self._is_closed = False

    def sendall(self, data: ReadableBuffer) -> None:
        """Send all of `data`; raises `TimeoutError` at the deadline."""
        self._hurry()
        self._stream.sendall(data)

    def recv_into(self, buffer: WriteableBuffer) -> int:
        """Receive what is there; raises `TimeoutError` at the deadline."""
        self._hurry()
        return self._stream.recv_into(buffer)

    def makefile(self, _mode: str) -> io.BufferedReader:
        """Return what is received as a stream of bytes; the socket stays open as long as it."""
        self._readers += 1
        return io.BufferedReader(_Received(self))

    def close(self) -> None:
        """Close the socket, at the latest when the last stream of it is closed."""
        self._is_closed = True
        if not self._readers:
            self._stream.close()

    def give_up(self) -> None:
        """End the conversation from another thread: whoever waits for the other side is told that it is over."""
        with contextlib.suppress(OSError):
            self._stream.shutdown(socket.SHUT_RDWR)

    def reader_closed(self) -> None:
        """Take note that a stream of it was closed."""
        self._readers -= 1
        if self._is_closed and not self._readers:
            self._stream.close()

    def _hurry(self) -> None:
        left = self._deadline - self._now_seconds()
        if left <= 0:
            raise TimeoutError
        self._stream.settimeout(left)


class _Received(io.RawIOBase):
    def __init__(self, source: DeadlineSocket) -> None:
        self._source = source

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: WriteableBuffer) -> int:
        return self._source.recv_into(buffer)

    def close(self) -> None:
        if not self.closed:
            self._source.reader_closed()
        super().close()
