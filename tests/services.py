"""Real servers for tests, and the helpers to reach and to wait for them."""

from __future__ import annotations

import importlib.util
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
from psycopg import sql

from infra.embedded.folder import DataFolder
from infra.embedded.postgres import NOT_DURABLE, PostgresServer
from infra.embedded.valkey import ValkeyServer

TEMPLATE = "nightrate_template"
DEADLINE_SECONDS = 60.0


def eventually(condition: Callable[[], object], *, seconds: float = DEADLINE_SECONDS) -> None:
    """Wait until `condition` holds; the deadline is there to end a broken run, not to measure."""
    deadline = time.monotonic() + seconds
    pause = threading.Event()
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        pause.wait(0.02)


@contextmanager
def running_postgres(root: Path) -> Iterator[str]:
    """Run one server without durability; yield its SQLAlchemy URL."""
    server = PostgresServer(DataFolder(root), settings=NOT_DURABLE)
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
    with connect(url) as connection:
        connection.execute(
            sql.SQL("CREATE DATABASE {} TEMPLATE {}").format(sql.Identifier(name), sql.Identifier(template))
        )
        try:
            yield with_database(url, name)
        finally:
            connection.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))
