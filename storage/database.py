"""The connection to Postgres: short transactions, retried when the server went away.

Every transaction that goes through `Database.run` may be applied twice or be applied without its
caller hearing of it (an ambiguous commit), so each is idempotent or guarded by a token.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final, TypeVar

from sqlalchemy import Connection, Engine, create_engine, event, text
from sqlalchemy.engine import make_url
from sqlalchemy.exc import DBAPIError, OperationalError

from pipeline.domain.errors import ConflictError, RefusedError, StoreUnavailableError, UsageError
from pipeline.ports.acting import actor_now

_Result = TypeVar("_Result")

_CONNECT_SECONDS: Final = 3
#: A connection for each of the fourteen duties of a leading scheduler and a second one of its export, for its lock, for a
#: claim that is renewed, and for what comes of webhooks.
_POOL_SIZE: Final = 18
_STATEMENT_MS: Final = 60_000
#: Of a look that reads all there ever was, and keeps nobody waiting.
_LONG_LOOK: Final = text("SET LOCAL statement_timeout = 600000")
#: A transaction is given up when the server has been away this long.
_AWAY_SECONDS_MAX: Final = 60.0
_BACKOFF_SECONDS_MAX: Final = 1.0
#: Serialization failure, deadlock: the same transaction may succeed at once.
_TRANSIENT_STATES: Final = frozenset({"40001", "40P01"})
#: What triggers of ours raise where something is refused for a reason that people are to hear.
_REFUSED_STATE: Final = "NR001"
#: Before any other statement of its transaction.
_ONE_MOMENT: Final = text("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
#: For the audit log; both end with the transaction.
_NAME_ACTOR: Final = text("""
    SELECT set_config('nightrate.actor', :actor, true), set_config('nightrate.request_id', :request_id, true)
""")


class Database:
    """An engine and the one way to run a transaction on it. Safe to share between threads."""

    def __init__(self, url: str, *, pool_size: int | None = None, away_seconds_max: float = _AWAY_SECONDS_MAX) -> None:
        """Connect lazily to `url` (`postgresql://…` or `postgresql+psycopg://…`)."""
        self.url = driver_url(url)
        self._away_seconds_max = away_seconds_max
        self.engine: Engine = create_engine(
            self.url,
            pool_size=pool_size or _POOL_SIZE,
            max_overflow=0,
            # What people wrote is no part of an error's text.
            hide_parameters=True,
            connect_args={
                "connect_timeout": _CONNECT_SECONDS,
                "options": f"-c statement_timeout={_STATEMENT_MS} -c timezone=UTC",
                "tcp_user_timeout": 10_000,
                "application_name": "nightrate",
            },
        )
        event.listen(self.engine, "connect", _search_path)

    @contextmanager
    def transaction(self) -> Iterator[Connection]:
        """Run one transaction, once: `StoreUnavailableError` leaves open whether it was applied.

        Raises `ConflictError` where another transaction came in between and nothing was applied.
        """
        try:
            with self.engine.begin() as connection:
                _name_actor(connection)
                yield connection
        except DBAPIError as error:
            if getattr(error.orig, "sqlstate", None) in _TRANSIENT_STATES:
                raise ConflictError(f"another transaction came in between: {_first_line(error)}") from error
            if _is_passing(error):
                raise unavailable(error) from error
            _raise_refusal(error)
            raise

    def run(self, work: Callable[[Connection], _Result], *, is_look: bool = False, is_long: bool = False) -> _Result:
        """Run `work` in a transaction, again while the server is away; `work` must be idempotent.

        A look changes nothing, and all that it reads is of one moment; a long one may take ten minutes a statement.
        """
        assert is_look or not is_long, "what changes anything is short"
        give_up_at = time.monotonic() + self._away_seconds_max
        pause_seconds = 0.05
        while True:
            try:
                with self.engine.begin() as connection:
                    if is_look:
                        connection.execute(_ONE_MOMENT)
                        if is_long:
                            connection.execute(_LONG_LOOK)
                    else:
                        _name_actor(connection)
                    return work(connection)
            except DBAPIError as error:
                if not _is_passing(error):
                    _raise_refusal(error)
                    raise
                if time.monotonic() + pause_seconds > give_up_at:
                    raise unavailable(error) from error
                time.sleep(pause_seconds)
                pause_seconds = min(pause_seconds * 2, _BACKOFF_SECONDS_MAX)

    def close(self) -> None:
        """Give all connections back."""
        self.engine.dispose()


def unavailable(error: Exception) -> StoreUnavailableError:
    """Return what callers hear when Postgres has been away for too long."""
    return StoreUnavailableError(f"Postgres has been away: {_first_line(error)}")


def driver_url(url: str) -> str:
    """Return the URL with the driver we use, or raise `UsageError` naming what is accepted."""
    try:
        parsed = make_url(url)
    except Exception as error:
        raise UsageError(
            # Not shown: what is almost a URL may hold a password.
            "NIGHTRATE_DATABASE_URL is not a URL",
            hint="postgresql://user:password@host/db",
        ) from error
    if parsed.drivername not in {"postgresql", "postgres", "postgresql+psycopg"}:
        raise UsageError(f"database {parsed.drivername!r} is not supported", hint="postgresql://user:password@host/db")
    return parsed.set(drivername="postgresql+psycopg").render_as_string(hide_password=False)


def _search_path(dbapi_connection: object, _record: object) -> None:
    # Statements name tables without the schema; the cost views of later releases have their own.
    with dbapi_connection.cursor() as cursor:  # type: ignore[attr-defined] # SQLAlchemy types it as object
        cursor.execute("SET search_path TO nightrate, public")
    dbapi_connection.commit()  # type: ignore[attr-defined] # as above


def _name_actor(connection: Connection) -> None:
    actor = actor_now()
    if actor is not None:
        connection.execute(_NAME_ACTOR, {"actor": actor.name, "request_id": actor.request_id or ""})


def _raise_refusal(error: DBAPIError) -> None:
    if getattr(error.orig, "sqlstate", None) == _REFUSED_STATE:
        raise RefusedError(_first_line(error.orig or error)) from error


def _is_passing(error: DBAPIError) -> bool:
    state = getattr(error.orig, "sqlstate", None)
    return error.connection_invalidated or (
        isinstance(error, OperationalError)
        and (state is None or state in _TRANSIENT_STATES or state.startswith(("08", "57P")))
    )


def _first_line(error: BaseException) -> str:
    return str(error).strip().splitlines()[0]
