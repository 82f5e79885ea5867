"""What attempts used: written as they end, read as what a batch took."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from sqlalchemy import Connection, text

from pipeline.domain.ids import BatchId, PackId
from pipeline.ports.meters import AttemptMeters, BatchMeters
from storage.database import Database
from storage.reuse import credit_reuse

_RECORD = text("""
    UPDATE attempts
       SET engine = :engine, engine_version = :engine_version, fingerprint = :fingerprint, device = :device,
           engine_steps = :engine_steps, slot_steps_busy = :slot_steps_busy, slot_steps = :slot_steps,
           tokens_prefilled = :tokens_prefilled, tokens_cached = :tokens_cached,
           tokens_generated = :tokens_generated, tokens_padding = :tokens_padding,
           engine_us = :engine_us, bubble_us = :bubble_us, cpu_us = :cpu_us,
           memory_peak_bytes = :memory_peak_bytes, device_memory_max_bytes = :device_memory_max_bytes,
           energy_millijoules = :energy_millijoules, energy_source = :energy_source,
           device_utilisation_mean_percent = :device_utilisation_mean_percent,
           device_utilisation_max_percent = :device_utilisation_max_percent,
           device_power_mean_milliwatts = :device_power_mean_milliwatts,
           device_power_max_milliwatts = :device_power_max_milliwatts,
           device_temperature_mean_celsius = :device_temperature_mean_celsius,
           device_temperature_max_celsius = :device_temperature_max_celsius
     WHERE pack_id = :pack_id AND lease_token = :lease_token
""")

_OF_BATCH = text("""
    -- A pack may hold rows of several batches. What its attempt used is shared by the rule that its price is
    -- (pipeline.domain.shares); attempts that committed nothing of the batch are not among them.
    WITH work AS (
        SELECT parts.pack_id, parts.lease_token, batch_id, input_tokens + output_tokens AS tokens,
               rows_succeeded + rows_errored AS row_count,
               row_picoseconds::numeric * (rows_succeeded + rows_errored)
               + input_token_picoseconds::numeric * input_tokens
               + output_token_picoseconds::numeric * output_tokens AS weight
          FROM parts JOIN packs ON packs.id = parts.pack_id),
    shared AS (
        SELECT attempts.*, sum(tokens) FILTER (WHERE batch_id = :batch_id) AS own_tokens,
               sum(weight) FILTER (WHERE batch_id = :batch_id) AS own_weight, sum(weight) AS all_weight,
               sum(row_count) FILTER (WHERE batch_id = :batch_id) AS own_rows, sum(row_count) AS all_rows
          FROM attempts JOIN work USING (pack_id, lease_token)
         WHERE (pack_id, lease_token) IN (SELECT pack_id, lease_token FROM parts WHERE batch_id = :batch_id)
           AND attempts.bubble_us IS NOT NULL
         GROUP BY attempts.pack_id, attempts.lease_token),
    weighted AS (
        SELECT *, coalesce(own_weight / nullif(all_weight, 0), own_rows / nullif(all_rows, 0), 1) AS share FROM shared)
    SELECT count(*) AS attempts,
           array_agg(DISTINCT fingerprint ORDER BY fingerprint) FILTER (WHERE fingerprint IS NOT NULL) AS fingerprints,
           array_agg(DISTINCT energy_source) FILTER (WHERE energy_source IS NOT NULL) AS energy_sources,
           sum(own_tokens)::bigint AS tokens,
           round(sum(engine_us * share))::bigint AS engine_us, round(sum(bubble_us * share))::bigint AS bubble_us,
           round(sum(cpu_us * share))::bigint AS cpu_us, round(sum(engine_steps * share))::bigint AS engine_steps,
           round(sum(slot_steps_busy * share))::bigint AS slot_steps_busy,
           round(sum(slot_steps * share))::bigint AS slot_steps,
           round(sum(tokens_prefilled * share))::bigint AS tokens_prefilled,
           round(sum(tokens_cached * share))::bigint AS tokens_cached,
           round(sum(tokens_generated * share))::bigint AS tokens_generated,
           round(sum(tokens_padding * share))::bigint AS tokens_padding,
           max(memory_peak_bytes) AS memory_peak_bytes,
           -- A sum that misses some attempts would pass for the whole.
           CASE WHEN count(*) = count(energy_millijoules)
                THEN round(sum(energy_millijoules * share))::bigint END AS energy_millijoules
      FROM weighted
""")


class MeterRepository:
    """Reads what attempts used; writes nothing."""

    def __init__(self, database: Database) -> None:
        """Read from `database`."""
        self._database = database

    def batch_meters(self, batch_id: BatchId) -> BatchMeters:
        """Return what the batch took so far; no attempts for one that never ran."""
        row = self._database.run(lambda connection: connection.execute(_OF_BATCH, {"batch_id": batch_id}).one())
        found: dict[str, Any] = dict(row._mapping)  # noqa: SLF001 -- SQLAlchemy's documented access
        for name in ("fingerprints", "energy_sources"):
            found[name] = tuple(found[name] or ())
        return BatchMeters(**found | {"tokens": found["tokens"] or 0})


def record_meters(connection: Connection, pack_id: PackId, lease_token: int, meters: AttemptMeters) -> None:
    """Write what an attempt used, and the credit of what it reused; the same again changes nothing."""
    identity = meters.identity
    figures = asdict(meters)
    del figures["identity"]
    named = {
        "pack_id": pack_id,
        "lease_token": lease_token,
        "engine": identity and identity.engine,
        "engine_version": identity and (identity.version or None),
        "fingerprint": identity and identity.fingerprint,
        "device": identity and identity.device,
    }
    connection.execute(_RECORD, named | figures)
    if meters.tokens_cached:
        credit_reuse(connection, pack_id, lease_token, meters.tokens_cached)
