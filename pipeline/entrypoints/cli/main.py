"""The command `nightrate`: its commands, and the one place where errors become exit codes."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Mapping, Sequence
from typing import Annotated, Final

import typer

from pipeline.domain.errors import NightrateError
from pipeline.entrypoints.cli import (
    audit,
    bench,
    budgets,
    config_command,
    cost,
    database,
    doctor,
    explain,
    fleet,
    keys,
    listing,
    models,
    plans,
    prices,
    processes,
    projects,
    quote,
    recurring,
    results,
    retrying,
    run,
    simulating,
    stack,
    steering,
    submit,
    tenants,
    webhooks,
)
from pipeline.entrypoints.cli.exits import ExitCode
from pipeline.entrypoints.cli.talk import print_document, say

_DEBUG: Final = "--debug"


def build_app() -> typer.Typer:
    """Return the command line; importing its modules imports nothing heavy."""
    app = typer.Typer(
        name="nightrate",
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback()(_nightrate)
    app.command("run")(run.run)
    app.command("up")(stack.up)
    app.command("down")(stack.down)
    app.command("status")(stack.status)
    app.command("quote")(quote.quote)
    app.command("submit")(submit.submit)
    app.command("watch")(submit.watch)
    app.command("list")(listing.list_batches)
    app.command("show")(listing.show)
    app.command("explain")(explain.explain)
    app.command("results")(results.results)
    app.command("cancel")(submit.cancel)
    app.command("pause")(steering.pause)
    app.command("resume")(steering.resume)
    app.command("change")(steering.change)
    app.command("retry")(retrying.retry)
    app.command("fleet")(fleet.fleet)
    app.command("doctor")(doctor.doctor)
    app.add_typer(cost.app, name="cost")
    app.command("config")(config_command.config)
    app.add_typer(recurring.app, name="recurring")
    app.add_typer(simulating.app, name="simulate")
    app.add_typer(models.app, name="models")
    app.add_typer(bench.app, name="bench")
    app.add_typer(database.app, name="db")
    app.command("scheduler")(processes.scheduler)
    app.command("worker")(processes.worker)
    app.command("api")(processes.api)
    app.add_typer(tenants.app, name="tenants")
    app.add_typer(projects.app, name="projects")
    app.add_typer(keys.app, name="keys")
    app.add_typer(plans.app, name="plans")
    app.add_typer(prices.app, name="prices")
    app.add_typer(budgets.app, name="budgets")
    app.command("audit")(audit.audit)
    app.add_typer(webhooks.app, name="webhooks")
    app.command("supervise", hidden=True)(stack.supervise)
    return app


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one command and leave with its exit code."""
    for stream in (sys.stdout, sys.stderr):
        # A name or a sign that the terminal's encoding lacks is shown as `?`, never a reason to fail.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
    given = list(sys.argv[1:] if arguments is None else arguments)
    has_debug, given = _without_debug(given)
    code = _run(given, has_debug=has_debug)
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        _leave_closed_pipe()
    sys.exit(code)


def _nightrate(
    *,
    version: Annotated[bool, typer.Option("--version", is_eager=True, help="Print the version.")] = False,
    debug: Annotated[bool, typer.Option(_DEBUG, help="Show the traceback of an unexpected error.")] = False,
) -> None:
    """Bulk AI inference when compute is cheap: batches in, results and an exact bill out."""
    del debug  # taken out of the arguments by `main`, wherever it stands; here for the help
    if version:
        from importlib.metadata import version as version_of

        typer.echo(f"nightrate {version_of('nightrate')}")
        raise typer.Exit


def _without_debug(given: list[str]) -> tuple[bool, list[str]]:
    end = given.index("--") if "--" in given else len(given)
    options, rest = given[:end], given[end:]
    return _DEBUG in options, [option for option in options if option != _DEBUG] + rest


def _run(given: list[str], *, has_debug: bool) -> int:
    as_json = "--json" in given
    try:
        return int(build_app()(given, prog_name="nightrate", standalone_mode=False) or ExitCode.OK)
    except NightrateError as error:
        if has_debug:
            raise
        return _tell(
            error.code,
            error.message,
            hint=error.hint,
            exit_code=error.exit_code,
            as_json=as_json,
            details=error.details,
        )
    except typer.Abort:
        return ExitCode.FAILED
    except SystemExit as leaving:
        # Typer leaves by itself when stdout is closed under it: whoever read us has read enough.
        if isinstance(leaving.__context__, BrokenPipeError):
            _leave_closed_pipe()
            return ExitCode.OK
        raise
    except OSError as error:
        if has_debug:
            raise
        where = f"{error.filename}: " if error.filename else ""
        return _tell("os_error", f"{where}{error.strerror or error}", exit_code=ExitCode.FAILED, as_json=as_json)
    except Exception as error:
        if has_debug:
            raise
        return _tell_bug(error, as_json=as_json)


def _tell(
    code: str,
    message: str,
    *,
    exit_code: int,
    as_json: bool,
    hint: str | None = None,
    details: Mapping[str, object] | None = None,
) -> int:
    say(f"nightrate: {message}" + (f"\n  {hint}" if hint else ""))
    if as_json:
        print_document({"error": {"code": code, "message": message, "hint": hint, **(details or {})}})
    return exit_code


def _tell_bug(error: Exception, *, as_json: bool) -> int:
    usage = getattr(error, "format_message", None)
    if usage is not None:  # what typer says of the arguments
        return _tell("usage", usage(), hint="nightrate --help", exit_code=ExitCode.USAGE, as_json=as_json)
    from pipeline.entrypoints.cli.crash import keep_traceback

    kept = keep_traceback(error)
    message = f"unexpected {type(error).__name__}: {str(error).strip().splitlines()[0] if str(error) else ''}"
    hint = f"the traceback is in {kept}" if kept else "add --debug to see the traceback"
    return _tell("unexpected", message, hint=hint, exit_code=ExitCode.FAILED, as_json=as_json)


def _leave_closed_pipe() -> None:
    # What Python still holds for stdout would raise again at exit; nobody reads it.
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
