"""`recurring`: batches that are submitted again and again, by cron."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from pipeline.domain.limits import CATCH_UP_MAX
from pipeline.entrypoints.cli.exits import ExitCode
from pipeline.entrypoints.cli.options import (
    AsJson,
    BudgetOption,
    EndpointOption,
    MetaOption,
    TierOption,
    WindowOption,
)
from pipeline.entrypoints.cli.talk import print_document, print_facts, print_line, print_table, say

if TYPE_CHECKING:  # imported by the commands, so that `nightrate --help` stays instant
    from pipeline.app.stack import Stack
    from pipeline.domain.ids import TenantId
    from pipeline.ports.recurring import FiringView, RecurringView

app = typer.Typer(help="Batches submitted again and again, by cron.", no_args_is_help=True, rich_markup_mode=None)

NameArgument = Annotated[str, typer.Argument(metavar="NAME", help="The recurring batch, as it was created.")]
#: How long `run` waits for the scheduler to say what became of the firing.
_ANSWER_SECONDS_MAX: Final = 30.0
_POLL_SECONDS: Final = 0.1
_PREVIEWED: Final = 3
_UPCOMING: Final = 5


@app.command("create")
def create(  # noqa: PLR0913 -- a parameter for each option
    name: NameArgument,
    *,
    cron: Annotated[str, typer.Option("--cron", help="Five fields, such as '0 2 * * *', or @daily.")],
    input_path: Annotated[
        str,
        typer.Option("--input", metavar="PATH", help="File of requests, on the scheduler's machine; {date} changes."),
    ],
    zone: Annotated[str, typer.Option("--zone", help="IANA time zone of the cron and the paths.")] = "UTC",
    output: Annotated[
        str | None,
        typer.Option("--output", metavar="PATH", help="Where results are written, errors beside them; {date} changes."),
    ] = None,
    endpoint: EndpointOption = None,
    tier: TierOption = "standard",
    window: WindowOption = None,
    max_cost: BudgetOption = None,
    meta: MetaOption = None,
    overlap: Annotated[
        str, typer.Option("--overlap", help="While an earlier batch runs: skip, queue or allow.")
    ] = "skip",
    catch_up: Annotated[
        str, typer.Option("--catch-up", help="Of firings that were missed: none, last or all.")
    ] = "last",
    catch_up_max: Annotated[
        int, typer.Option("--catch-up-max", min=1, max=CATCH_UP_MAX, help="How many `all` makes up for at a time.")
    ] = 10,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show the next firings and create nothing.")] = False,
    as_json: AsJson = False,
) -> int:
    """Submit a file whenever the cron comes."""
    from datetime import UTC, datetime

    from pipeline.app.recurring import check_terms, create_recurring
    from pipeline.domain.ids import DEFAULT_TENANT
    from pipeline.domain.recurring import CatchUp, Overlap
    from pipeline.entrypoints.cli.choices import chosen
    from pipeline.entrypoints.cli.connection import connected
    from pipeline.entrypoints.cli.recurring_views import recurring_document, upcoming_lines
    from pipeline.entrypoints.cli.submission import parse_terms
    from pipeline.ports.recurring import RecurringTerms
    from pipeline.submit.inputs import parse_endpoint

    batch = parse_terms(tier=tier, window=window, max_cost=max_cost, meta=meta, idempotency_key=None)
    terms = RecurringTerms(
        tenant_id=DEFAULT_TENANT,
        **_when(name, cron, zone),
        input_template=_path(input_path, option="--input"),
        output_template=None if output is None else _path(output, option="--output"),
        endpoint=None if endpoint is None else parse_endpoint(endpoint),
        tier=batch.tier,
        completion_window=batch.window,
        budget_micros=batch.budget_micros,
        metadata=batch.metadata,
        overlap=chosen(Overlap, overlap, "policy of overlap") or Overlap.SKIP,
        catch_up=chosen(CatchUp, catch_up, "policy of catching up") or CatchUp.LAST,
        catch_up_max=catch_up_max,
    )
    now = datetime.now(UTC)
    if dry_run:
        check_terms(terms, now)
        view = None
    else:
        with connected() as stack:
            view = create_recurring(stack, terms)
    if as_json:
        print_document(recurring_document(terms, view, [], now=now, upcoming=_UPCOMING))
        return ExitCode.OK
    print_line(f"{name}: {'would fire' if dry_run else 'fires'} next at")
    for line in upcoming_lines(terms, now, _PREVIEWED):
        print_line(f"  {line}")
    return ExitCode.OK


@app.command("list")
def list_recurring(*, as_json: AsJson = False) -> int:
    """List them with their next and their last firing."""
    from datetime import UTC

    from pipeline.entrypoints.cli.connection import connected
    from pipeline.entrypoints.cli.recurring_views import outcome_words, recurring_document, shown

    tenant = _tenant()
    with connected() as stack:
        now = stack.recurring.now()
        views = stack.recurring.live(tenant)
        last = {view.recurring_id: stack.recurring.history(view.recurring_id, limit=1) for view in views}
    if as_json:
        print_document(
            [recurring_document(each.terms, each, last[each.recurring_id], now=now, upcoming=1) for each in views]
        )
        return ExitCode.OK
    if not views:
        say("There are no recurring batches.")
        return ExitCode.OK
    heads = ("NAME", "CRON", "ZONE", "NEXT THERE", "NEXT UTC", "LAST", "OUTCOME")
    rows = []
    for view in views:
        firing = next(iter(last[view.recurring_id]), None)
        zone = view.terms.schedule.zone
        rows.append(
            (
                view.terms.name,
                view.terms.cron,
                view.terms.zone,
                "paused" if view.paused_at else shown(view.next_at, zone),
                "paused" if view.paused_at else shown(view.next_at, UTC),
                "-" if firing is None else shown(firing.scheduled_at, zone),
                "-" if firing is None else outcome_words(firing),
            )
        )
    print_table(heads, rows)
    return ExitCode.OK


@app.command("show")
def show(
    name: NameArgument,
    *,
    limit: Annotated[int, typer.Option("--limit", min=1, max=1000, help="Firings of the history, newest first.")] = 10,
    as_json: AsJson = False,
) -> int:
    """Show one: its terms, its next firings, its history."""
    from pipeline.entrypoints.cli.connection import connected
    from pipeline.entrypoints.cli.recurring_views import history_rows, recurring_document, recurring_facts

    with connected() as stack:
        now = stack.recurring.now()
        view = stack.recurring.get(_tenant(), name)
        history = stack.recurring.history(view.recurring_id, limit=limit)
    if as_json:
        print_document(recurring_document(view.terms, view, history, now=now, upcoming=_UPCOMING))
        return ExitCode.OK
    print_facts(recurring_facts(view, now, _UPCOMING))
    if history:
        print_line("")
        print_table(("FIRING", "OUTCOME", "ID", "RESULTS", "WHY"), history_rows(view, history))
    return ExitCode.OK


@app.command("pause")
def pause(name: NameArgument, *, as_json: AsJson = False) -> int:
    """Let nothing fire until it is resumed; batches on their way go on."""
    from pipeline.entrypoints.cli.connection import connected

    with connected() as stack:
        view = stack.recurring.pause(_tenant(), name)
        _tell(stack, view, as_json=as_json)
    say(f"{name} is paused; what it misses until `nightrate recurring resume {name}` is not made up for.")
    return ExitCode.OK


@app.command("resume")
def resume(name: NameArgument, *, as_json: AsJson = False) -> int:
    """Let a paused one fire again, from its next firing on."""
    from pipeline.app.recurring import resume_recurring
    from pipeline.entrypoints.cli.connection import connected
    from pipeline.entrypoints.cli.recurring_views import shown

    with connected() as stack:
        view = resume_recurring(stack, name)
        _tell(stack, view, as_json=as_json)
    say(f"{name} fires next at {shown(view.next_at, view.terms.schedule.zone)}.")
    return ExitCode.OK


@app.command("run")
def run(name: NameArgument, *, as_json: AsJson = False) -> int:
    """Fire now, once, paused or not and whatever runs; the batch id goes to stdout."""
    from pipeline.app.recurring import manual_instant
    from pipeline.domain.recurring import FiringOutcome
    from pipeline.entrypoints.cli.connection import connected
    from pipeline.entrypoints.cli.recurring_views import firing_document

    with connected() as stack:
        asked = stack.recurring.add_manual(_tenant(), name, at=manual_instant(stack.recurring.now()))
        firing = _answered(stack, asked)
    if as_json:
        print_document(firing_document(firing))
    if firing.outcome is FiringOutcome.SUBMITTED:
        if not as_json:
            print_line(str(firing.batch_id))
        return ExitCode.OK
    if firing.reason is not None:
        again = "" if firing.outcome else f"; it is tried again, see `nightrate recurring show {name}`"
        say(f"{name} could not be submitted: {firing.reason}{again}")
        return ExitCode.FAILED
    say(f"No scheduler has answered yet; `nightrate recurring show {name}` will say what became of it.")
    return ExitCode.OK


@app.command("remove")
def remove(name: NameArgument, *, as_json: AsJson = False) -> int:
    """Let it never fire again; batches that it submitted go on."""
    from pipeline.entrypoints.cli.connection import connected

    with connected() as stack:
        view = stack.recurring.remove(_tenant(), name)
    if as_json:
        print_document({"name": name, "id": view.recurring_id, "is_removed": True})
    else:
        print_line(f"{name} is removed")
    return ExitCode.OK


def _tenant() -> TenantId:
    from pipeline.domain.ids import DEFAULT_TENANT

    return DEFAULT_TENANT


def _when(name: str, cron: str, zone: str) -> dict[str, str]:
    from pipeline.domain.cron import parse_cron, parse_zone
    from pipeline.domain.recurring import check_name

    return {"name": check_name(name), "cron": parse_cron(cron).text, "zone": parse_zone(zone).key}


def _path(text: str, *, option: str) -> str:
    """Return the path as the scheduler will see it, wherever that was started."""
    from pipeline.domain.errors import UsageError
    from pipeline.domain.path_fields import check_template
    from pipeline.entrypoints.cli.submission import check_text

    check_text(text)
    if "://" in text:
        raise UsageError(f"{option}: {text!r} is a URL", hint="a path on the scheduler's machine is wanted")
    if text.endswith("/"):
        raise UsageError(f"{option}: {text!r} is a folder", hint="name one file")
    return check_template(str(Path(text).expanduser().absolute()), option=option)


def _answered(stack: Stack, asked: FiringView) -> FiringView:
    """Return the firing once a scheduler has looked at it, or as it is when none does in time."""
    import time

    deadline = time.monotonic() + _ANSWER_SECONDS_MAX
    firing = asked
    while firing.outcome is None and firing.reason is None and time.monotonic() < deadline:
        time.sleep(_POLL_SECONDS)
        firing = stack.recurring.firing(asked.recurring_id, asked.scheduled_at)
    return firing


def _tell(stack: Stack, view: RecurringView, *, as_json: bool) -> None:
    if as_json:
        from pipeline.entrypoints.cli.recurring_views import recurring_document

        print_document(recurring_document(view.terms, view, [], now=stack.recurring.now(), upcoming=_UPCOMING))
