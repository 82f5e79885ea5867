"""Changes: which batches may have changed since one reader looked last.

A batch changes in two ways. Its own row is updated: each update marks it with the transaction that made it, and
whatever a transaction wrote that was not over at the last look has a mark no lower than the oldest of those. Or packs
with rows of it move on: all that have not ended, and those that have and are not settled, are few.

Each reader has a cursor of its own: what happens between one reader's look and another's is still to be seen by the first.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Final

from sqlalchemy import Connection, text

#: Everything is read again now and then, so that a mistake here would not last.
_LOOK_AT_ALL_SECONDS: Final = 300.0

_NOW: Final = text("SELECT CAST(CAST(pg_snapshot_xmin(pg_current_snapshot()) AS text) AS bigint)")

_CHANGED: Final = text("SELECT id FROM batches WHERE changed_by >= :since")

_MOVING: Final = text("""
    -- Pack by pack (what OFFSET is for): there are few of them, and very many slices.
    SELECT DISTINCT batch_id
      FROM (SELECT id FROM packs WHERE state IN ('ready', 'retryable')
            UNION ALL SELECT id FROM packs WHERE state = 'leased'
            UNION ALL SELECT id FROM packs WHERE ended_at IS NOT NULL AND settled_at IS NULL) AS moving,
      LATERAL (SELECT batch_id FROM pack_slices WHERE pack_id = moving.id OFFSET 0) AS slices
""")


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """One look: what may have changed, and from where the next one goes on."""

    #: Batches that may have changed since the look before; None: any may.
    batch_ids: tuple[str, ...] | None
    #: Transactions below this one were over.
    since: int
    moving: frozenset[str]


class ChangeCursor:
    """How far one reader has come."""

    def __init__(self) -> None:
        """Have seen nothing yet, so that the first look is at everything."""
        self._last: Look | None = None
        self._all_at = 0.0

    def look(self, connection: Connection) -> Look:
        """Return what may have changed. It is asked first: what is committed meanwhile is for the next look."""
        since: int = connection.execute(_NOW).scalar_one()
        moving = frozenset(connection.execute(_MOVING).scalars())
        if self._last is None or time.monotonic() > self._all_at + _LOOK_AT_ALL_SECONDS:
            return Look(batch_ids=None, since=since, moving=moving)
        changed = connection.execute(_CHANGED, {"since": self._last.since}).scalars()
        return Look(batch_ids=tuple(sorted(moving | self._last.moving | set(changed))), since=since, moving=moving)

    def saw(self, look: Look) -> None:
        """Go on from that look, what it showed having been read, or acted on and stored."""
        if look.batch_ids is None:
            self._all_at = time.monotonic()
        self._last = look
