"""Ends, in the store, what no longer lives: attempts whose lease ran out, workers that went silent.

Finding and acting are transactions of their own. Between the two the world moves on, so each act
looks again under the row's lock.
"""

from __future__ import annotations

from datetime import timedelta

from sqlalchemy import Connection, text

from pipeline.domain.ids import PackId, WorkerId
from pipeline.domain.lifecycle import AttemptOutcome, IntervalKind, WorkerEnd, WorkerState
from pipeline.domain.retry import Verdict
from pipeline.ports.packs import Interval
from storage.ledger import record_overhead
from storage.packs import finish_attempt
from storage.workers import enter_state

_EXPIRED = text("""
    SELECT id, lease_token FROM packs WHERE state = 'leased' AND lease_expires_at < clock_timestamp() ORDER BY id
""")

_STILL_EXPIRED = text("""
    SELECT 1 FROM packs WHERE id = :pack_id AND lease_token = :lease_token AND state = 'leased'
       AND lease_expires_at < clock_timestamp() FOR NO KEY UPDATE
""")

_SILENT = text("""
    SELECT id FROM workers
     -- One that was only asked for says nothing yet; how long it may take is the fleet's to say.
     WHERE state NOT IN ('stopped', 'lost', 'requested') AND heartbeat_at < clock_timestamp() - :silence ORDER BY id
""")

_HELD = text("""
    SELECT id, lease_token FROM packs WHERE state = 'leased' AND lease_worker_id = :worker_id
     ORDER BY id FOR NO KEY UPDATE
""")

_STILL_SILENT = text("""
    SELECT metered_until_us, uptime_us FROM workers
     WHERE id = :worker_id AND state NOT IN ('stopped', 'lost') AND heartbeat_at < clock_timestamp() - :silence
       FOR NO KEY UPDATE
""")


def expired_leases(connection: Connection) -> list[tuple[PackId, int]]:
    """Return the packs whose lease ran out, each with the token that did."""
    return [(PackId(row.id), row.lease_token) for row in connection.execute(_EXPIRED)]


def rescue_pack(connection: Connection, pack_id: PackId, lease_token: int) -> Verdict | None:
    """End the attempt as lost; None when its worker renewed or finished it after all."""
    lease = {"pack_id": pack_id, "lease_token": lease_token}
    if connection.execute(_STILL_EXPIRED, lease).one_or_none() is None:
        return None
    return _lose(connection, pack_id, lease_token)


def silent_workers(connection: Connection, silence: timedelta) -> list[WorkerId]:
    """Return live workers that gave no sign of life for `silence`."""
    return [WorkerId(worker_id) for worker_id in connection.execute(_SILENT, {"silence": silence}).scalars()]


def declare_lost(connection: Connection, worker_id: WorkerId, silence: timedelta) -> dict[PackId, Verdict]:
    """End the silent worker's attempts and close its books: the tail of its life is overhead `lost`."""
    # Packs before the worker: the lock order of every transaction.
    held = connection.execute(_HELD, {"worker_id": worker_id}).all()
    still = connection.execute(_STILL_SILENT, {"worker_id": worker_id, "silence": silence}).one_or_none()
    if still is None:
        return {}
    verdicts = {PackId(pack.id): _lose(connection, PackId(pack.id), pack.lease_token) for pack in held}
    if still.uptime_us > still.metered_until_us:
        tail = Interval(kind=IntervalKind.LOST, start_us=still.metered_until_us, stop_us=still.uptime_us)
        record_overhead(connection, worker_id, tail)
    enter_state(connection, worker_id, WorkerState.LOST, end=WorkerEnd.LOST)
    return verdicts


def _lose(connection: Connection, pack_id: PackId, lease_token: int) -> Verdict:
    return finish_attempt(connection, pack_id, lease_token, AttemptOutcome.LEASE_LOST, "the worker went silent")
