"""Telemetry: totals when asked, and a thread that looks at an accelerator in between."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Final

from pipeline.ports.clock import Clock
from pipeline.ports.meters import EnergySource
from workers.telemetry.nvml import open_nvml
from workers.telemetry.process import OwnProcess
from workers.telemetry.rapl import open_rapl
from workers.telemetry.readings import DeviceReader, ProcessReader, Reading, Window

_LOG = logging.getLogger(__name__)

_SAMPLE_SECONDS: Final = 1.0


class Telemetry:
    """Reads this process and the device that the engine runs on."""

    def __init__(
        self,
        *,
        process: ProcessReader,
        open_device: Callable[[str], DeviceReader | None],
        sample_seconds: float = _SAMPLE_SECONDS,
    ) -> None:
        """Open devices by `open_device` when engines come to them; sample gauges every `sample_seconds`."""
        self._process = process
        self._open_device = open_device
        self._sample_seconds = sample_seconds
        self._device: str | None = None
        #: Guards the reader and the window, which the sampling thread uses too.
        self._lock = threading.Lock()
        self._reader: DeviceReader | None = None
        self._window = Window()
        self._stopped = threading.Event()
        self._thread: threading.Thread | None = None

    def watch(self, device: str) -> None:
        """Read `device`, such as `cpu` or `cuda:0`, from here on."""
        if device == self._device:
            return
        self.close()
        self._device = device
        self._reader = self._open(device)
        if self._reader is not None and self._reader.has_gauges:
            self._stopped = threading.Event()
            self._thread = threading.Thread(
                target=self._sample_until, args=(self._stopped,), name="telemetry", daemon=True
            )
            self._thread.start()

    def read(self) -> Reading:
        """Return the totals now, and the device since the last reading."""
        with self._lock:
            window, self._window = self._window, Window()
            energy, source = self._read_device(window)
        return Reading(
            cpu_us=self._process.cpu_us(),
            memory_peak_bytes=self._process.memory_peak_bytes(),
            energy_millijoules=energy,
            energy_source=source,
            window=window,
        )

    def close(self) -> None:
        """Let go of the device."""
        self._stopped.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        with self._lock:
            if self._reader is not None:
                self._reader.close()
            self._reader, self._device, self._window = None, None, Window()

    def _open(self, device: str) -> DeviceReader | None:
        try:
            return self._open_device(device)
        except Exception:  # noqa: BLE001 -- a worker computes without meters rather than not at all
            _LOG.exception("device_not_opened", extra={"device": device})
            return None

    def _read_device(self, window: Window) -> tuple[int | None, EnergySource | None]:
        reader = self._reader
        if reader is None:
            return None, None
        try:
            if reader.has_gauges and not window.samples:
                # A pack shorter than the sampling period.
                window.note(reader.sample())
            return reader.energy_millijoules(), reader.energy_source
        except Exception:  # noqa: BLE001 -- as above
            _LOG.exception("device_not_read", extra={"device": self._device})
            return None, None

    def _sample_until(self, stopped: threading.Event) -> None:
        try:
            while not stopped.wait(self._sample_seconds):
                with self._lock:
                    if self._reader is not None:
                        self._window.note(self._reader.sample())
        except Exception:  # noqa: BLE001 -- a worker computes on without its gauges
            _LOG.exception("sampling_ended")


def machine_telemetry(clock: Clock) -> Telemetry:
    """Return the telemetry of this machine: NVIDIA's driver for accelerators, RAPL for processors."""

    def open_device(device: str) -> DeviceReader | None:
        return open_nvml(device, clock) if device.startswith("cuda") else open_rapl()

    return Telemetry(process=OwnProcess(), open_device=open_device)
