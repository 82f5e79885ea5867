"""Real servers for tests, and the helpers to reach and to wait for them."""

from __future__ import annotations

import fcntl
import importlib.util
import os
import shutil
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psycopg
from psycopg import sql

from infra.embedded.folder import DataFolder
from infra.embedded.postgres import NOT_DURABLE, PostgresServer
from infra.embedded.valkey import ValkeyServer

TEMPLATE = "nightrate_template"
#: Where folders are kept in memory, because a database is a thousand files and most tests want one of their own, and
#: what must be free there; the servers of two processes took 160 MB together halfway through a run.
MEMORY = Path("/dev/shm")  # noqa: S108 -- folders below are private
MEMORY_BYTES_MIN = 2 * 1024**3
_MEMORY_PREFIX = "nightrate-tests-"
#: Keep small what stays there besides the databases.
_IN_MEMORY = {"max_wal_size": "256MB", "min_wal_size": "32MB", "wal_compression": "off"}
DEADLINE_SECONDS = 60.0


def eventually(condition: Callable[[], object], *, seconds: float = DEADLINE_SECONDS) -> None:
    """Wait until `condition` holds; the deadline is there to end a broken run, not to measure."""
    deadline = time.monotonic() + seconds
    pause = threading.Event()
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        pause.wait(0.02)


@contextmanager
def quick_folder(elsewhere: Path, *, memory: Path = MEMORY, bytes_min: int = MEMORY_BYTES_MIN) -> Iterator[Path]:
    """Yield an empty folder in memory, removed afterwards, or `elsewhere` where memory has not that much room.

    What runs that were killed have left there goes first: a folder's lock dies with the process that made it.
    """
    if not _has_room(memory, bytes_min):
        yield elsewhere
        return
    with _locked(memory / f"{_MEMORY_PREFIX}{os.getuid()}.lock", os.O_CREAT | os.O_RDWR):
        for leftover in memory.glob(f"{_MEMORY_PREFIX}{os.getuid()}-*"):
            with suppress(BlockingIOError), _locked(leftover, os.O_DIRECTORY, fcntl.LOCK_NB):
                shutil.rmtree(leftover, ignore_errors=True)
        folder = Path(tempfile.mkdtemp(prefix=f"{_MEMORY_PREFIX}{os.getuid()}-", dir=memory))
        held = os.open(folder, os.O_DIRECTORY)
        fcntl.flock(held, fcntl.LOCK_EX)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(held)


def _has_room(memory: Path, bytes_min: int) -> bool:
    return memory.is_dir() and os.access(memory, os.W_OK) and shutil.disk_usage(memory).free >= bytes_min


@contextmanager
def _locked(path: Path, flags: int, how: int = 0) -> Iterator[None]:
    descriptor = os.open(path, flags, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | how)
        yield
    finally:
        os.close(descriptor)


@contextmanager
def running_postgres(root: Path) -> Iterator[str]:
    """Run one server without durability; yield its SQLAlchemy URL."""
    server = PostgresServer(DataFolder(root), settings={**NOT_DURABLE, **_IN_MEMORY})
    try:
        yield server.start()
    finally:
        server.stop()


@contextmanager
def running_valkey(root: Path) -> Iterator[str]:
    """Run one server; yield its URL."""
    server = ValkeyServer(DataFolder(root))
    try:
        yield server.start()
    finally:
        server.stop()


def connect(url: str) -> psycopg.Connection:
    """Connect past SQLAlchemy, every statement its own transaction."""
    return psycopg.connect(url.replace("postgresql+psycopg://", "postgresql://", 1), autocommit=True)


def with_database(url: str, database: str) -> str:
    """Return the URL of another database of the same server."""
    return f"{url.rpartition('/')[0]}/{database}"


def has_migrations() -> bool:
    """Whether `storage.migrations` exists; once it does, its failures are ours to see."""
    try:
        spec = importlib.util.find_spec("storage.migrations")
    except ModuleNotFoundError:
        return False
    return spec is not None and spec.origin is not None


def make_template(url: str) -> None:
    """Create the migrated database that fresh ones are copied from."""
    from storage.migrations import upgrade

    with connect(url) as connection:
        connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(TEMPLATE)))
    upgrade(with_database(url, TEMPLATE))
    with connect(url) as connection:
        # A template with a connection cannot be copied; from here on there can be none.
        connection.execute(sql.SQL("ALTER DATABASE {} ALLOW_CONNECTIONS false").format(sql.Identifier(TEMPLATE)))
        connection.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", [TEMPLATE])


@contextmanager
def fresh_database(url: str, *, template: str = TEMPLATE) -> Iterator[str]:
    """Yield the URL of a new copy of `template`, and drop it afterwards, whoever is still connected."""
    name = f"test_{uuid.uuid4().hex}"
    # As files: page by page through the log, which is the default, costs five times the work.
    create = sql.SQL("CREATE DATABASE {} TEMPLATE {} STRATEGY file_copy")
    with connect(url) as connection:
        connection.execute(create.format(sql.Identifier(name), sql.Identifier(template)))
        try:
            yield with_database(url, name)
        finally:
            connection.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))
