"""The gate and the tuner on the terminal: a line while they look, and what they found."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Final, Self

from pipeline.entrypoints.cli.talk import print_facts, print_line, print_table, say

if TYPE_CHECKING:  # numpy is imported by the command
    from workers.gate.evidence import Tally
    from workers.gate.outcomes import Outcome
    from workers.gate.qualification import Qualification
    from workers.tune.search import Probe

_TALK_EVERY_SECONDS: Final = 5.0
_POINTS: Final = 100.0


class Progress:
    """Says on stderr how far the gate is, every few seconds."""

    def __init__(self) -> None:
        """Begin silent."""
        self._said_at = time.monotonic()

    def __enter__(self) -> Self:
        """Announce what is under way."""
        say("Loading both, then asking both the same items until every tier has its verdict.")
        return self

    def note(self, outcome: Outcome, tally: Tally) -> None:
        """Take note of one item."""
        del outcome
        now = time.monotonic()
        if now - self._said_at >= _TALK_EVERY_SECONDS:
            self._said_at = now
            difference = f"{tally.difference * _POINTS:+.2f} points" if tally.items else "nothing yet"
            say(f"{tally.items:,} items: {difference}")

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End without a word."""
        sys.stderr.flush()


def say_probe(probe: Probe) -> None:
    """Say what one measurement of the tuner found."""
    speed = "out of memory" if probe.tokens_per_second is None else f"{probe.tokens_per_second:,.0f} tokens/s"
    say(f"{probe.size:>5} rows  {speed}")


def print_verdicts(found: Qualification, folder: Path) -> None:
    """Print a verdict for each tier, the figures behind them, and where the report lies."""
    low, high = found.interval
    facts = {
        "variant": found.variant.model,
        "reference": found.reference.model,
        "items": f"{found.items_compared:,} of {found.items_available:,} ({found.evaluation})",
        "difference": f"{found.difference * _POINTS:+.2f} points ({low * _POINTS:+.2f} to {high * _POINTS:+.2f})",
        "answers": f"{found.disagreement_share:.1%} other than the reference's",
    }
    if found.pairs is not None:
        facts["flips"] = f"{found.pairs.flips_share:.1%}, right to wrong or back"
    if found.divergence is not None:
        facts["KL"] = f"mean {found.divergence.mean_nats:.2e} nats, p99 {found.divergence.p99_nats:.2e}"
    if found.cosine_mean is not None:
        facts["cosine"] = f"mean {found.cosine_mean:.5f}"
    if (cost := found.pace.relative_cost) is not None:
        facts["cost"] = f"{cost:.2f} times the reference's device time a token"
    facts["report"] = str(folder / "report.html")
    print_facts(facts)
    print_line("")
    rows = [
        (
            str(each.tier),
            f"{each.decision.margin_points:g}",
            str(each.decision.verdict),
            f"{each.decision.items:,}",
            each.decision.reason.sentence,
        )
        for each in found.tiers
    ]
    print_table(("TIER", "MARGIN", "VERDICT", "ITEMS", "REASON"), rows, right=("MARGIN", "ITEMS"))
