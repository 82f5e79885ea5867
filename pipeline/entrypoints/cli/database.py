"""`db`: where the database is, its tables' version, whether the books add up, and a shell in it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from pipeline.entrypoints.cli.exits import ExitCode
from pipeline.entrypoints.cli.options import AsJson
from pipeline.entrypoints.cli.talk import print_document, print_line, say

if TYPE_CHECKING:  # the stores are imported by the commands that open them
    from storage.costs import Mismatch

app = typer.Typer(help="The database: its URL, its tables, its books.", no_args_is_help=True, rich_markup_mode=None)


@app.command("url")
def show_url(
    *,
    show_password: Annotated[bool, typer.Option("--show-password", help="Do not mask the password.")] = False,
    as_json: AsJson = False,
) -> int:
    """Print the database's URL, as psql takes it."""
    from pipeline.entrypoints.cli.config_command import masked

    plain = _plain_url()
    shown = plain if show_password else masked(plain)
    if as_json:
        print_document({"url": shown})
    else:
        print_line(shown)
    return ExitCode.OK


@app.command("upgrade")
def upgrade(*, as_json: AsJson = False) -> int:
    """Bring the tables to this release's version; safe to repeat."""
    from pipeline.entrypoints.cli.connection import database_url_of, short_database, stack_settings
    from storage.migrations import upgrade as apply
    from storage.overview import schema_versions

    url = database_url_of(stack_settings())
    with short_database(url) as database:
        before, wanted = schema_versions(database)
    apply(url)
    if as_json:
        print_document({"before": before, "now": wanted})
    elif before == wanted:
        print_line(f"The database has version {wanted} already.")
    else:
        print_line(f"The database went from version {before or 'none'} to {wanted}.")
    return ExitCode.OK


@app.command("check")
def check(*, as_json: AsJson = False) -> int:
    """Check the tables' version, and that every worker's charges sum to the price of its time."""
    from pipeline.entrypoints.cli.connection import database_url_of, short_database, stack_settings
    from storage.costs import CostRepository
    from storage.overview import schema_versions

    mismatches: list[Mismatch] = []
    with short_database(database_url_of(stack_settings())) as database:
        found, wanted = schema_versions(database)
        if found == wanted:
            mismatches = CostRepository(database).reconcile()
    is_good = found == wanted and not mismatches
    if as_json:
        listed = [
            {
                "worker_id": mismatch.worker_id,
                "expected_micros": mismatch.expected_micros,
                "charged_micros": mismatch.charged_micros,
            }
            for mismatch in mismatches
        ]
        print_document({"ok": is_good, "version": found, "version_wanted": wanted, "mismatches": listed})
    else:
        _print_check(found, wanted, mismatches)
    return ExitCode.OK if is_good else ExitCode.FAILED


@app.command("shell")
def shell() -> int:
    """Open psql in the database."""
    import os
    import shutil

    from pipeline.domain.errors import NotFoundError

    url = _plain_url()
    program = shutil.which("psql")
    if program is None:
        raise NotFoundError("psql is not on PATH", hint="`nightrate db url --show-password` is for any other client")
    os.environ["PGOPTIONS"] = f"{os.environ.get('PGOPTIONS', '')} -c search_path=nightrate,public".strip()
    # In the environment and not among the arguments, which every user of the machine can read.
    parameters = _connection_parameters(url)
    os.environ.update(parameters)
    os.execv(program, [program])  # noqa: S606 -- the person asked for this very program


def _plain_url() -> str:
    from pipeline.entrypoints.cli.connection import database_url_of, stack_settings

    return database_url_of(stack_settings()).replace("postgresql+psycopg://", "postgresql://", 1)


def _connection_parameters(url: str) -> dict[str, str]:
    from urllib.parse import unquote, urlsplit

    parts = urlsplit(url)
    given = {
        "PGHOST": parts.hostname,
        "PGPORT": parts.port and str(parts.port),
        "PGUSER": parts.username and unquote(parts.username),
        "PGPASSWORD": parts.password and unquote(parts.password),
        "PGDATABASE": unquote(parts.path.lstrip("/")),
    }
    return {name: str(value) for name, value in given.items() if value}


def _print_check(found: str | None, wanted: str, mismatches: list[Mismatch]) -> None:
    from pipeline.entrypoints.cli.figures import money

    if found != wanted:
        print_line(f"✗ the tables have version {found or 'none'}, this release needs {wanted}")
        say("  `nightrate db upgrade` brings them there")
        return
    print_line(f"✓ the tables have version {found}")
    if not mismatches:
        print_line("✓ every worker's charges sum to the price of its time")
    for mismatch in mismatches:
        charged, expected = money(mismatch.charged_micros), money(mismatch.expected_micros)
        print_line(f"✗ {mismatch.worker_id} was charged {charged}, its time is worth {expected}")
