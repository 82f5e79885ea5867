from __future__ import annotations

import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from enum import StrEnum

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Connection, create_engine, pool, text

from pipeline.domain.audit import AuditAction
from pipeline.domain.costs.budgets import BudgetMark, BudgetPeriod
from pipeline.domain.costs.prices import Market, PriceSource, PriceUnit
from pipeline.domain.costs.transactions import CostCategory, TransactionKind
from pipeline.domain.endpoints import Endpoint
from pipeline.domain.files import FilePurpose
from pipeline.domain.gates import GateVerdict
from pipeline.domain.lifecycle import (
    AttemptOutcome,
    BatchState,
    IntervalKind,
    PackState,
    RentalState,
    WorkerEnd,
    WorkerState,
)
from pipeline.domain.models import DeviceClass, EngineKind, Recipe
from pipeline.domain.promises import Promise
from pipeline.domain.reasons import Reason
from pipeline.domain.recurring import CatchUp, FiringOutcome, Overlap
from pipeline.domain.shadow import SampleState
from pipeline.domain.shares import SplitRule
from pipeline.domain.tiers import Tier
from pipeline.domain.uploads import UploadStatus
from pipeline.domain.webhooks import DisabledReason, EventType
from pipeline.ports.cycle import LearnedKind
from pipeline.ports.fleet import FleetReason, RefusalKind
from pipeline.ports.meters import EnergySource
from storage import cost_tables, egress_tables, price_tables, quota_tables  # noqa: F401 -- importing declares
from storage.audit_tables import AuditRow
from storage.base import SCHEMA
from storage.budget_tables import BudgetRow
from storage.fleet_tables import RentalRow
from storage.migrations import upgrade, versions
from storage.recurring_tables import FiringRow
from storage.settlement_tables import InvoiceRow
from storage.upload_tables import UploadRow
from storage.webhook_tables import WebhookRow
from tests.services import fresh_database

#: Importing the last of the tables' modules brings all that it refers to.
TABLES = FiringRow.metadata
assert UploadRow.metadata is TABLES
assert AuditRow.metadata is TABLES
assert WebhookRow.metadata is TABLES
assert InvoiceRow.metadata is TABLES
assert BudgetRow.metadata is TABLES
assert RentalRow.metadata is TABLES

ENUMS: dict[str, type[StrEnum]] = {
    "ck_attempts_energy_source": EnergySource,
    "ck_attempts_outcome": AttemptOutcome,
    "ck_audit_log_action": AuditAction,
    "ck_batches_endpoint": Endpoint,
    "ck_batches_promise": Promise,
    "ck_batches_reason": Reason,
    "ck_batches_state": BatchState,
    "ck_batches_tier": Tier,
    "ck_budget_notices_mark": BudgetMark,
    "ck_budgets_period": BudgetPeriod,
    "ck_decisions_reason": Reason,
    "ck_files_purpose": FilePurpose,
    "ck_firings_outcome": FiringOutcome,
    "ck_transactions_category": CostCategory,
    "ck_transactions_kind": TransactionKind,
    "ck_packs_endpoint": Endpoint,
    "ck_packs_state": PackState,
    "ck_packs_tier": Tier,
    "ck_predictions_kind": LearnedKind,
    "ck_price_refreshes_market": Market,
    "ck_prices_market": Market,
    "ck_prices_source": PriceSource,
    "ck_prices_unit": PriceUnit,
    "ck_qualifications_tier": Tier,
    "ck_qualifications_verdict": GateVerdict,
    "ck_shadow_samples_state": SampleState,
    "ck_pools_wanted_reason": FleetReason,
    "ck_recurring_catch_up": CatchUp,
    "ck_recurring_endpoint": Endpoint,
    "ck_recurring_overlap": Overlap,
    "ck_recurring_tier": Tier,
    "ck_rentals_reason": FleetReason,
    "ck_rentals_refusal": RefusalKind,
    "ck_rentals_state": RentalState,
    "ck_rentals_stop_reason": FleetReason,
    "ck_uploads_purpose": FilePurpose,
    "ck_uploads_status": UploadStatus,
    "ck_variants_device": DeviceClass,
    "ck_variants_engine": EngineKind,
    "ck_variants_recipe": Recipe,
    "ck_watches_tier": Tier,
    "ck_webhook_events_type": EventType,
    "ck_webhooks_disabled_reason": DisabledReason,
    "ck_worker_intervals_kind": IntervalKind,
    "ck_worker_intervals_split_rule": SplitRule,
    "ck_workers_end_cause": WorkerEnd,
    "ck_workers_state": WorkerState,
}


@pytest.fixture(scope="module")
def migrated(template_url: str) -> Iterator[Connection]:
    with fresh_database(template_url) as url:
        # The test server's user is named like the schema, which would make it the schema of its sessions.
        options = {"options": "-c search_path=public"}
        engine = create_engine(url, poolclass=pool.NullPool, connect_args=options)
        with engine.connect() as connection:
            yield connection
        engine.dispose()


def test_four_that_upgrade_an_empty_database_at_once_all_succeed(postgres_url: str) -> None:
    with fresh_database(postgres_url, template="template0") as url:
        assert versions(url)[0] is None
        # As people write it: the driver is ours to add.
        written = url.replace("postgresql+psycopg://", "postgresql://")
        with ThreadPoolExecutor(4) as threads:
            list(threads.map(upgrade, [written] * 4))

        found, wanted = versions(written)
        assert found == wanted
        assert wanted is not None
        upgrade(url)
        assert versions(url) == (found, wanted)


def test_the_models_are_what_the_migrations_make(migrated: Connection) -> None:
    context = MigrationContext.configure(
        migrated,
        opts={
            "include_schemas": True,
            "version_table_schema": SCHEMA,
            "compare_type": True,
            "compare_server_default": True,
            "include_name": lambda name, kind, _: kind != "schema" or name == SCHEMA,
        },
    )

    assert compare_metadata(context, TABLES) == []


def test_the_constraints_of_the_models_are_those_of_the_database(migrated: Connection) -> None:
    # Alembic compares neither CHECK nor EXCLUDE constraints, so a database made from the models stands in.
    statement = text("""
        SELECT conrelid::regclass::text, conname, pg_get_constraintdef(oid)
          FROM pg_constraint
         WHERE connamespace = CAST(:schema AS regnamespace) AND contype IN ('c', 'x', 'f', 'p', 'u')
           AND conrelid::regclass::text <> 'nightrate.alembic_version'
    """)
    migrations = {tuple(row) for row in migrated.execute(statement, {"schema": SCHEMA})}
    migrated.rollback()
    nested = migrated.begin()
    migrated.execute(text("ALTER SCHEMA nightrate RENAME TO kept"))
    migrated.execute(text("CREATE SCHEMA nightrate"))
    TABLES.create_all(migrated)
    models = {tuple(row) for row in migrated.execute(statement, {"schema": SCHEMA})}
    nested.rollback()

    assert models == migrations


def test_every_enum_is_checked_by_the_database_word_for_word(migrated: Connection) -> None:
    statement = text("""
        SELECT conname, pg_get_constraintdef(oid) AS definition FROM pg_constraint
         WHERE connamespace = CAST(:schema AS regnamespace) AND contype = 'c'
    """)
    checks = {row.conname: row.definition for row in migrated.execute(statement, {"schema": SCHEMA})}
    migrated.rollback()

    for name, words in ENUMS.items():
        assert sorted(re.findall(r"'([^']*)'", checks[name])) == sorted(words), name
    # What is stored of an enum is checked, in whatever table it is.
    listed = re.compile(
        r"^ck_\w+_(state|reason|tier|endpoint|kind|outcome|energy_source|verdict|recipe|engine|device|promise|overlap|catch_up|split_rule|purpose|status|action|type|category|end_cause|unit|mark|stop_reason|refusal)$|^ck_budgets_period$|^ck_prices?(_refreshes)?_(market|source)$"
    )
    assert {name for name in checks if listed.match(name)} == set(ENUMS)


def test_a_new_database_has_the_default_tenant_and_nothing_else(migrated: Connection) -> None:
    assert migrated.execute(text("SELECT id FROM nightrate.tenants")).scalars().all() == ["tnt_default"]
    assert migrated.execute(text("SELECT id FROM nightrate.projects")).scalars().all() == ["proj_default"]
    for table in TABLES.sorted_tables:
        if table.name not in {"tenants", "projects"}:
            assert migrated.execute(table.select()).first() is None, table.name
    migrated.rollback()
