from __future__ import annotations

from datetime import UTC, datetime

from pipeline.domain.lifecycle import IntervalKind
from tests.workers.floor import ScriptedEngine
from workers.garage import Garage
from workers.meter import Meter


class SetClock:
    """A clock the test sets."""

    us = 1000

    def now(self) -> datetime:
        return datetime(2000, 1, 1, tzinfo=UTC)

    def monotonic_us(self) -> int:
        return self.us


def test_spans_follow_one_another_and_none_is_empty() -> None:
    clock = SetClock()
    meter = Meter(clock)
    clock.us += 500
    spans = [meter.cut(IntervalKind.BOOT), meter.cut(IntervalKind.WORK), meter.cut(IntervalKind.WORK)]
    clock.us += 500
    spans.append(meter.cut(IntervalKind.IDLE))

    assert [(span.start_us, span.stop_us) for span in spans] == [(0, 500), (500, 501), (501, 502), (502, 1000)]
    assert meter.since_cut_us() == 0


def test_a_full_garage_gives_up_the_engine_not_used_for_longest() -> None:
    loaded: list[str] = []

    def load(model: str) -> ScriptedEngine:
        loaded.append(model)
        return ScriptedEngine(model)

    garage = Garage(load, engines_max=2)
    for model in ("a", "b", "a", "c"):
        garage.engine(model)

    assert loaded == ["a", "b", "c"]
    assert [garage.is_loaded(model) for model in ("a", "b", "c")] == [True, False, True]
    garage.discard("a")
    assert not garage.is_loaded("a")
