"""What `status` shows: services, processes, workers, queue, batches, and what it cost so far."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from infra.embedded.failures import Failure, last_failures
from infra.embedded.folder import DataFolder, ServicesState
from pipeline.config import Settings, load_settings
from pipeline.domain.errors import NightrateError
from pipeline.entrypoints.cli.connection import database_url_of, probe, short_database, with_urls_of
from pipeline.entrypoints.cli.exits import ExitCode
from pipeline.entrypoints.cli.figures import count, counted, duration, moment, money
from pipeline.entrypoints.cli.talk import print_document, print_facts, print_line, print_table, say

if TYPE_CHECKING:  # the stores are imported once a stack is known to be there
    from storage.costs import OverheadSum
    from storage.overview import Overview, WorkerView


@dataclass(frozen=True, slots=True, kw_only=True)
class Books:
    """What anything has cost so far."""

    #: All of it, in micro-units by currency.
    spent: dict[str, int]
    overhead: list[OverheadSum]


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """What is there now; `problem` says why the rest is not known."""

    settings: Settings
    services: ServicesState | None
    seen: Overview | None = None
    books: Books | None = None
    problem: NightrateError | None = None
    #: Of workers of this machine's stack that are not there, since they failed.
    failures: tuple[Failure, ...] = ()


def show_status(*, as_json: bool) -> int:
    """Show what runs; that nothing does is an answer too."""
    standing = _look()
    if as_json:
        print_document(_document(standing))
    else:
        _print(standing)
    return ExitCode.FAILED if standing.problem else ExitCode.OK


def _look() -> Standing:
    given = load_settings()
    services = DataFolder(given.home_folder).read_state()
    settings = with_urls_of(given)
    if settings.database_url is None:
        return Standing(settings=settings, services=services)
    from storage.costs import CostRepository
    from storage.overview import overview

    try:
        url = database_url_of(settings)
        probe(url)
        with short_database(url) as database:
            costs = CostRepository(database)
            books = Books(spent=costs.spent(), overhead=costs.overhead())
            seen = overview(database)
        return Standing(
            settings=settings, services=services, seen=seen, books=books, failures=_failures(given, services, seen)
        )
    except NightrateError as error:
        failures = _failures(given, services, None)
        return Standing(settings=settings, services=services, problem=error, failures=failures)


def _failures(settings: Settings, services: ServicesState | None, seen: Overview | None) -> tuple[Failure, ...]:
    """Return why workers of this stack are not there: those that failed and were not seen at work since."""
    if services is None:
        return ()
    at_work = {worker.pid for worker in seen.workers} if seen else set()
    found = last_failures(DataFolder(settings.home_folder).logs, prefix="worker-")
    # One of a stack that had more workers left its log there.
    return tuple(each for each in found if each.name in services.pids and each.next_pid not in at_work)


def _document(standing: Standing) -> dict[str, object]:
    services, seen, books, problem = standing.services, standing.seen, standing.books, standing.problem
    return {
        "home": str(standing.settings.home_folder),
        "phase": services and str(services.phase),
        "supervisor_pid": services and services.supervisor.pid,
        "pids": dict(services.pids) if services else {},
        "problem": problem and {"code": problem.code, "message": problem.message, "hint": problem.hint},
        "leader": seen and seen.leader,
        "worker_failures": [
            {"name": each.name, "at": each.at.isoformat(), "reason": each.reason} for each in standing.failures
        ],
        "workers": [_worker_document(worker) for worker in seen.workers] if seen else None,
        "queue": [
            {"state": str(item.state), "packs": item.packs, "predicted_seconds": round(item.predicted_seconds, 3)}
            for item in seen.queue
        ]
        if seen
        else None,
        "batches": {str(state): number for state, number in seen.batches.items()} if seen else None,
        "cost_micros": books and books.spent,
        # As it was called before.
        "spent_micros": books and books.spent,
        "overhead_micros": books and {str(item.kind): item.amount_micros for item in books.overhead},
    }


def _worker_document(worker: WorkerView) -> dict[str, object]:
    return {
        "id": worker.worker_id,
        "pool": worker.pool,
        "host": worker.host,
        "pid": worker.pid,
        "state": str(worker.state),
        "variant": worker.variant,
        "variants": list(worker.variants),
        "uptime_seconds": round(worker.uptime_seconds, 3),
        "silent_seconds": round(worker.silent_seconds, 3),
    }


def _print(standing: Standing) -> None:
    services = standing.services
    home = standing.settings.home_folder
    if services is None and standing.settings.database_url is None:
        print_line(f"Nothing runs in {home}.")
        say("`nightrate up` starts it.")
        return
    if services is None:
        facts = {"stack": f"none in {home}; the database is the one in NIGHTRATE_DATABASE_URL"}
    else:
        facts = {"stack": f"{services.phase}, process {services.supervisor.pid}, data in {home}"}
        facts |= {name: f"process {pid}" for name, pid in services.pids.items()}
    if standing.seen is not None:
        facts |= _facts_of(standing.seen)
    if standing.books is not None:
        facts |= _facts_of_books(standing.books)
    print_facts(facts)
    if standing.seen is not None and standing.seen.workers:
        print_line("")
        _print_workers(standing.seen)
    for failure in standing.failures:
        say(f"{failure.name} is not there; at {moment(failure.at)} it ended: {failure.reason}")
    if standing.failures:
        say(
            f"It is tried again and again; the logs are in {DataFolder(home).logs}, and `nightrate doctor` may say more."
        )
    if standing.problem is not None:
        say(
            f"nightrate: {standing.problem.message}" + (f"\n  {standing.problem.hint}" if standing.problem.hint else "")
        )


def _facts_of(seen: Overview) -> dict[str, str]:
    queue = ", ".join(
        f"{counted(item.packs, 'pack')} {item.state} (about {duration(item.predicted_seconds)} of work)"
        for item in seen.queue
    )
    batches = ", ".join(f"{count(number)} {state}" for state, number in sorted(seen.batches.items()))
    return {"leader": seen.leader or "none yet", "queue": queue or "empty", "batches": batches or "none"}


def _facts_of_books(books: Books) -> dict[str, str]:
    overhead = ", ".join(f"{item.kind} {money(item.amount_micros, item.currency)}" for item in books.overhead)
    spent = ", ".join(money(micros, currency) for currency, micros in books.spent.items())
    return {"cost so far": (spent or "nothing") + (f", of it overhead: {overhead}" if overhead else "")}


def _print_workers(seen: Overview) -> None:
    heads = ("WORKER", "POOL", "STATE", "MODEL", "UP", "LAST BEAT", "HOST", "PID")
    rows = [
        (
            worker.worker_id,
            worker.pool,
            str(worker.state),
            worker.variant or "-",
            duration(worker.uptime_seconds),
            f"{duration(max(0.0, worker.silent_seconds))} ago",
            worker.host,
            str(worker.pid),
        )
        for worker in seen.workers
    ]
    print_table(heads, rows, right=("UP", "LAST BEAT", "PID"))
