"""Logs: one JSON object a line on stderr, an event name and its fields; never a prompt."""

from __future__ import annotations

import atexit
import json
import logging
import sys
import threading
from contextlib import nullcontext
from datetime import UTC, datetime
from typing import Final, TextIO

import orjson

_PLAIN_FIELDS: Final = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}

_BLOCK_BYTES: Final = 64 * 1024
_GATHER_SECONDS: Final = 0.25


class _JsonLines(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        """Return the record as one line of JSON."""
        line = {
            "at": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "event": record.getMessage(),
            "logger": record.name,
            **{name: value for name, value in vars(record).items() if name not in _PLAIN_FIELDS},
        }
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        try:
            return orjson.dumps(line, default=str, option=orjson.OPT_NON_STR_KEYS).decode()
        except orjson.JSONEncodeError:
            # Half characters, as in names of files, and whole numbers past 64 bits.
            return json.dumps(line, default=str)


class _Gathering(logging.StreamHandler[TextIO]):
    """Writes lines by the block, soon; warnings at once, with all that came before them."""

    def __init__(self) -> None:
        super().__init__(open(sys.stderr.fileno(), "w", buffering=_BLOCK_BYTES, closefd=False, encoding="utf-8"))  # noqa: SIM115 -- it lives as long as the process
        threading.Thread(target=self._flush_again, name="logs", daemon=True).start()
        atexit.register(self.flush)

    def emit(self, record: logging.LogRecord) -> None:
        try:
            self.stream.write(f"{self.format(record)}\n")
            if record.levelno >= logging.WARNING:
                self.flush()
        except Exception:  # noqa: BLE001 -- as every handler of the standard library
            self.handleError(record)

    def _flush_again(self) -> None:
        pause = threading.Event()
        while not pause.wait(_GATHER_SECONDS):
            with self.lock or nullcontext():
                self.flush()


def log_to_stderr(level: int = logging.INFO, *, is_gathered: bool = False) -> None:
    """Send this process's logs to stderr; other people's libraries only speak up when they must.

    Gathered, lines are written a few times a second: for a process that logs a thousand of them.
    """
    handler = _Gathering() if is_gathered else logging.StreamHandler(sys.stderr)
    handler.setFormatter(_JsonLines())
    logging.basicConfig(level=level, handlers=[handler], force=True)
    for noisy in ("celery", "kombu", "amqp", "botocore", "boto3", "urllib3", "transformers", "alembic", "sqlalchemy"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
