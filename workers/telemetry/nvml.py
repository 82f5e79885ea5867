"""One accelerator, as NVIDIA's driver tells of it. Figures are the whole device's, whoever used it."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Any, Final, TypeVar

from pipeline.ports.clock import Clock
from pipeline.ports.meters import EnergySource
from workers.telemetry.readings import Sample

Value = TypeVar("Value")

#: Milliwatts times microseconds in a millijoule.
_PER_MILLIJOULE: Final = 1_000_000


class NvmlReader:
    """`DeviceReader` of one device."""

    def __init__(self, nvml: Any, handle: object, clock: Clock) -> None:  # noqa: ANN401 -- the library has no types
        """Read the device `handle` by the module `nvml`, which is initialized and is shut down by `close`."""
        self._nvml = nvml
        self._handle = handle
        self._clock = clock
        #: Power times time, for devices older than the counter (Volta brought it), and when it was added to.
        self._energy = 0
        self._sampled_us: int | None = None
        has_counter = self._ask(nvml.nvmlDeviceGetTotalEnergyConsumption) is not None
        self._source: EnergySource | None = EnergySource.NVML_COUNTER if has_counter else EnergySource.NVML_POWER
        self.has_gauges = self.sample() != Sample()
        if not has_counter and self._sampled_us is None:
            self._source = None

    @property
    def energy_source(self) -> EnergySource | None:
        """Return the counter, or sampled power; None where the device tells neither."""
        return self._source

    def energy_millijoules(self) -> int | None:
        """Return the counter, or the sum of power over time up to now."""
        if self._source is EnergySource.NVML_COUNTER:
            return self._ask(self._nvml.nvmlDeviceGetTotalEnergyConsumption)
        if self._source is None:
            return None
        self._power()
        return self._energy // _PER_MILLIJOULE

    def sample(self) -> Sample:
        """Return how the device is now; utilisation is the driver's own mean over its last period, a second at most."""
        utilisation = self._ask(self._nvml.nvmlDeviceGetUtilizationRates)
        memory = self._ask(self._nvml.nvmlDeviceGetMemoryInfo)
        return Sample(
            utilisation_percent=None if utilisation is None else int(utilisation.gpu),
            memory_used_bytes=None if memory is None else int(memory.used),
            power_milliwatts=self._power(),
            temperature_celsius=self._ask(
                lambda handle: self._nvml.nvmlDeviceGetTemperature(handle, self._nvml.NVML_TEMPERATURE_GPU)
            ),
        )

    def close(self) -> None:
        """Let go of the driver."""
        self._nvml.nvmlShutdown()

    def _power(self) -> int | None:
        power = self._ask(self._nvml.nvmlDeviceGetPowerUsage)
        now_us = self._clock.monotonic_us()
        if power is not None:
            if self._sampled_us is not None:
                self._energy += power * (now_us - self._sampled_us)
            self._sampled_us = now_us
        return power

    def _ask(self, call: Callable[[object], Value]) -> Value | None:
        try:
            return call(self._handle)
        except self._nvml.NVMLError:
            # Not supported by this device, not permitted, or the device fell off: all the same to a meter.
            return None


def open_nvml(
    device: str,
    clock: Clock,
    nvml: Any = None,  # noqa: ANN401 -- the library has no types
    environment: Mapping[str, str] = os.environ,
) -> NvmlReader | None:
    """Return a reader of a torch device such as `cuda:1`; None where there is no driver, library or such device.

    Torch counts the devices that `CUDA_VISIBLE_DEVICES` lets it see, in that order; without it both count
    alike on machines whose devices are of one kind.
    """
    nvml = nvml or _library()
    if nvml is None:
        return None
    try:
        nvml.nvmlInit()
    except nvml.NVMLError:
        return None
    try:
        return NvmlReader(nvml, _handle(nvml, int(device.partition(":")[2] or 0), environment), clock)
    except (nvml.NVMLError, LookupError, ValueError):
        nvml.nvmlShutdown()
        return None


def _library() -> Any:  # noqa: ANN401 -- as above
    try:
        import pynvml
    except ImportError:
        return None
    return pynvml


def _handle(nvml: Any, index: int, environment: Mapping[str, str]) -> object:  # noqa: ANN401 -- as above
    visible = environment.get("CUDA_VISIBLE_DEVICES")
    if visible is None:
        return nvml.nvmlDeviceGetHandleByIndex(index)
    name = visible.split(",")[index].strip()
    return nvml.nvmlDeviceGetHandleByIndex(int(name)) if name.isdigit() else nvml.nvmlDeviceGetHandleByUUID(name)
