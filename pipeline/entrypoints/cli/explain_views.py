"""Explanations as JSON and as lines: the same facts, for programs and for people."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import Final

from pipeline.domain.lifecycle import BatchState
from pipeline.entrypoints.cli.documents import Document
from pipeline.entrypoints.cli.figures import counted, duration, moment
from pipeline.entrypoints.cli.talk import print_line, print_table, say
from pipeline.ports.explain import Change, Explained, Explanation, OverviewExplained, PackLine, Past, Subject

_CHANGES: Final = "to change"
_NEXT: Final = "next"


def explained_document(explained: Explained) -> Document:
    """Return one explanation; instants in ISO 8601, durations in seconds, money in micro-units."""
    return _document(explained.explanation, explained.now) | {
        "packs": [_pack_document(pack) for pack in explained.packs],
        "history": [_past_document(past, explained.now) for past in explained.history],
    }


def overview_document(overview: OverviewExplained) -> Document:
    """Return every pool and the batches listed, each as `explain` of it alone tells it, without packs and history."""
    return {
        "now": overview.now.isoformat(),
        "has_scheduler": overview.has_leader,
        "scheduler": overview.leader,
        "pools": [_document(pool, overview.now) for pool in overview.pools],
        "batches": [_document(batch, overview.now) for batch in overview.batches],
        "batches_total": overview.batches_total,
    }


def print_explained(explained: Explained) -> None:
    """Write one explanation for people."""
    told = explained.explanation
    print_line(f"{told.subject_id}  {told.state}")
    _print_facts(list(_facts(told, explained.now)))
    if explained.packs:
        print_line("")
        _print_packs(explained)
    if explained.history:
        print_line("")
        _print_history(explained)


def print_overview(overview: OverviewExplained) -> None:
    """Write the overview for people."""
    if not overview.has_leader:
        say("No scheduler leads, so nothing new is decided; `nightrate up` starts one.")
    if not overview.pools:
        print_line("There are no pools: no worker has registered yet.")
    for pool in overview.pools:
        print_line(f"pool {pool.subject_id}  {pool.reason}, {pool.state}{_for(pool, overview.now)}")
        print_line(f"  {pool.sentence}")
    if not overview.batches:
        print_line("There are no batches that have not ended.")
    for batch in overview.batches:
        print_line(f"{batch.subject_id}  {batch.reason}{_for(batch, overview.now)}")
        print_line(f"  {batch.sentence}")
        if "deadline" in batch.notes:
            print_line(f"  Deadline: {batch.notes['deadline']}.")
    more = overview.batches_total - len(overview.batches)
    if more > 0:
        say(
            f"and {more:,} more that have not ended; `nightrate explain --limit {min(1000, overview.batches_total)}` has more"
        )
    if overview.batches:
        say("`nightrate explain ID` says what would change it.")


def _for(told: Explanation, now: datetime) -> str:
    return "" if told.since is None else f", for {duration(_seconds(told.since, now))}"


def _facts(told: Explanation, now: datetime) -> Iterator[tuple[str, str]]:
    yield "why", told.sentence
    if told.since is not None:
        yield "since", f"{moment(told.since)}, {duration(_seconds(told.since, now))} ago"
    yield from told.notes.items()
    is_over = told.subject is Subject.BATCH and BatchState(told.state).is_terminal
    for number, change in enumerate(told.changes):
        yield ("" if number else _NEXT if is_over else _CHANGES), _change(change)


def _change(change: Change) -> str:
    return change.sentence if change.command is None else f"{change.sentence}: {change.command}"


def _print_facts(facts: list[tuple[str, str]]) -> None:
    width = max(len(name) for name, _ in facts)
    for name, value in facts:
        print_line(f"  {name.ljust(width)}  {value}")


def _print_packs(explained: Explained) -> None:
    heads = ("PACK", "STATE", "WHERE", "FOR", "PREDICTED", "FAILED")
    rows = [
        (
            pack.pack_id,
            "runs" if pack.is_leased else "waits",
            pack.host or "-",
            duration(_seconds(pack.since, explained.now)),
            duration(pack.predicted_seconds),
            str(pack.failures) if pack.failures else "-",
        )
        for pack in explained.packs
    ]
    print_table(heads, rows, right=("FOR", "PREDICTED", "FAILED"))
    figures = explained.explanation.figures
    total = sum(
        int(number)
        for name in ("packs_running", "packs_waiting", "packs_stranded", "packs_paused")
        if isinstance(number := figures.get(name), int)
    )
    if total > len(explained.packs):
        say(f"and {counted(total - len(explained.packs), 'pack')} more")


def _print_history(explained: Explained) -> None:
    rows = [
        (moment(past.since), duration(_seconds(past.since, past.until or explained.now)), past.what, past.sentence)
        for past in explained.history
    ]
    print_table(("SINCE", "FOR", "WHAT", "WHY"), rows, right=("FOR",))


def _document(told: Explanation, now: datetime) -> Document:
    return {
        "kind": str(told.subject),
        "id": told.subject_id,
        "now": now.isoformat(),
        "state": told.state,
        "reason": told.reason,
        "sentence": told.sentence,
        "since": told.since and told.since.isoformat(),
        "for_seconds": None if told.since is None else round(_seconds(told.since, now), 3),
        "changes": [{"sentence": change.sentence, "command": change.command} for change in told.changes],
        "notes": dict(told.notes),
        "figures": {
            name: value.isoformat() if isinstance(value, datetime) else value for name, value in told.figures.items()
        },
    }


def _pack_document(pack: PackLine) -> Document:
    return {
        "id": pack.pack_id,
        "is_running": pack.is_leased,
        "host": pack.host,
        "predicted_seconds": round(pack.predicted_seconds, 3),
        "since": pack.since.isoformat(),
        "failures": pack.failures,
    }


def _past_document(past: Past, now: datetime) -> Document:
    return {
        "what": past.what,
        "sentence": past.sentence,
        "since": past.since.isoformat(),
        "until": past.until and past.until.isoformat(),
        "for_seconds": round(_seconds(past.since, past.until or now), 3),
    }


def _seconds(since: datetime, until: datetime) -> float:
    return max(0.0, (until - since).total_seconds())
