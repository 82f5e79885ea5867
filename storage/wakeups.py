"""Wake-ups: Postgres tells the scheduler that something changed, so that it need not ask all the time.

A wake-up is a hint like those of the broker: it is sent with the commit that it is about, may get lost
with a connection, and whoever waits for one looks by itself now and then.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Final

import psycopg
from sqlalchemy import Connection, text
from sqlalchemy.engine import make_url

_LOG = logging.getLogger(__name__)

_CHANNEL: Final = "nightrate_changed"
_NOTIFY: Final = text("SELECT pg_notify(:channel, '')")
#: How long a stopped listener goes on waiting, at most; also its rest before it connects again.
_WAIT_SECONDS: Final = 1.0
_CONNECT_SECONDS: Final = 3


def send_wakeup(connection: Connection) -> None:
    """Wake whoever listens, once this transaction is committed."""
    connection.execute(_NOTIFY, {"channel": _CHANNEL})


class WakeupListener:
    """A thread that calls back at each wake-up, and once whenever some may have been missed."""

    def __init__(self, url: str, on_wakeup: Callable[[], None]) -> None:
        """Listen on a connection of its own to `url`."""
        self._url = make_url(url).set(drivername="postgresql").render_as_string(hide_password=False)
        self._on_wakeup = on_wakeup
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="wakeups", daemon=True)

    def start(self) -> None:
        """Start listening."""
        self._thread.start()

    def stop(self) -> None:
        """Stop listening, within a second or so."""
        self._stopped.set()

    def _run(self) -> None:
        while not self._stopped.is_set():
            try:
                self._listen()
            except psycopg.Error as error:
                _LOG.warning("wakeups_interrupted", extra={"reason": str(error).strip()})
                self._stopped.wait(_WAIT_SECONDS)

    def _listen(self) -> None:
        with psycopg.connect(
            self._url, autocommit=True, connect_timeout=_CONNECT_SECONDS, application_name="nightrate wakeups"
        ) as connection:
            connection.execute(f"LISTEN {_CHANNEL}")
            self._on_wakeup()
            while not self._stopped.is_set():
                for _ in connection.notifies(timeout=_WAIT_SECONDS, stop_after=1):
                    self._on_wakeup()
