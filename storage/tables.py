"""The tables of the work itself: batches, shards, packs, attempts, parts, workers.

Invariants that must survive any bug above them are here as constraints; the triggers that no
constraint can express are in the migrations, beside a comment that says which and why.
"""

from __future__ import annotations

from datetime import date, datetime
from typing import Any

from sqlalchemy import (
    CheckConstraint,
    ForeignKey,
    ForeignKeyConstraint,
    Identity,
    Index,
    Integer,
    UniqueConstraint,
    func,
    text,
)
from sqlalchemy.dialects.postgresql import INT4MULTIRANGE, ExcludeConstraint
from sqlalchemy.orm import Mapped, mapped_column

from pipeline.domain.endpoints import Endpoint
from pipeline.domain.lifecycle import AttemptOutcome, BatchState, PackState, WorkerEnd, WorkerState
from pipeline.domain.promises import Promise
from pipeline.domain.reasons import Reason
from pipeline.domain.tiers import Tier
from pipeline.ports.meters import EnergySource
from storage.base import Base, one_of
from storage.tenant_tables import ApiKeyRow, FileRow, ProjectRow, TenantRow


class BatchRow(Base):
    """What a user submitted, and how far it got."""

    __tablename__ = "batches"
    id: Mapped[str] = mapped_column(primary_key=True)
    tenant_id: Mapped[str] = mapped_column(ForeignKey(TenantRow.id))
    project_id: Mapped[str]
    #: The key that it was submitted with; None: no key, but the command line beside the database.
    created_by: Mapped[str | None] = mapped_column(ForeignKey(ApiKeyRow.id))
    state: Mapped[str]
    reason: Mapped[str | None]
    reason_at: Mapped[datetime | None]
    endpoint: Mapped[str]
    completion_window: Mapped[str]
    tier: Mapped[str]
    budget_micros: Mapped[int | None]
    #: What is charged: millionths of the cost, or where tokens have prices, by these (10^-12 units a token).
    charge_multiplier_ppm: Mapped[int] = mapped_column(server_default="1000000")
    input_token_price_picos: Mapped[int | None]
    output_token_price_picos: Mapped[int | None]
    #: What the multiplier is the product of, in millionths by name; None: it was not worked out from a tariff.
    charge_factors: Mapped[dict[str, Any] | None]
    user_metadata: Mapped[dict[str, Any] | None] = mapped_column("metadata")
    #: What its cost is to be summed up by.
    labels: Mapped[dict[str, Any] | None]
    #: Among the batches of its tenant in its tier, the highest go first.
    priority: Mapped[int] = mapped_column(Integer, server_default="0")
    #: The batch whose rows without a success it runs again.
    retry_of: Mapped[str | None] = mapped_column(ForeignKey("batches.id"))
    #: How long its output and error files are kept; None: until they are deleted.
    output_kept_seconds: Mapped[int | None]
    #: A retried submit with the same key returns the batch it made before.
    idempotency_key: Mapped[str | None]
    #: As it was submitted; it need not name a file, and the batch fails if it does not.
    input_file_id: Mapped[str]
    #: The file that it names.
    source_file_id: Mapped[str | None]
    output_file_id: Mapped[str | None] = mapped_column(ForeignKey(FileRow.id))
    error_file_id: Mapped[str | None] = mapped_column(ForeignKey(FileRow.id))
    errors: Mapped[list[Any] | None]
    errors_total: Mapped[int] = mapped_column(server_default="0")
    #: Fencing token and holder of intake and finalizing.
    claim_token: Mapped[int] = mapped_column(server_default="0")
    claim_expires_at: Mapped[datetime | None]
    #: Tries in a row at what the batch waits for now that came to nothing, and what the last one said.
    claim_failures: Mapped[int] = mapped_column(Integer, server_default="0")
    claim_error: Mapped[str | None]
    refusals_key: Mapped[str | None]
    refusals_sha256: Mapped[str | None]
    rows_total: Mapped[int] = mapped_column(server_default="0")
    rows_duplicate: Mapped[int] = mapped_column(server_default="0")
    rows_refused: Mapped[int] = mapped_column(server_default="0")
    #: Lines of the output and the error file, once they are written.
    rows_completed: Mapped[int | None]
    rows_failed: Mapped[int | None]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    deadline_at: Mapped[datetime]
    #: Nothing is packed before this, unless waiting would risk the deadline.
    hold_until: Mapped[datetime | None]
    #: Since when the user has it paused.
    paused_at: Mapped[datetime | None]
    #: When the user last changed its terms.
    steered_at: Mapped[datetime | None]
    #: Whether the scheduler promised the deadline; asked once, and again when the terms change.
    promise: Mapped[str] = mapped_column(server_default="pending")
    #: It is to fail, and nothing of it to start, unless its deadline is promised.
    must_promise: Mapped[bool] = mapped_column(server_default="false")
    #: The transaction that changed it last; a trigger sets it.
    changed_by: Mapped[int] = mapped_column(server_default="0")
    in_progress_at: Mapped[datetime | None]
    finalizing_at: Mapped[datetime | None]
    completed_at: Mapped[datetime | None]
    failed_at: Mapped[datetime | None]
    expired_at: Mapped[datetime | None]
    cancelling_at: Mapped[datetime | None]
    cancelled_at: Mapped[datetime | None]
    __table_args__ = (
        ForeignKeyConstraint(["tenant_id", "project_id"], [ProjectRow.tenant_id, ProjectRow.id]),
        ForeignKeyConstraint(["tenant_id", "source_file_id"], [FileRow.tenant_id, FileRow.id]),
        UniqueConstraint("tenant_id", "idempotency_key"),
        one_of("state", BatchState),
        one_of("reason", Reason),
        one_of("tier", Tier),
        one_of("endpoint", Endpoint),
        one_of("promise", Promise),
        CheckConstraint("budget_micros > 0", name="budget"),
        CheckConstraint(
            "least(charge_multiplier_ppm, input_token_price_picos, output_token_price_picos) >= 0"
            " AND (input_token_price_picos IS NULL) = (output_token_price_picos IS NULL)",
            name="charge",
        ),
        CheckConstraint("priority BETWEEN -100 AND 100", name="priority"),
        CheckConstraint("output_kept_seconds > 0", name="output_kept"),
        CheckConstraint("rows_duplicate + rows_refused <= rows_total", name="rows"),
        CheckConstraint("deadline_at > created_at", name="deadline"),
        # A batch that ends with files accounts for every row of its input; a count that is missing does not pass.
        CheckConstraint(
            "state NOT IN ('completed', 'expired') OR (rows_completed + rows_failed = rows_total) IS TRUE",
            name="every_row",
        ),
        CheckConstraint("state <> 'failed' OR errors IS NOT NULL", name="failure_explained"),
        *(
            CheckConstraint(f"state <> '{state}' OR {state}_at IS NOT NULL", name=f"{state}_at")
            for state in BatchState
            if state is not BatchState.VALIDATING
        ),
        Index("ix_batches_listing", text("created_at DESC"), text("id DESC")),
        Index("ix_batches_listing_by_state", "state", text("created_at DESC"), text("id DESC")),
        Index("ix_batches_of_tenant", "tenant_id", text("created_at DESC"), text("id DESC")),
        Index(
            "ix_batches_live_of_tenant",
            "tenant_id",
            postgresql_where=text("state IN ('validating', 'in_progress', 'finalizing', 'cancelling')"),
        ),
        # The condition holds always, and lets only statements use it that name a tenant: others would skip through it.
        Index(
            "ix_batches_of_tenant_by_state",
            "tenant_id",
            "state",
            text("created_at DESC"),
            text("id DESC"),
            postgresql_where=text("tenant_id IS NOT NULL"),
        ),
        Index("ix_batches_retry_of", "retry_of", postgresql_where=text("retry_of IS NOT NULL")),
        Index("ix_batches_source_file_id", "source_file_id"),
        Index("ix_batches_changed_by", "changed_by"),
        Index("ix_batches_paused", "id", postgresql_where=text("paused_at IS NOT NULL AND state = 'in_progress'")),
        Index(
            "ix_batches_live",
            "state",
            "deadline_at",
            postgresql_where=text("state IN ('validating', 'in_progress', 'finalizing', 'cancelling')"),
        ),
    )


class RosterRow(Base):
    """One roster object of a batch."""

    __tablename__ = "rosters"
    batch_id: Mapped[str] = mapped_column(ForeignKey(BatchRow.id), primary_key=True)
    roster_no: Mapped[int] = mapped_column(Integer, primary_key=True)
    object_key: Mapped[str] = mapped_column(unique=True)
    sha256: Mapped[str]
    rows: Mapped[int] = mapped_column(Integer)


class ShardRow(Base):
    """A slice of a batch's distinct requests, and how far it got."""

    __tablename__ = "shards"
    id: Mapped[int] = mapped_column(Identity(), primary_key=True)
    batch_id: Mapped[str] = mapped_column(ForeignKey(BatchRow.id))
    shard_no: Mapped[int] = mapped_column(Integer)
    model: Mapped[str]
    object_key: Mapped[str] = mapped_column(unique=True)
    sha256: Mapped[str]
    size_bytes: Mapped[int]
    rows_total: Mapped[int] = mapped_column(Integer)
    #: Rows before this position are in packs.
    rows_packed: Mapped[int] = mapped_column(Integer, server_default="0")
    rows_succeeded: Mapped[int] = mapped_column(Integer, server_default="0")
    rows_errored: Mapped[int] = mapped_column(Integer, server_default="0")
    input_tokens_estimated: Mapped[int]
    output_tokens_estimated: Mapped[int]
    #: Tells the beginning that all its prompts share; 0 where they share none.
    template: Mapped[int] = mapped_column(server_default="0")
    __table_args__ = (
        UniqueConstraint("batch_id", "shard_no"),
        CheckConstraint("rows_total > 0", name="not_empty"),
        CheckConstraint("rows_packed BETWEEN 0 AND rows_total", name="packed"),
        CheckConstraint("rows_succeeded >= 0 AND rows_errored >= 0", name="counts"),
        CheckConstraint("rows_succeeded + rows_errored <= rows_packed", name="done"),
        Index("ix_shards_unpacked", "batch_id", "shard_no", postgresql_where=text("rows_packed < rows_total")),
        Index("ix_shards_undone", "batch_id", postgresql_where=text("rows_succeeded + rows_errored < rows_total")),
    )


class WorkerRow(Base):
    """One worker process; its clock counts microseconds since it started."""

    __tablename__ = "workers"
    id: Mapped[str] = mapped_column(primary_key=True)
    pool: Mapped[str]
    market: Mapped[str]
    host: Mapped[str]
    pid: Mapped[int] = mapped_column(Integer)
    state: Mapped[str]
    #: The variants it serves, each with its gate key.
    variants: Mapped[dict[str, Any]]
    #: What an hour of it really costs; spans of its life are priced at this.
    rate_micros_per_hour: Mapped[int]
    list_rate_micros_per_hour: Mapped[int]
    contracted_rate_micros_per_hour: Mapped[int]
    billed_rate_micros_per_hour: Mapped[int]
    on_demand_rate_micros_per_hour: Mapped[int]
    currency: Mapped[str]
    provider: Mapped[str | None]
    instance_type: Mapped[str | None]
    region: Mapped[str | None]
    zone: Mapped[str | None]
    #: The machine, as its provider bills it.
    provider_id: Mapped[str | None]
    started_at: Mapped[datetime] = mapped_column(server_default=func.now())
    heartbeat_at: Mapped[datetime] = mapped_column(server_default=func.now())
    #: Life reported by the last heartbeat, and life accounted for in intervals.
    uptime_us: Mapped[int] = mapped_column(server_default="0")
    metered_until_us: Mapped[int] = mapped_column(server_default="0")
    must_stop: Mapped[bool] = mapped_column(server_default="false")
    ended_at: Mapped[datetime | None]
    #: Who ended it; a provider may bill by it.
    end_cause: Mapped[str | None]
    __table_args__ = (
        one_of("state", WorkerState),
        one_of("end_cause", WorkerEnd),
        CheckConstraint("(end_cause IS NOT NULL) = (ended_at IS NOT NULL)", name="ended_by"),
        CheckConstraint(
            "least(list_rate_micros_per_hour, contracted_rate_micros_per_hour, billed_rate_micros_per_hour,"
            " on_demand_rate_micros_per_hour) >= 0",
            name="rates",
        ),
        CheckConstraint("market IN ('spot', 'on_demand')", name="market"),
        CheckConstraint("rate_micros_per_hour >= 0", name="rate"),
        CheckConstraint("(state IN ('stopped', 'lost')) = (ended_at IS NOT NULL)", name="ended"),
        Index("ix_workers_live", "pool", postgresql_where=text("state NOT IN ('stopped', 'lost')")),
        Index("ix_workers_provider_id", "provider_id", postgresql_where=text("provider_id IS NOT NULL")),
    )


class PackRow(Base):
    """What the scheduler built and one worker at a time leases."""

    __tablename__ = "packs"
    id: Mapped[str] = mapped_column(primary_key=True)
    pool: Mapped[str]
    model: Mapped[str]
    endpoint: Mapped[str]
    tier: Mapped[str]
    state: Mapped[str]
    #: What runs it; a variant of the model.
    variant: Mapped[str]
    #: Workers lease the lowest first.
    ordinal: Mapped[float]
    predicted_seconds: Mapped[float]
    lease_token: Mapped[int] = mapped_column(server_default="0")
    lease_worker_id: Mapped[str | None] = mapped_column(ForeignKey(WorkerRow.id))
    lease_expires_at: Mapped[datetime | None]
    available_at: Mapped[datetime] = mapped_column(server_default=func.now())
    failures: Mapped[int] = mapped_column(Integer, server_default="0")
    #: Failed attempts that asked for one row only: what convicts a row.
    lone_failures: Mapped[int] = mapped_column(Integer, server_default="0")
    #: Attempts that found a shard missing or damaged.
    unreads: Mapped[int] = mapped_column(Integer, server_default="0")
    #: Made by bisection: its rows have failed together before.
    is_suspect: Mapped[bool] = mapped_column(server_default="false")
    #: Its single row brought every attempt down, or its shard is lost; the convictor errors what is left.
    is_convicted: Mapped[bool] = mapped_column(server_default="false")
    last_error: Mapped[str | None]
    parent_id: Mapped[str | None] = mapped_column(ForeignKey("nightrate.packs.id"))
    #: First day of the month (UTC) whose budgets it was planned on, and what it is charged counts in.
    month: Mapped[date] = mapped_column(
        server_default=text("CAST(date_trunc('month', clock_timestamp() AT TIME ZONE 'UTC') AS date)")
    )
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    hinted_at: Mapped[datetime | None]
    leased_at: Mapped[datetime | None]
    ended_at: Mapped[datetime | None]
    #: When a cycle learned what it took.
    settled_at: Mapped[datetime | None]
    #: What its worker's time is split by among its batches: see `pipeline.domain.shares`.
    row_picoseconds: Mapped[int] = mapped_column(server_default="0")
    input_token_picoseconds: Mapped[int] = mapped_column(server_default="1")
    output_token_picoseconds: Mapped[int] = mapped_column(server_default="1")
    __table_args__ = (
        one_of("state", PackState),
        one_of("tier", Tier),
        one_of("endpoint", Endpoint),
        CheckConstraint("variant = model OR starts_with(variant, model || '@')", name="variant"),
        CheckConstraint("(state = 'leased') = (lease_expires_at IS NOT NULL)", name="lease"),
        CheckConstraint("(state IN ('committed', 'discarded')) = (ended_at IS NOT NULL)", name="ended"),
        CheckConstraint(
            "least(row_picoseconds, input_token_picoseconds, output_token_picoseconds) >= 0"
            " AND greatest(row_picoseconds, input_token_picoseconds, output_token_picoseconds) > 0",
            name="unit_costs",
        ),
        Index(
            "ix_packs_waiting",
            "pool",
            "ordinal",
            "id",
            # Convicted ones too: they are few and soon gone, and what looks for withdrawn packs needs them.
            postgresql_where=text("state IN ('ready', 'retryable')"),
        ),
        Index("ix_packs_ordinal", "ordinal"),
        Index("ix_packs_unsettled", "ended_at", postgresql_where=text("ended_at IS NOT NULL AND settled_at IS NULL")),
        Index("ix_packs_leased", "lease_expires_at", postgresql_where=text("state = 'leased'")),
        Index("ix_packs_lease_worker", "lease_worker_id", postgresql_where=text("state = 'leased'")),
        Index("ix_packs_convicted", "id", postgresql_where=text("is_convicted AND state IN ('ready', 'retryable')")),
    )


class SliceRow(Base):
    """Which rows of which shard a pack holds; no row is in two packs."""

    __tablename__ = "pack_slices"
    id: Mapped[int] = mapped_column(Identity(), primary_key=True)
    pack_id: Mapped[str] = mapped_column(ForeignKey(PackRow.id))
    batch_id: Mapped[str] = mapped_column(ForeignKey(BatchRow.id))
    shard_id: Mapped[int] = mapped_column(ForeignKey(ShardRow.id))
    rows: Mapped[Any] = mapped_column(INT4MULTIRANGE)
    #: What the batch was charged for them in the fair queue.
    predicted_seconds: Mapped[float] = mapped_column(server_default="0")
    #: What they may cost it, at most; kept of its budget until the pack has ended.
    reserved_micros: Mapped[int] = mapped_column(server_default="0")
    __table_args__ = (
        ExcludeConstraint(("shard_id", "="), ("rows", "&&"), using="gist", name="ex_pack_slices_row_in_one_pack"),
        CheckConstraint("NOT isempty(rows)", name="not_empty"),
        CheckConstraint("predicted_seconds >= 0", name="predicted"),
        CheckConstraint("reserved_micros >= 0", name="reserved"),
        Index("ix_pack_slices_pack_id", "pack_id"),
        Index("ix_pack_slices_batch_id", "batch_id"),
    )


class AttemptRow(Base):
    """One lease's run of one pack."""

    __tablename__ = "attempts"
    pack_id: Mapped[str] = mapped_column(ForeignKey(PackRow.id), primary_key=True)
    lease_token: Mapped[int] = mapped_column(primary_key=True)
    #: None: the scheduler itself, convicting a poison request.
    worker_id: Mapped[str | None] = mapped_column(ForeignKey(WorkerRow.id))
    started_at: Mapped[datetime] = mapped_column(server_default=func.clock_timestamp())
    ended_at: Mapped[datetime | None]
    outcome: Mapped[str | None]
    error: Mapped[str | None]
    #: Rows the lease asked for.
    rows_asked: Mapped[int] = mapped_column(Integer)
    #: What ran, and what it used (see `pipeline.ports.meters`): written when the attempt has ended, NULL where
    #: nothing measured it.
    engine: Mapped[str | None]
    engine_version: Mapped[str | None]
    fingerprint: Mapped[str | None]
    device: Mapped[str | None]
    engine_steps: Mapped[int | None]
    slot_steps_busy: Mapped[int | None]
    slot_steps: Mapped[int | None]
    tokens_prefilled: Mapped[int | None]
    tokens_cached: Mapped[int | None]
    tokens_generated: Mapped[int | None]
    tokens_padding: Mapped[int | None]
    engine_us: Mapped[int | None]
    bubble_us: Mapped[int | None]
    cpu_us: Mapped[int | None]
    memory_peak_bytes: Mapped[int | None]
    device_memory_max_bytes: Mapped[int | None]
    energy_millijoules: Mapped[int | None]
    energy_source: Mapped[str | None]
    device_utilisation_mean_percent: Mapped[int | None] = mapped_column(Integer)
    device_utilisation_max_percent: Mapped[int | None] = mapped_column(Integer)
    device_power_mean_milliwatts: Mapped[int | None] = mapped_column(Integer)
    device_power_max_milliwatts: Mapped[int | None] = mapped_column(Integer)
    device_temperature_mean_celsius: Mapped[int | None] = mapped_column(Integer)
    device_temperature_max_celsius: Mapped[int | None] = mapped_column(Integer)
    __table_args__ = (
        one_of("outcome", AttemptOutcome),
        one_of("energy_source", EnergySource),
        CheckConstraint("(energy_source IS NULL) = (energy_millijoules IS NULL)", name="energy"),
        # `least` passes over what is NULL.
        CheckConstraint(
            "least(engine_steps, slot_steps_busy, slot_steps, tokens_prefilled, tokens_cached, tokens_generated, tokens_padding, "
            "engine_us, bubble_us, cpu_us, memory_peak_bytes, device_memory_max_bytes, energy_millijoules, "
            "device_utilisation_mean_percent, device_utilisation_max_percent, "
            "device_power_mean_milliwatts, device_power_max_milliwatts) >= 0",
            name="meters",
        ),
        CheckConstraint("rows_asked > 0", name="not_empty"),
        CheckConstraint("(outcome IS NULL) = (ended_at IS NULL)", name="ended"),
        # One open attempt a pack: a second lease without an end of the first is a bug.
        Index("uq_attempts_open", "pack_id", unique=True, postgresql_where=text("outcome IS NULL")),
    )


class PartRow(Base):
    """Results that one attempt committed at once, for rows of one batch."""

    __tablename__ = "parts"
    id: Mapped[str] = mapped_column(primary_key=True)
    batch_id: Mapped[str] = mapped_column(ForeignKey(BatchRow.id))
    pack_id: Mapped[str]
    lease_token: Mapped[int]
    object_key: Mapped[str] = mapped_column(unique=True)
    sha256: Mapped[str]
    size_bytes: Mapped[int]
    rows_succeeded: Mapped[int] = mapped_column(Integer)
    rows_errored: Mapped[int] = mapped_column(Integer)
    input_tokens: Mapped[int]
    output_tokens: Mapped[int]
    committed_at: Mapped[datetime] = mapped_column(server_default=func.clock_timestamp())
    __table_args__ = (
        ForeignKeyConstraint(["pack_id", "lease_token"], [AttemptRow.pack_id, AttemptRow.lease_token]),
        CheckConstraint("rows_succeeded + rows_errored > 0", name="not_empty"),
        CheckConstraint("input_tokens >= 0 AND output_tokens >= 0", name="tokens"),
        Index("ix_parts_batch_id", "batch_id"),
        Index("ix_parts_pack_id", "pack_id"),
    )


class PartSliceRow(Base):
    """Which rows of which shard a part holds; no row has two results."""

    __tablename__ = "part_slices"
    part_id: Mapped[str] = mapped_column(ForeignKey(PartRow.id), primary_key=True)
    shard_id: Mapped[int] = mapped_column(ForeignKey(ShardRow.id), primary_key=True)
    rows: Mapped[Any] = mapped_column(INT4MULTIRANGE)
    #: What the rows took, and how long their answers are (see `pipeline.domain.sketches`).
    input_tokens: Mapped[int] = mapped_column(server_default="0")
    output_tokens: Mapped[int] = mapped_column(server_default="0")
    output_lengths: Mapped[dict[str, Any]] = mapped_column(server_default="{}")
    __table_args__ = (
        ExcludeConstraint(("shard_id", "="), ("rows", "&&"), using="gist", name="ex_part_slices_one_result_a_row"),
        CheckConstraint("NOT isempty(rows)", name="not_empty"),
        CheckConstraint("input_tokens >= 0 AND output_tokens >= 0", name="tokens"),
    )
