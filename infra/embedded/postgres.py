"""PostgreSQL for one box: made on first use, durable, on loopback only."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import ClassVar, Final

from infra.embedded.binaries import (
    SHARED_CACHE,
    PostgresPrograms,
    anyone_can_enter,
    find_postgres,
    readable_postgres,
)
from infra.embedded.folder import DataFolder, give_to_server, server_user, write_private
from infra.embedded.server import LOOPBACK, EmbeddedServer, server_environment
from infra.launch import launch, log_tail
from pipeline.domain.errors import ServiceStartError

DATABASE: Final = "nightrate"
USER: Final = "nightrate"
#: Names the data from inside: a server that is in its folder needs no way through the folders above.
_DATA_FROM_INSIDE: Final = "/proc/self/cwd"
#: Older servers find their own program by walking from the root, which that cannot serve.
_FROM_INSIDE_VERSION_MIN: Final = (16, 0)
_DRAFT_PREFIX: Final = "data.init-"
_INIT_SECONDS_MAX: Final = 120.0
_PID_FILE_PID_LINE: Final = 0
_PID_FILE_STATUS_LINE: Final = 7

SETTINGS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "listen_addresses": LOOPBACK,
        # No socket file: its path may be at most 107 bytes, and a data folder's is often longer.
        "unix_socket_directories": "",
        "max_connections": "200",
        "shared_buffers": "128MB",
        "wal_compression": "on",
        "max_wal_size": "2GB",
        # Our queries are short and many: compiling one costs more than running it.
        "jit": "off",
        "timezone": "UTC",
        "log_timezone": "UTC",
        "log_destination": "stderr",
        "log_checkpoints": "off",
        "log_line_prefix": "%m [%p] ",
    }
)
#: For tests only: a crash of the machine may lose everything.
NOT_DURABLE: Final[Mapping[str, str]] = MappingProxyType(
    {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"}
)


class PostgresServer(EmbeddedServer):
    """A private PostgreSQL with one database, `nightrate`."""

    label: ClassVar[str] = "postgres"
    #: Fast shutdown: open transactions are rolled back, nobody is waited for.
    polite_signal: ClassVar[signal.Signals] = signal.SIGINT
    #: Immediate shutdown comes second: safe, at the price of recovery at the next start.
    stop_requests: ClassVar[Sequence[tuple[signal.Signals, float]]] = (
        (signal.SIGINT, 20.0),
        (signal.SIGQUIT, 5.0),
    )

    def __init__(
        self,
        folder: DataFolder,
        *,
        programs: PostgresPrograms | None = None,
        settings: Mapping[str, str] = MappingProxyType({}),
        cache: Path = SHARED_CACHE,
        pick_port: Callable[[], int] | None = None,
    ) -> None:
        """Keep data in `folder`.

        Args:
            folder: the data folder; the caller holds its lock.
            programs: which PostgreSQL; default: what `find_postgres` finds.
            settings: server settings over `SETTINGS`.
            cache: where root copies programs that `nobody` cannot read.
            pick_port: names a port to try.
        """
        super().__init__(folder, pick_port=pick_port)
        self._programs = programs
        self._settings = {**SETTINGS, **settings}
        self._cache = cache

    @property
    def url(self) -> str:
        """SQLAlchemy URL of the database, password included."""
        assert self.port is not None
        password = self.folder.credentials().postgres_password
        return f"postgresql+psycopg://{USER}:{password}@{LOOPBACK}:{self.port}/{DATABASE}"

    @property
    def _work_folder(self) -> Path:
        return self.folder.path / "postgres" / "data"

    def _prepare(self) -> None:
        if self._programs is None:
            self._programs = find_postgres()
        if server_user() is not None:
            self._programs = readable_postgres(self._programs, cache=self._cache)
            self._check_reach()
        parent = self.folder.server_folder("postgres")
        _remove_drafts(parent)
        if not self._work_folder.exists():
            self._make_data(parent)
        self._check_version()

    def _command(self, port: int) -> Sequence[str]:
        assert self._programs is not None
        settings = [part for name, value in self._settings.items() for part in ("-c", f"{name}={value}")]
        data = self._data_argument(self._work_folder)
        return [str(self._programs.postgres), "-D", data, "-p", str(port), *settings]

    def _spawn(self, port: int) -> None:
        self._clear_leftovers()
        if Path("/proc/self").exists():
            # None of this data's processes is left, so the pid in there is at best a stranger's now:
            # Postgres would take a stranger of the same user for a running server and refuse.
            self._work_folder.joinpath("postmaster.pid").unlink(missing_ok=True)
        super()._spawn(port)

    def _answers(self) -> bool:
        """Read what the server itself reports, as pg_ctl does: no connection, and no stranger can be meant."""
        assert self._child is not None
        try:
            lines = self._work_folder.joinpath("postmaster.pid").read_text().splitlines()
        except FileNotFoundError:
            return False
        return (
            len(lines) > _PID_FILE_STATUS_LINE
            and lines[_PID_FILE_PID_LINE] == str(self._child.pid)
            and lines[_PID_FILE_STATUS_LINE].strip() == "ready"
        )

    def _data_argument(self, data: Path) -> str:
        is_open = server_user() is None or anyone_can_enter(self.folder.path)
        return str(data) if is_open else _DATA_FROM_INSIDE

    def _check_reach(self) -> None:
        assert self._programs is not None
        is_open = anyone_can_enter(self.folder.path)
        if not is_open and self._programs.version < _FROM_INSIDE_VERSION_MIN:
            raise ServiceStartError(
                f"PostgreSQL {self._programs.version[0]} cannot work in {self.folder.path} as the user nobody",
                hint="set NIGHTRATE_HOME to a folder everyone can reach, such as /var/lib/nightrate, "
                "or install PostgreSQL 16 or newer",
            )

    def _check_version(self) -> None:
        assert self._programs is not None
        try:
            made_by = self._work_folder.joinpath("PG_VERSION").read_text().strip()
        except FileNotFoundError as error:
            raise ServiceStartError(
                f"{self._work_folder} is not a PostgreSQL data folder", hint="move it away to start afresh"
            ) from error
        if made_by != str(self._programs.version[0]):
            raise ServiceStartError(
                f"{self._work_folder} was made by PostgreSQL {made_by}, the one found is {self._programs.version[0]}",
                hint=f"put PostgreSQL {made_by} on PATH, or dump and restore",
            )

    def _make_data(self, parent: Path) -> None:
        """Make the data in a draft and rename it: what has the final name is complete."""
        assert self._programs is not None
        draft = Path(tempfile.mkdtemp(prefix=_DRAFT_PREFIX, dir=parent))
        give_to_server(draft)
        password = draft.with_name(f"{draft.name}.password")
        write_private(password, self.folder.credentials().postgres_password)
        give_to_server(password)
        data = self._data_argument(draft)
        self._run_once(
            [
                *(str(self._programs.initdb), "-D", data, "-U", USER, "--auth=scram-sha-256"),
                *(f"--pwfile=../{password.name}", "--encoding=UTF8", "--locale=C.UTF-8"),
                *("--data-checksums", "--no-sync"),
            ],
            cwd=draft,
        )
        # Single-user mode: no port, no password, and the database exists before anyone can connect.
        self._run_once(
            [
                *(str(self._programs.postgres), "--single", "-F", "-D", data),
                *("-c", "exit_on_error=on", "-c", "log_checkpoints=off", "postgres"),
            ],
            cwd=draft,
            stdin=f"CREATE DATABASE {DATABASE};\n".encode(),
        )
        password.unlink()
        draft.rename(self._work_folder)
        if self._settings.get("fsync") != "off":
            # Nothing was synced yet, for a quick first start. Until this is through, a crash of the whole
            # machine could damage data that is seconds old.
            threading.Thread(target=os.sync, name="sync-new-data", daemon=True).start()

    def _run_once(self, command: Sequence[str], *, cwd: Path, stdin: bytes = b"") -> None:
        log_path = self.folder.logs / "postgres-init.log"
        child = launch(
            command,
            cwd=cwd,
            env=server_environment(),
            log_path=log_path,
            death_signal=signal.SIGKILL,
            run_as=server_user(),
            stdin=stdin,
        )
        try:
            code = child.wait(_INIT_SECONDS_MAX)
        except subprocess.TimeoutExpired:
            child.kill()
            code = child.wait()
        if code != 0:
            program = Path(command[0]).name
            raise ServiceStartError(f"{program} left with exit code {code}; its log ends:\n{log_tail(log_path)}")


def _remove_drafts(parent: Path) -> None:
    """Drop what a crash left half made; the lock on the folder says that nobody is at it."""
    for leftover in parent.glob(f"{_DRAFT_PREFIX}*"):
        if leftover.is_dir():
            shutil.rmtree(leftover)
        else:
            leftover.unlink()
