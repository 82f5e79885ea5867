"""What is measured of engines, devices and attempts. None always means that nobody could know it, never zero."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class EnergySource(StrEnum):
    """Where a figure of energy comes from."""

    #: The accelerator's own counter: the whole device, whoever used it.
    NVML_COUNTER = "nvml_counter"
    #: The accelerator's power, sampled and summed up over time, where it has no counter.
    NVML_POWER = "nvml_power"
    #: The processor packages' and their memory's counters: the whole machine, whoever used it.
    RAPL = "rapl"


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineIdentity:
    """Which engine computed a result, on what, from which weights: precise enough to compute it again."""

    #: Short name of the engine, such as `torch`.
    engine: str
    #: Version of the library that computes; empty where no model is run.
    version: str = ""
    #: Precision or recipe of the weights, such as `float32`.
    precision: str = ""
    #: Hash of the model folder's content; its first twelve digits are shown.
    revision: str = ""
    #: Such as `cpu` or `cuda:0`.
    device: str = "cpu"

    @property
    def fingerprint(self) -> str:
        """Return `<engine>-<version>-<precision>-<12 digits of the revision>`, less what the engine has not."""
        return "-".join(filter(None, (self.engine, self.version, self.precision, self.revision[:12])))


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineMeters:
    """An engine's counters since it was loaded; none of them ever falls."""

    #: Passes of the model.
    engine_steps: int = 0
    #: Rows computed, summed over the steps: the numerator of the batch's occupancy.
    slot_steps_busy: int | None = None
    #: Rows that could have been computed, summed over the steps: its denominator.
    slot_steps: int | None = None
    #: Input tokens computed.
    tokens_prefilled: int | None = None
    #: Input tokens taken from another row's prefix instead.
    tokens_cached: int | None = None
    #: Output tokens computed.
    tokens_generated: int | None = None
    #: Tokens computed only because rows in one pass had to be of one length.
    tokens_padding: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class AttemptMeters:
    """What one attempt used. Counters sum up over attempts; see `workers.apportioner` for how they are shared."""

    #: None for an attempt that ended before its first row reached an engine.
    identity: EngineIdentity | None = None
    engine_steps: int | None = None
    slot_steps_busy: int | None = None
    slot_steps: int | None = None
    tokens_prefilled: int | None = None
    tokens_cached: int | None = None
    tokens_generated: int | None = None
    tokens_padding: int | None = None
    #: Time inside the engine's steps.
    engine_us: int | None = None
    #: Time in which the engine was empty though this pack was waiting to be leased, read or entered.
    bubble_us: int = 0
    #: Processor time of the worker process, all its threads.
    cpu_us: int | None = None
    #: The worker process's resident memory at its highest since it started.
    memory_peak_bytes: int | None = None
    energy_millijoules: int | None = None
    energy_source: EnergySource | None = None
    device_memory_max_bytes: int | None = None
    device_utilisation_mean_percent: int | None = None
    device_utilisation_max_percent: int | None = None
    device_power_mean_milliwatts: int | None = None
    device_power_max_milliwatts: int | None = None
    device_temperature_mean_celsius: int | None = None
    device_temperature_max_celsius: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchMeters:
    """What a batch took of its attempts, shared as their price is; None where nothing measured it."""

    #: Attempts that have ended and committed something of the batch.
    attempts: int
    #: What computed the rows.
    fingerprints: tuple[str, ...]
    tokens: int
    engine_us: int | None
    bubble_us: int | None
    cpu_us: int | None
    engine_steps: int | None
    slot_steps_busy: int | None
    slot_steps: int | None
    tokens_prefilled: int | None
    tokens_cached: int | None
    tokens_generated: int | None
    tokens_padding: int | None
    memory_peak_bytes: int | None
    #: None too where some of the attempts have no figure.
    energy_millijoules: int | None
    energy_sources: tuple[str, ...]
