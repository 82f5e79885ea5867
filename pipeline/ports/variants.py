"""The port to the registry of variants: what was added, what the gate said, what was tuned."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Protocol

from pipeline.domain.gates import GateVerdict
from pipeline.domain.models import ModelSpec
from pipeline.domain.tiers import Tier


@dataclass(frozen=True, slots=True, kw_only=True)
class Qualification:
    """What was found, or said, of a variant for one tier."""

    variant: str
    tier: Tier
    verdict: GateVerdict
    #: What the verdict holds for (see `pipeline.domain.gates.gate_key`); None: whatever it becomes.
    gate_key: str | None
    #: The variant it was compared with; None where a person spoke.
    reference: str | None = None
    #: Seconds of device time a token takes, relative to the reference; None where it was not measured.
    relative_cost: float | None = None
    #: One sentence.
    reason: str = ""
    #: The figures, as the report has them.
    report: Mapping[str, Any] = field(default_factory=dict)
    #: None before it is stored.
    created_at: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Tuning:
    """The engine options found best for a variant on one kind of device."""

    variant: str
    gate_key: str
    #: The device and how much of it, such as `cpu x2` or `NVIDIA H200`.
    device: str
    options: Mapping[str, int]
    #: What the probes measured.
    figures: Mapping[str, Any] = field(default_factory=dict)
    created_at: datetime | None = None


class VariantStore(Protocol):
    """The registry."""

    def variants(self) -> tuple[ModelSpec, ...]:
        """Return every variant that was added and not removed."""

    def add(self, spec: ModelSpec) -> None:
        """Record a variant; raises `ConflictError` when one of that name is there."""

    def remove(self, variant: str) -> None:
        """Take a variant out of use; raises `NotFoundError`. What ran on it keeps its name."""

    def qualify(self, qualifications: Sequence[Qualification]) -> None:
        """Record verdicts; the last one for a (variant, gate key, tier) holds."""

    def qualifications(self, variant: str) -> tuple[Qualification, ...]:
        """Return what was ever said of the variant, the newest first."""

    def tune(self, tuning: Tuning) -> None:
        """Record the best options; replaces what was found before for the same device."""

    def tunings(self) -> tuple[Tuning, ...]:
        """Return the last tuning of each (variant, gate key, device)."""
