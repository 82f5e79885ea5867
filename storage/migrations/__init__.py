"""Schema versions, oldest first, applied by Alembic; expand first, contract in a later release."""

from __future__ import annotations

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import create_engine, pool, text

from storage.base import SCHEMA
from storage.database import driver_url

#: Serialises processes that migrate at once; any constant will do.
_MIGRATION_LOCK = 0x4E_52_4D_49


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent).replace("%", "%%"))
    return config


def upgrade(database_url: str) -> None:
    """Bring the database to this release's schema; safe to repeat, and from several processes at once."""
    engine = create_engine(driver_url(database_url), poolclass=pool.NullPool)
    with engine.begin() as connection:
        connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _MIGRATION_LOCK})
        connection.execute(text(f"CREATE SCHEMA IF NOT EXISTS {SCHEMA}"))
        config = _config()
        config.attributes["connection"] = connection
        command.upgrade(config, "head")
    engine.dispose()


def versions(database_url: str) -> tuple[str | None, str | None]:
    """Return the schema version the database has and the one this release wants."""
    engine = create_engine(driver_url(database_url), poolclass=pool.NullPool)
    with engine.connect() as connection:
        found = MigrationContext.configure(connection, opts={"version_table_schema": SCHEMA}).get_current_revision()
    engine.dispose()
    return found, ScriptDirectory.from_config(_config()).get_current_head()
