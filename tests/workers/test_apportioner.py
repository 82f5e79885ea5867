from __future__ import annotations

import weakref
from dataclasses import dataclass, field, fields, replace

from hypothesis import given
from hypothesis import strategies as st

from pipeline.ports.meters import AttemptMeters, EnergySource, EngineIdentity, EngineMeters
from tests.workers.floor import ScriptedEngine
from tests.workers.test_telemetry import FakeDevice, FakeProcess
from workers.apportioner import Apportioner, Tally
from workers.telemetry.readings import Sample
from workers.telemetry.telemetry import Telemetry

SHARED = [counter.name for counter in fields(EngineMeters)] + ["engine_us", "cpu_us", "energy_millijoules"]


class CountingEngine(ScriptedEngine):
    """An engine whose counters a test sets."""

    def __init__(self) -> None:
        super().__init__()
        self.counted = EngineMeters(slot_steps_busy=0, slot_steps=0, tokens_generated=0)
        self.is_broken = False

    def meters(self) -> EngineMeters:
        if self.is_broken:
            raise RuntimeError("it broke")
        return self.counted

    def step_on(self, busy: int, slots: int, tokens: int) -> None:
        was = self.counted
        self.counted = replace(
            was,
            engine_steps=was.engine_steps + 1,
            slot_steps_busy=(was.slot_steps_busy or 0) + busy,
            slot_steps=(was.slot_steps or 0) + slots,
            tokens_generated=(was.tokens_generated or 0) + tokens,
        )


@dataclass
class Bench:
    """An apportioner with everything it reads in a test's hand."""

    engine: CountingEngine = field(default_factory=CountingEngine)
    device: FakeDevice = field(default_factory=FakeDevice)
    process: FakeProcess = field(default_factory=FakeProcess)

    def __post_init__(self) -> None:
        telemetry = Telemetry(process=self.process, open_device=lambda _: self.device, sample_seconds=600.0)
        self.device.has_gauges = False
        self.apportioner = Apportioner(telemetry)
        self.apportioner.drive(self.engine)

    def step(self, tallies: list[Tally], rows: list[int], *, us: int = 10) -> None:
        self.engine.step_on(sum(rows), 64, sum(rows))
        self.process.us += us
        assert self.device.energy is not None
        self.device.energy += us
        self.apportioner.engine_us += us
        for tally, count in zip(tallies, rows, strict=True):
            tally.row_steps += count


def test_a_pack_alone_in_the_engine_has_all_that_was_counted() -> None:
    bench, tally = Bench(), Tally(identity=EngineIdentity(engine="scripted"))

    bench.step([tally], [3])
    bench.step([tally], [2])
    bench.apportioner.settle([tally])

    meters = tally.meters()
    assert (meters.engine_steps, meters.slot_steps_busy, meters.slot_steps) == (2, 5, 128)
    assert (meters.engine_us, meters.cpu_us, meters.energy_millijoules) == (20, 20, 20)
    assert meters.energy_source is EnergySource.NVML_COUNTER
    assert meters.memory_peak_bytes == 4096


def test_what_two_packs_caused_together_is_split_by_their_rows_in_flight() -> None:
    bench, first, second = Bench(), Tally(), Tally()

    bench.step([first, second], [1, 3], us=100)
    bench.apportioner.settle([first, second])

    assert (first.meters().engine_us, second.meters().engine_us) == (25, 75)
    assert (first.meters().slot_steps_busy, second.meters().slot_steps_busy) == (1, 3)


def test_what_nobody_can_know_stays_unknown_for_both() -> None:
    bench, first, second = Bench(), Tally(), Tally()
    bench.device.energy_source = None
    bench.step([first, second], [1, 1])
    bench.device.energy = None

    bench.apportioner.settle([first, second])

    for tally in (first, second):
        meters = tally.meters()
        assert meters.tokens_cached is None
        assert meters.energy_millijoules is None
        assert meters.energy_source is None


def test_time_without_a_step_is_the_oldest_packs_and_without_a_pack_nobodys() -> None:
    bench, first, second = Bench(), Tally(), Tally()

    bench.process.us = 500
    bench.apportioner.settle([])
    bench.process.us = 530
    bench.apportioner.settle([first, second])

    assert first.meters().cpu_us == 30
    assert second.meters().cpu_us is None


def test_each_pack_in_the_engine_saw_the_gauges_and_a_waiting_one_did_not() -> None:
    bench, first, second, waiting = Bench(), Tally(), Tally(), Tally()
    bench.device.has_gauges = True
    bench.device.samples = lambda: Sample(
        utilisation_percent=80, power_milliwatts=300_000, temperature_celsius=61, memory_used_bytes=2**33
    )

    bench.step([first, second, waiting], [1, 1, 0])
    bench.apportioner.settle([first, second, waiting])

    for tally in (first, second):
        meters = tally.meters()
        assert meters.device_utilisation_mean_percent == meters.device_utilisation_max_percent == 80
        assert meters.device_power_max_milliwatts == 300_000
        assert meters.device_temperature_max_celsius == 61
        assert meters.device_memory_max_bytes == 2**33
    assert waiting.meters().device_utilisation_mean_percent is None


def test_a_counter_that_was_reset_is_unknown_and_never_negative() -> None:
    bench, tally = Bench(), Tally()
    bench.device.energy = 1_000
    bench.apportioner.settle([])

    bench.step([tally], [1])
    bench.device.energy = 3
    bench.apportioner.settle([tally])

    assert tally.meters().energy_millijoules is None
    assert tally.meters().cpu_us == 10


def test_an_engine_that_cannot_be_metered_any_more_ends_nothing_else() -> None:
    bench, tally = Bench(), Tally()
    bench.step([tally], [1])
    bench.apportioner.settle([tally])

    bench.engine.is_broken = True
    bench.step([tally], [1])
    bench.apportioner.settle([tally])

    assert tally.meters().engine_steps == 1
    assert tally.meters().cpu_us == 20


def test_an_engine_driven_anew_does_not_charge_what_it_counted_for_others() -> None:
    bench, tally = Bench(), Tally()
    other = CountingEngine()
    other.step_on(5, 5, 5)

    bench.apportioner.drive(other)
    tally.row_steps += 1
    other.step_on(1, 1, 1)
    bench.apportioner.settle([tally])

    assert tally.meters().engine_steps == 1


def test_an_engine_that_was_left_is_not_kept_in_memory() -> None:
    bench = Bench()
    left = weakref.ref(bench.engine)
    bench.apportioner.leave()

    del bench.engine

    assert left() is None


#: Steps (rows in flight of each pack held), settlings, and a pack that ends for the next to come.
EVENTS = st.lists(
    st.one_of(
        st.tuples(st.just("step"), st.integers(0, 9), st.integers(0, 9), st.integers(0, 999)),
        st.tuples(st.just("settle"), st.just(0), st.just(0), st.just(0)),
        st.tuples(st.just("end"), st.just(0), st.just(0), st.just(0)),
    ),
    max_size=60,
)


@given(EVENTS)
def test_attempts_sum_to_what_engine_process_and_device_counted(events: list[tuple[str, int, int, int]]) -> None:
    bench = Bench()
    held, ended = [Tally(), Tally()], []

    for kind, first, second, us in events:
        if kind == "step" and first + second:
            bench.step(held, [first, second], us=us)
        elif kind == "settle":
            bench.apportioner.settle(held)
        elif kind == "end":
            bench.apportioner.settle(held)
            ended.append(held.pop(0))
            held.append(Tally())
    bench.apportioner.settle(held)

    records: list[AttemptMeters] = [tally.meters() for tally in [*ended, *held]]
    sums = {name: sum(getattr(record, name) or 0 for record in records) for name in SHARED}
    counted = bench.engine.counted
    assert sums == {
        **{counter.name: getattr(counted, counter.name) or 0 for counter in fields(EngineMeters)},
        "engine_us": bench.process.us,
        "cpu_us": bench.process.us,
        "energy_millijoules": bench.device.energy,
    }
