"""Workers in Postgres: registration, heartbeats, states, and the meter of their life."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta

import orjson
from sqlalchemy import Connection, text

from pipeline.domain.costs.amounts import COST_NAMES
from pipeline.domain.costs.prices import Market
from pipeline.domain.costs.rate_card import Offer
from pipeline.domain.errors import ConflictError, LeaseLostError
from pipeline.domain.ids import BatchId, PackId, WorkerId
from pipeline.domain.lifecycle import WORKER_EDGES, WorkerEnd, WorkerState, sources
from pipeline.ports.packs import Interval, Renewal, WorkerRegistration
from storage.database import Database
from storage.ledger import record_overhead
from storage.wakeups import send_wakeup

_REGISTER = text("""
    INSERT INTO workers (id, pool, market, host, pid, state, variants, rate_micros_per_hour, list_rate_micros_per_hour,
                         contracted_rate_micros_per_hour, billed_rate_micros_per_hour, on_demand_rate_micros_per_hour,
                         currency, provider, instance_type, region, zone, provider_id)
    VALUES (:worker_id, :pool, :market, :host, :pid, 'booting', CAST(:variants AS jsonb), :effective_micros, :list_micros,
            :contracted_micros, :billed_micros, :on_demand_micros, :currency, :provider, :instance_type, :region, :zone, :provider_id)
    -- One whose machine the fleet started is here already, and costs since its launch what it cost then.
    ON CONFLICT (id) DO UPDATE SET host = excluded.host, pid = excluded.pid, variants = excluded.variants, state = 'booting',
           heartbeat_at = clock_timestamp()
     WHERE workers.state IN ('requested', 'booting')
    RETURNING greatest(CAST(extract(epoch FROM clock_timestamp() - started_at) * 1000000 AS bigint), 0) AS age_us
""")

_BEAT = text("""
    UPDATE workers SET heartbeat_at = clock_timestamp(), uptime_us = greatest(uptime_us, :uptime_us)
     WHERE id = :worker_id AND state NOT IN ('stopped', 'lost')
    RETURNING must_stop
""")

_RENEW = text("""
    UPDATE packs SET lease_expires_at = clock_timestamp() + :lease_for
      FROM unnest(CAST(:pack_ids AS text[]), CAST(:tokens AS bigint[])) AS held (pack_id, lease_token)
     WHERE packs.id = held.pack_id AND packs.lease_token = held.lease_token AND packs.state = 'leased'
       -- A worker declared lost stays lost; its packs are with others by now.
       AND EXISTS (SELECT FROM workers WHERE workers.id = :worker_id AND workers.state NOT IN ('stopped', 'lost'))
    RETURNING packs.id
""")

_WITHDRAWN = text("""
    SELECT DISTINCT slices.batch_id FROM pack_slices AS slices JOIN batches ON batches.id = slices.batch_id
     WHERE slices.pack_id = ANY(:pack_ids) AND batches.state <> 'in_progress'
""")

_ENTER = text("""
    UPDATE workers SET state = :state, ended_at = CASE WHEN :is_end THEN clock_timestamp() END,
           end_cause = CAST(:end_cause AS text)
     WHERE id = :worker_id AND state = ANY(:sources)
""")

_COVERED = text("""
    SELECT provider, instance_type, region FROM workers
     WHERE state NOT IN ('stopped', 'lost') AND market = 'on_demand' AND instance_type IS NOT NULL
       AND billed_rate_micros_per_hour = 0 AND rate_micros_per_hour > 0
""")

_PROVE_ALIVE = text("""
    UPDATE workers SET heartbeat_at = clock_timestamp()
     WHERE id = :worker_id AND state NOT IN ('draining', 'stopped', 'lost')
""")


class WorkerRepository:
    """`WorkerStore` on Postgres."""

    def __init__(self, database: Database, *, lease_for: timedelta) -> None:
        """Extend leases by `lease_for`; a worker silent for as long is lost."""
        self._database = database
        self._lease_for = lease_for

    def register(self, registration: WorkerRegistration) -> int:
        """Record a worker that has just started, and return for how many microseconds its machine has been paid already.

        Repeating it changes nothing. Raises `ConflictError` where the worker was given up before it appeared.
        """
        arguments = {
            "worker_id": registration.worker_id,
            "pool": registration.pool,
            "market": registration.market,
            "host": registration.host,
            "pid": registration.pid,
            "variants": orjson.dumps(dict(registration.variants)).decode(),
            **{name: getattr(registration.hourly, name) for name in COST_NAMES},
            "currency": registration.currency,
            "provider": registration.provider,
            "instance_type": registration.instance_type,
            "region": registration.region,
            "zone": registration.zone,
            "provider_id": registration.provider_id,
        }

        def work(connection: Connection) -> int:
            age_us = connection.execute(_REGISTER, arguments).scalar_one_or_none()
            if age_us is None:
                raise ConflictError(
                    f"worker {registration.worker_id} was given up before it appeared, or has run already"
                )
            send_wakeup(connection)
            return int(age_us)

        return self._database.run(work)

    def serve(self, worker_id: WorkerId, variants: Mapping[str, str]) -> None:
        """Record which variants the worker serves from now on."""
        statement = text("UPDATE workers SET variants = CAST(:variants AS jsonb) WHERE id = :worker_id")
        arguments = {"worker_id": worker_id, "variants": orjson.dumps(dict(variants)).decode()}

        def work(connection: Connection) -> None:
            connection.execute(statement, arguments)
            send_wakeup(connection)

        self._database.run(work)

    def renew(self, worker_id: WorkerId, leases: Mapping[PackId, int], *, uptime_us: int) -> Renewal:
        """Prove the worker alive and extend its leases (pack → token)."""

        def work(connection: Connection) -> Renewal:
            # Packs before the worker: the lock order of every transaction.
            kept = self._renew_packs(connection, worker_id, leases)
            withdrawn = connection.execute(_WITHDRAWN, {"pack_ids": list(leases)}).scalars() if leases else ()
            beat = connection.execute(_BEAT, {"worker_id": worker_id, "uptime_us": uptime_us}).one_or_none()
            return Renewal(
                lost=frozenset(leases) - kept,
                withdrawn=frozenset(BatchId(batch_id) for batch_id in withdrawn),
                must_stop=beat is None or beat.must_stop,
            )

        return self._database.run(work)

    def _renew_packs(
        self, connection: Connection, worker_id: WorkerId, leases: Mapping[PackId, int]
    ) -> frozenset[PackId]:
        if not leases:
            return frozenset()
        arguments = {
            "worker_id": worker_id,
            "lease_for": self._lease_for,
            "pack_ids": list(leases),
            "tokens": list(leases.values()),
        }
        return frozenset(PackId(pack_id) for pack_id in connection.execute(_RENEW, arguments).scalars())

    def meter(self, worker_id: WorkerId, interval: Interval) -> None:
        """Record a span that no batch pays for; repeating it changes nothing."""
        self._database.run(lambda connection: record_overhead(connection, worker_id, interval))

    def enter(self, worker_id: WorkerId, state: WorkerState, *, end: WorkerEnd = WorkerEnd.STOPPED) -> None:
        """Move the worker along its states, where that ends it by `end`; one already declared lost stays lost."""
        self._database.run(lambda connection: enter_state(connection, worker_id, state, end=end))

    def tell_to_stop(self, pool: str | None = None) -> int:
        """Ask live workers (of one pool) to drain at their next heartbeat; return how many."""
        statement = text("""
            UPDATE workers SET must_stop = true
             WHERE state NOT IN ('stopped', 'lost') AND (CAST(:pool AS text) IS NULL OR pool = :pool)
        """)
        return self._database.run(lambda connection: connection.execute(statement, {"pool": pool}).rowcount)


def covered_workers(database: Database) -> list[Offer]:
    """Return what the live workers run on whose use a commitment covers: it costs something and is not billed."""
    rows = database.run(lambda connection: connection.execute(_COVERED).all())
    return [
        Offer(market=Market.ON_DEMAND, provider=row.provider, instance_type=row.instance_type, region=row.region)
        for row in rows
    ]


def prove_alive(connection: Connection, worker_id: WorkerId) -> None:
    """Take the worker's call as a sign of life; raises `LeaseLostError` when it may start nothing new.

    A lease taken between two heartbeats would else outlive a worker declared lost meanwhile.
    """
    if not connection.execute(_PROVE_ALIVE, {"worker_id": worker_id}).rowcount:
        raise LeaseLostError(f"worker {worker_id} is draining, has ended, or was never registered")


def enter_state(connection: Connection, worker_id: WorkerId, state: WorkerState, *, end: WorkerEnd) -> None:
    """Move the worker to `state` if an edge leads there from where it is."""
    arguments = {
        "worker_id": worker_id,
        "state": state,
        "is_end": state.is_terminal,
        "end_cause": end if state.is_terminal else None,
        "sources": list(sources(WORKER_EDGES, state)),
    }
    connection.execute(_ENTER, arguments)
