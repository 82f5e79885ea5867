"""What is left to do, in predicted worker-seconds of the pools that it is placed in, by deadline and by when it may start."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from pipeline.domain.tiers import Tier
from pipeline.ports.cycle import WorkSize
from pipeline.ports.fleet import ExpectedWork, FleetView, UnitPace
from scheduler.columns import Flags, Floats, Integers

_US: Final = 1_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Lane:
    """What is placed as one: rows of a model and a tier that may run in the same regions (None: in all)."""

    model: str
    tier: Tier
    regions: frozenset[str] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Due:
    """Work of one lane by deadline, in the units that paces are per; one row for each class, in no order."""

    #: Rows, input tokens, output tokens.
    sizes: Floats
    due_us: Integers
    from_us: Integers
    is_promised: Flags
    #: Is forecast, and not there yet.
    is_expected: Flags

    def seconds(self, pace: UnitPace) -> Floats:
        """Return the worker-seconds of each class at this pace."""
        found: Floats = self.sizes @ np.array([pace.row_seconds, pace.input_token_seconds, pace.output_token_seconds])
        return found

    def where(self, chosen: Flags) -> Due:
        """Return the chosen classes alone."""
        return Due(
            sizes=self.sizes[chosen],
            due_us=self.due_us[chosen],
            from_us=self.from_us[chosen],
            is_promised=self.is_promised[chosen],
            is_expected=self.is_expected[chosen],
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolWork:
    """Worker-seconds placed in a pool, the first due first."""

    seconds: Floats
    due_us: Integers
    from_us: Integers
    is_promised: Flags
    is_expected: Flags

    @property
    def present_seconds(self) -> float:
        """All that is there already, forecasts left out."""
        return float(self.seconds[~self.is_expected].sum())

    def startable(self, by_us: int) -> PoolWork:
        """Return the work that may start by then."""
        return self.where(self.from_us <= by_us)

    def where(self, chosen: Flags) -> PoolWork:
        """Return the chosen classes alone."""
        return PoolWork(
            seconds=self.seconds[chosen],
            due_us=self.due_us[chosen],
            from_us=self.from_us[chosen],
            is_promised=self.is_promised[chosen],
            is_expected=self.is_expected[chosen],
        )

    def left_seconds(self, now_us: int, margin_seconds: float = 0.0) -> Floats:
        """Return the seconds until each deadline, less the margin; below 0 once it has passed."""
        left: Floats = (self.due_us - now_us) / _US - margin_seconds
        return left


def lanes_of(view: FleetView, *, quantile: float, slices: int = 4) -> dict[Lane, Due]:
    """Return what is there and what is expected, lane by lane.

    What is expected between two moments comes as so many equal parts, each at its part's end; of the sizes told, the
    one of the nearest quantile counts.
    """
    rows: dict[Lane, list[tuple[WorkSize, int, int, bool, bool]]] = {}
    for work in view.work:
        lane = Lane(model=work.model, tier=work.tier, regions=work.regions)
        rows.setdefault(lane, []).append((work.size, work.deadline_at_us, work.from_us, work.is_promised, False))
    for expected in view.expected:
        lane = Lane(model=expected.model, tier=expected.tier, regions=expected.regions)
        rows.setdefault(lane, []).extend(_arrivals(expected, quantile, slices))
    return {lane: _due(found) for lane, found in rows.items()}


def _arrivals(expected: ExpectedWork, quantile: float, slices: int) -> Iterable[tuple[WorkSize, int, int, bool, bool]]:
    if not expected.sizes:
        return
    size = expected.sizes[min(expected.sizes, key=lambda each: (abs(each - quantile), -each))]
    part = size.times(1 / slices)
    span_us = max(0, expected.to_us - expected.from_us)
    for number in range(slices):
        # The first of a part is due a window after the part begins.
        begins_us = expected.from_us + span_us * number // slices
        ends_us = expected.from_us + span_us * (number + 1) // slices
        yield part, begins_us + round(expected.window_seconds * _US), min(ends_us, begins_us + 1), False, True


def _due(rows: Sequence[tuple[WorkSize, int, int, bool, bool]]) -> Due:
    return Due(
        sizes=np.array([(size.rows, size.input_tokens, size.output_tokens) for size, *_ in rows], dtype=np.float64),
        due_us=np.array([row[1] for row in rows], dtype=np.int64),
        from_us=np.array([row[2] for row in rows], dtype=np.int64),
        is_promised=np.array([row[3] for row in rows], dtype=np.bool_),
        is_expected=np.array([row[4] for row in rows], dtype=np.bool_),
    )


def pool_work(lanes: Mapping[Lane, Due], shares: Mapping[Lane, float], paces: Mapping[str, UnitPace]) -> PoolWork:
    """Return a pool's part of the lanes, the first due first; `shares` says what part of each lane is placed there."""
    parts = [
        (lanes[lane], lanes[lane].seconds(paces[lane.model]) * share) for lane, share in shares.items() if share > 0
    ]
    if not parts:
        return _work(
            np.zeros(0), np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0, np.bool_), np.zeros(0, np.bool_)
        )
    return _work(
        np.concatenate([seconds for _, seconds in parts]),
        np.concatenate([due.due_us for due, _ in parts]),
        np.concatenate([due.from_us for due, _ in parts]),
        np.concatenate([due.is_promised for due, _ in parts]),
        np.concatenate([due.is_expected for due, _ in parts]),
    )


def _work(seconds: Floats, due_us: Integers, from_us: Integers, promised: Flags, expected: Flags) -> PoolWork:
    order = np.argsort(due_us, kind="stable")
    return PoolWork(
        seconds=seconds[order],
        due_us=due_us[order],
        from_us=from_us[order],
        is_promised=promised[order],
        is_expected=expected[order],
    )
