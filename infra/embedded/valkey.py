"""Valkey, a Redis-compatible server, for one box: every write logged, nothing ever evicted."""

from __future__ import annotations

import signal
import socket
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import ClassVar, Final

from infra.embedded.binaries import SHARED_CACHE, ValkeyProgram, find_valkey, readable_valkey
from infra.embedded.folder import DataFolder, server_user
from infra.embedded.server import LOOPBACK, EmbeddedServer

_ANSWER_SECONDS_MAX: Final = 1.0
_ANSWER_BYTES_MAX: Final = 1024


class ValkeyServer(EmbeddedServer):
    """A private Valkey, or Redis, with its data in an append-only file."""

    label: ClassVar[str] = "valkey"
    polite_signal: ClassVar[signal.Signals] = signal.SIGTERM
    stop_requests: ClassVar[Sequence[tuple[signal.Signals, float]]] = ((signal.SIGTERM, 10.0),)

    def __init__(
        self,
        folder: DataFolder,
        *,
        program: ValkeyProgram | None = None,
        cache: Path = SHARED_CACHE,
        pick_port: Callable[[], int] | None = None,
    ) -> None:
        """Keep data in `folder`; `program` defaults to what `find_valkey` finds, the rest as for Postgres."""
        super().__init__(folder, pick_port=pick_port)
        self._program = program
        self._cache = cache

    @property
    def url(self) -> str:
        """Redis URL, password included."""
        assert self.port is not None
        return f"redis://:{self.folder.credentials().redis_password}@{LOOPBACK}:{self.port}/0"

    @property
    def _work_folder(self) -> Path:
        return self.folder.path / "valkey"

    def _prepare(self) -> None:
        if self._program is None:
            self._program = find_valkey()
        if server_user() is not None:
            self._program = readable_valkey(self._program, cache=self._cache)
        self.folder.server_folder("valkey")

    def _command(self, port: int) -> Sequence[str]:  # noqa: ARG002 - the port is in the configuration
        assert self._program is not None
        return [str(self._program.server), "-"]

    def _configuration(self, port: int) -> bytes:
        """Say everything on standard input: arguments can be read by anyone, a file can be left behind."""
        lines = (
            f"bind {LOOPBACK}",
            f"port {port}",
            f"requirepass {self.folder.credentials().redis_password}",
            "protected-mode yes",
            "daemonize no",
            "dir ./",
            "appendonly yes",
            "appendfsync everysec",
            # A kill may cut the last record short; without this the server would refuse to start.
            "aof-load-truncated yes",
            'save ""',
            # Evicting a broker's keys would lose messages without a word.
            "maxmemory-policy noeviction",
            "loglevel notice",
        )
        return "\n".join(lines).encode() + b"\n"

    def _answers(self) -> bool:
        """Log in and say PING: the password is ours alone, so a stranger on the port cannot pass."""
        assert self.port is not None
        password = self.folder.credentials().redis_password
        try:
            with socket.create_connection((LOOPBACK, self.port), timeout=_ANSWER_SECONDS_MAX) as connection:
                connection.sendall(f"AUTH {password}\r\nPING\r\n".encode())
                answer = b""
                while answer.count(b"\r\n") < len(("AUTH", "PING")) and len(answer) < _ANSWER_BYTES_MAX:
                    received = connection.recv(_ANSWER_BYTES_MAX)
                    if not received:
                        return False
                    answer += received
        except OSError:
            return False
        return answer == b"+OK\r\n+PONG\r\n"
