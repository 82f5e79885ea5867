"""`fleet`: what each pool is to have and why, the machines there are, and how offers answered."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Final

from pipeline.entrypoints.cli.exits import ExitCode
from pipeline.entrypoints.cli.options import AsJson
from pipeline.entrypoints.cli.talk import print_document, print_line, print_table, say

if TYPE_CHECKING:  # the stores are imported by the command that opens them
    from storage.fleet_overview import FleetMachine, FleetOverview

#: What people read of a reason.
_REASONS: Final = {
    "deadline": "deadlines need them",
    "forecast": "what is forecast needs them",
    "warm": "kept warm",
    "cheap": "cheaper now than later",
    "floor": "for what spot cannot promise",
    "idle": "nothing to do for longer than a start costs",
    "surplus": "more than deadlines need",
    "replaced": "another takes its place",
    "lifetime": "its time is up",
    "no_work": "nothing to do",
    "slack": "there is time: waiting is cheaper",
    "quota": "no more are allowed",
    "capacity": "no more are to be had",
    "spend": "no more may be spent an hour",
}


def fleet(*, as_json: AsJson = False) -> int:
    """Show how many workers each pool is to have and why, the machines there are, and how offers answered in a day."""
    from pipeline.entrypoints.cli.connection import connected
    from storage.fleet_overview import fleet_overview

    with connected() as stack:
        found = fleet_overview(stack.database)
        filled = sorted(stack.settings.fleet.pools)
    if as_json:
        print_document(asdict(found))
        return ExitCode.OK
    if not found.pools and not found.machines:
        say(
            f"The scheduler has not decided yet about {', '.join(filled)}."
            if filled
            else "The scheduler fills no pool: `nightrate config` describes the setting `fleet`."
        )
        return ExitCode.OK
    _print_pools(found)
    _print_machines(found)
    _print_offers(found)
    return ExitCode.OK


def _print_pools(found: FleetOverview) -> None:
    from pipeline.entrypoints.cli.figures import count, duration

    if not found.pools:
        return
    rows = [
        (
            each.pool,
            count(sum(machine.pool == each.pool and not machine.is_leaving for machine in found.machines)),
            count(each.wanted),
            count(each.on_demand_wanted),
            duration(each.work_seconds),
            _REASONS[each.reason],
            duration((found.now - each.since).total_seconds()),
        )
        for each in found.pools
    ]
    heads = ("POOL", "HAS", "WANTED", "ON DEMAND", "WORK", "WHY", "FOR")
    print_table(heads, rows, right=("HAS", "WANTED", "ON DEMAND", "WORK", "FOR"))


def _print_machines(found: FleetOverview) -> None:
    from pipeline.entrypoints.cli.figures import duration, money

    if not found.machines:
        return
    rows = [
        (
            each.worker_id,
            each.offer or each.pool,
            _state_of(each),
            duration((found.now - each.since).total_seconds()),
            "-" if each.rate_micros_per_hour is None else money(each.rate_micros_per_hour, each.currency or ""),
            _why(each),
        )
        for each in found.machines
    ]
    _print_below(("WORKER", "OFFER", "STATE", "FOR", "AN HOUR", "WHY"), rows, right=("FOR", "AN HOUR"))


def _state_of(machine: FleetMachine) -> str:
    if machine.worker_state is None:
        return "asked for" if machine.rental_state == "requested" else "leaving"
    busy = f", {machine.packs} packs" if machine.packs else ""
    return f"{machine.worker_state}{', leaving' if machine.is_leaving else ''}{busy}"


def _why(machine: FleetMachine) -> str:
    if machine.stop_reason is not None:
        return _REASONS[machine.stop_reason]
    return "started by hand" if machine.reason is None else _REASONS[machine.reason]


def _print_offers(found: FleetOverview) -> None:
    from pipeline.entrypoints.cli.figures import count, moment

    if not found.offers:
        return
    rows = [
        (
            each.offer,
            count(each.asked),
            count(each.launched),
            count(each.refused),
            count(each.taken),
            "-" if each.refused_at is None else f"{moment(each.refused_at)} {each.last_refusal}: {each.last_message}",
        )
        for each in found.offers
    ]
    _print_below(
        ("OFFER", "ASKED", "HAD", "REFUSED", "TAKEN", "LAST REFUSAL"), rows, right=("ASKED", "HAD", "REFUSED", "TAKEN")
    )


def _print_below(heads: Sequence[str], rows: Sequence[Sequence[str]], *, right: Sequence[str]) -> None:
    print_line("")
    print_table(heads, rows, right=right)
