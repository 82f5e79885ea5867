from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from pipeline.ports.meters import EnergySource
from tests.services import eventually
from workers.telemetry.nvml import NvmlReader, open_nvml
from workers.telemetry.process import OwnProcess
from workers.telemetry.rapl import open_rapl
from workers.telemetry.readings import Gauge, Sample
from workers.telemetry.telemetry import Telemetry


class HandClock:
    """A clock that a test moves."""

    def __init__(self) -> None:
        self.us = 0

    def now(self) -> datetime:
        return datetime(2026, 1, 1, tzinfo=UTC)

    def monotonic_us(self) -> int:
        return self.us


# --- the process -----------------------------------------------------------------------------------


def test_a_process_tells_its_processor_time_and_a_plausible_peak() -> None:
    process = OwnProcess()
    before = process.cpu_us()

    assert sum(range(200_000)) > 0

    assert process.cpu_us() > before
    peak = process.memory_peak_bytes()
    assert peak is not None
    assert 10 * 1024**2 < peak < 1024**4


# --- processors ------------------------------------------------------------------------------------


def domain(folder: Path, number: str, name: str, microjoules: int, bound: int = 1_000_000) -> Path:
    path = folder / f"intel-rapl:{number}"
    path.mkdir()
    (path / "name").write_text(f"{name}\n")
    (path / "energy_uj").write_text(f"{microjoules}\n")
    (path / "max_energy_range_uj").write_text(f"{bound}\n")
    return path / "energy_uj"


def test_packages_and_their_memory_are_summed_and_their_parts_and_the_board_are_not(tmp_path: Path) -> None:
    first, second = domain(tmp_path, "0", "package-0", 5_000), domain(tmp_path, "1", "package-1", 7_000)
    memory, core = domain(tmp_path, "0:1", "dram", 0), domain(tmp_path, "0:0", "core", 0)
    board = domain(tmp_path, "2", "psys", 0)
    reader = open_rapl(tmp_path)
    assert reader is not None
    assert reader.energy_millijoules() == 0

    for file, microjoules in ((first, 6_000), (second, 9_000), (memory, 4_000), (core, 90_000), (board, 90_000)):
        file.write_text(str(microjoules))

    assert reader.energy_millijoules() == 7
    assert reader.sample() == Sample()


def test_a_counter_that_begins_again_goes_on(tmp_path: Path) -> None:
    file = domain(tmp_path, "0", "package-0", 900_000)
    reader = open_rapl(tmp_path)
    assert reader is not None

    file.write_text("100000")
    assert reader.energy_millijoules() == 200
    file.write_text("150000")

    assert reader.energy_millijoules() == 250


def test_a_machine_without_counters_or_with_unreadable_ones_has_no_reader(tmp_path: Path) -> None:
    assert open_rapl(tmp_path / "none") is None
    file = domain(tmp_path, "0", "package-0", 1)
    file.unlink()
    # Root may read whatever its mode says, so a folder stands for a file that may not be read.
    file.mkdir()

    assert open_rapl(tmp_path) is None


def test_a_counter_that_is_taken_away_leaves_the_energy_unknown(tmp_path: Path) -> None:
    file = domain(tmp_path, "0", "package-0", 1)
    reader = open_rapl(tmp_path)
    assert reader is not None

    file.unlink()

    assert reader.energy_millijoules() is None


# --- accelerators ----------------------------------------------------------------------------------


class FakeNvml:
    """The part of `pynvml` that is used, with one device; what is None is not supported."""

    NVML_TEMPERATURE_GPU = 0

    class NVMLError(Exception):
        pass

    def __init__(self) -> None:
        self.energy: int | None = 1_000
        self.power: int | None = 250_000
        self.utilisation: int | None = 70
        self.memory: int | None = 2**30
        self.temperature: int | None = 55
        self.driver = True
        self.opened = 0
        self.handles: list[object] = []

    def _told(self, value: Any) -> Any:  # noqa: ANN401 -- a fake of an untyped module
        if value is None:
            raise self.NVMLError
        return value

    def nvmlInit(self) -> None:  # noqa: N802 -- its name
        self._told(self.driver or None)
        self.opened += 1

    def nvmlShutdown(self) -> None:  # noqa: N802 -- as above
        self.opened -= 1

    def nvmlDeviceGetHandleByIndex(self, index: int) -> object:  # noqa: N802 -- as above
        self.handles.append(index)
        return self._told(index if index < 4 else None)

    def nvmlDeviceGetHandleByUUID(self, uuid: str) -> object:  # noqa: N802 -- as above
        self.handles.append(uuid)
        return uuid

    def nvmlDeviceGetTotalEnergyConsumption(self, _handle: object) -> int:  # noqa: N802 -- as above
        return int(self._told(self.energy))

    def nvmlDeviceGetPowerUsage(self, _handle: object) -> int:  # noqa: N802 -- as above
        return int(self._told(self.power))

    def nvmlDeviceGetUtilizationRates(self, _handle: object) -> object:  # noqa: N802 -- as above
        return SimpleNamespace(gpu=self._told(self.utilisation), memory=0)

    def nvmlDeviceGetMemoryInfo(self, _handle: object) -> object:  # noqa: N802 -- as above
        return SimpleNamespace(used=self._told(self.memory))

    def nvmlDeviceGetTemperature(self, _handle: object, _sensor: int) -> int:  # noqa: N802 -- as above
        return int(self._told(self.temperature))


def opened(nvml: FakeNvml, clock: HandClock | None = None) -> NvmlReader:
    reader = open_nvml("cuda:0", clock or HandClock(), nvml, {})
    assert reader is not None
    return reader


def test_a_device_tells_its_counter_and_its_gauges() -> None:
    nvml = FakeNvml()
    reader = opened(nvml)

    assert reader.energy_source is EnergySource.NVML_COUNTER
    assert reader.energy_millijoules() == 1_000
    assert reader.sample() == Sample(
        utilisation_percent=70, memory_used_bytes=2**30, power_milliwatts=250_000, temperature_celsius=55
    )
    reader.close()
    assert nvml.opened == 0


def test_without_a_counter_power_is_summed_over_time() -> None:
    nvml, clock = FakeNvml(), HandClock()
    nvml.energy = None
    reader = opened(nvml, clock)

    clock.us = 2_000_000
    assert reader.energy_millijoules() == 500_000
    nvml.power = 100_000
    clock.us = 3_000_000

    assert reader.energy_millijoules() == 600_000
    assert reader.energy_source is EnergySource.NVML_POWER


def test_what_a_device_does_not_tell_is_unknown_and_not_zero() -> None:
    nvml = FakeNvml()
    nvml.energy = nvml.power = nvml.utilisation = None
    reader = opened(nvml)

    assert reader.sample() == Sample(memory_used_bytes=2**30, temperature_celsius=55)
    assert reader.has_gauges
    assert reader.energy_source is None
    assert reader.energy_millijoules() is None


def test_a_device_that_falls_off_leaves_everything_unknown() -> None:
    nvml = FakeNvml()
    reader = opened(nvml)

    nvml.energy = nvml.power = nvml.utilisation = nvml.memory = nvml.temperature = None

    assert reader.sample() == Sample()
    assert reader.energy_millijoules() is None


def test_without_a_driver_or_such_a_device_there_is_no_reader() -> None:
    nvml = FakeNvml()
    assert open_nvml("cuda:9", HandClock(), nvml, {}) is None
    assert nvml.opened == 0

    nvml.driver = False

    assert open_nvml("cuda:0", HandClock(), nvml, {}) is None


@pytest.mark.parametrize(
    ("device", "visible", "handle"),
    [("cuda", None, 0), ("cuda:1", None, 1), ("cuda:1", "3,2", 2), ("cuda:0", "GPU-5e1f", "GPU-5e1f")],
)
def test_devices_are_counted_as_torch_counts_them(device: str, visible: str | None, handle: object) -> None:
    nvml = FakeNvml()

    open_nvml(device, HandClock(), nvml, {} if visible is None else {"CUDA_VISIBLE_DEVICES": visible})

    assert nvml.handles == [handle]


def test_a_device_hidden_from_torch_has_no_reader() -> None:
    assert open_nvml("cuda:1", HandClock(), FakeNvml(), {"CUDA_VISIBLE_DEVICES": "0"}) is None


# --- both together ---------------------------------------------------------------------------------


@dataclass
class FakeDevice:
    """A device that tells what a test says, and counts how it is used."""

    energy_source: EnergySource | None = EnergySource.NVML_COUNTER
    has_gauges: bool = True
    energy: int | None = 0
    samples: Callable[[], Sample] = lambda: Sample(utilisation_percent=50)
    sampled: int = 0
    closed: int = 0

    def energy_millijoules(self) -> int | None:
        return self.energy

    def sample(self) -> Sample:
        self.sampled += 1
        return self.samples()

    def close(self) -> None:
        self.closed += 1


@dataclass
class FakeProcess:
    """A process whose time a test sets."""

    us: int = 0
    peak: int | None = 4096
    reads: list[int] = field(default_factory=list)

    def cpu_us(self) -> int:
        return self.us

    def memory_peak_bytes(self) -> int | None:
        return self.peak


def test_a_reading_shorter_than_the_sampling_period_has_one_sample() -> None:
    device = FakeDevice()
    telemetry = Telemetry(process=FakeProcess(us=7), open_device=lambda _: device, sample_seconds=600.0)
    telemetry.watch("cuda:0")

    reading = telemetry.read()

    assert (reading.cpu_us, reading.memory_peak_bytes, reading.energy_millijoules) == (7, 4096, 0)
    assert reading.energy_source is EnergySource.NVML_COUNTER
    assert reading.window.utilisation_percent == Gauge(count=1, total=50, highest=50)
    telemetry.close()
    assert device.closed == 1


def test_a_thread_samples_in_between_and_each_sample_is_read_once() -> None:
    values = iter([10, 20, 90])
    device = FakeDevice(samples=lambda: Sample(utilisation_percent=next(values, None)))
    telemetry = Telemetry(process=FakeProcess(), open_device=lambda _: device, sample_seconds=0.001)

    telemetry.watch("cuda:0")
    eventually(lambda: device.sampled > 3)
    gauge = telemetry.read().window.utilisation_percent
    telemetry.close()

    assert (gauge.mean, gauge.highest) == (40, 90)


def test_a_sampler_that_breaks_takes_nobody_with_it(caplog: pytest.LogCaptureFixture) -> None:
    def broken() -> Sample:
        raise RuntimeError("a bug in a driver")

    telemetry = Telemetry(process=FakeProcess(), open_device=lambda _: FakeDevice(samples=broken), sample_seconds=0.001)

    telemetry.watch("cuda:0")
    eventually(lambda: "sampling_ended" in caplog.messages)

    telemetry.close()


def test_a_device_that_breaks_in_unforeseen_ways_is_unknown(caplog: pytest.LogCaptureFixture) -> None:
    def broken(_device: str = "") -> Sample:
        raise RuntimeError("a bug in a driver")

    samples = Telemetry(process=FakeProcess(), open_device=lambda _: FakeDevice(samples=broken), sample_seconds=600.0)
    opens = Telemetry(process=FakeProcess(us=3), open_device=broken)  # type: ignore[arg-type] # it returns nothing at all
    samples.watch("cuda:0")
    opens.watch("cuda:0")

    assert samples.read().energy_millijoules is None
    assert opens.read().cpu_us == 3
    assert {"device_not_read", "device_not_opened"} <= set(caplog.messages)
    samples.close()


def test_another_device_is_opened_when_an_engine_comes_to_it_and_the_same_one_is_not() -> None:
    devices = {"cpu": FakeDevice(has_gauges=False), "cuda:0": FakeDevice()}
    asked: list[str] = []

    def open_device(name: str) -> FakeDevice:
        asked.append(name)
        return devices[name]

    telemetry = Telemetry(process=FakeProcess(), open_device=open_device, sample_seconds=600.0)
    for device in ("cpu", "cpu", "cuda:0"):
        telemetry.watch(device)

    assert asked == ["cpu", "cuda:0"]
    assert devices["cpu"].closed == 1
    telemetry.close()


def test_a_machine_that_tells_nothing_leaves_energy_and_gauges_unknown() -> None:
    telemetry = Telemetry(process=FakeProcess(), open_device=lambda _: None)
    telemetry.watch("cpu")

    reading = telemetry.read()

    assert reading.energy_millijoules is None
    assert reading.energy_source is None
    assert reading.window.utilisation_percent.mean is None


def test_this_machine_can_be_asked_whatever_it_has() -> None:
    # No driver, no permission: all of that is None, never a raise.
    reader = open_rapl()
    assert reader is None or reader.energy_millijoules() is not None
    reader_of_device = open_nvml("cuda:0", HandClock(), environment=dict(os.environ))
    if reader_of_device is not None:
        reader_of_device.sample()
        reader_of_device.close()
