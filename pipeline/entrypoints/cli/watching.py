"""How variants do in production, on the terminal."""

from __future__ import annotations

from collections.abc import Sequence

from pipeline.entrypoints.cli.talk import print_line, print_table
from pipeline.ports.shadow import Watched


def print_watched(watched: Sequence[Watched]) -> None:
    """Print what the reference made of a variant's answers, a line for each gate key and tier."""
    heads = ("WATCHED FOR", "MAY LOSE", "JUDGED", "WAITING", "POINTS", "SHOWN", "HOLDS FOR")
    rows = [
        (
            str(each.tier),
            f"{each.watch.margin_points:g}",
            f"{each.watch.samples:,}",
            f"{each.waiting:,}",
            f"{each.watch.mean_points:+.2f}",
            _shown(each),
            each.gate_key,
        )
        for each in watched
    ]
    print_line("")
    print_table(heads, rows, right=("MAY LOSE", "JUDGED", "WAITING", "POINTS"))


def watched_document(each: Watched) -> dict[str, object]:
    """Return the same as JSON would hold it."""
    return {
        "tier": each.tier,
        "gate_key": each.gate_key,
        "margin_points": each.watch.margin_points,
        "samples": each.watch.samples,
        "tokens": each.watch.tokens,
        "waiting": each.waiting,
        "mean_points": each.watch.mean_points,
        "log_evidence": each.watch.wealth.log_evidence,
        "is_beyond": each.watch.is_beyond,
    }


def _shown(each: Watched) -> str:
    return "loses more than it may" if each.watch.is_beyond else "no loss beyond"
