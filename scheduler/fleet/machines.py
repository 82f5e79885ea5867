"""Which machine for which model: those that hold it, are where they may be, and are of the kind a tier asks for, by price."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from pipeline.domain.costs.catalogue import Hardware
from pipeline.domain.costs.prices import Market
from pipeline.domain.tiers import Tier
from pipeline.ports.fleet import PaceSource, UnitPace
from scheduler.fleet.offers import price_per_million_tokens


@dataclass(frozen=True, slots=True, kw_only=True)
class MachineKind:
    """A machine that can be rented: what it has."""

    name: str
    provider: str
    #: None: it computes on its CPUs.
    gpu: str | None = None
    #: Of all its GPUs together.
    gpu_memory_gib: float = 0.0
    memory_gib: float = 0.0

    @classmethod
    def of(cls, hardware: Hardware) -> MachineKind:
        """Return an instance type of the catalogue."""
        return cls(
            name=hardware.instance_type,
            provider=hardware.provider,
            gpu=hardware.gpu if hardware.gpu_count else None,
            gpu_memory_gib=float(hardware.gpu_count * hardware.gpu_memory_gib),
            memory_gib=float(hardware.memory_gib),
        )

    @property
    def memory_for_models_gib(self) -> float:
        """What weights and caches must fit into."""
        return self.gpu_memory_gib if self.gpu else self.memory_gib


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelNeed:
    """What a variant of a model asks of a machine."""

    variant: str
    #: Weights, and the least room for caches that it is run with.
    memory_gib: float
    #: Tiers whose rows must run on a GPU; the others' may run on CPUs too.
    gpu_tiers: frozenset[Tier] = frozenset()
    #: Where its rows may run; None: anywhere.
    regions: frozenset[str] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class PlacePrice:
    """What a kind of machine costs in a place and a market, an hour of work, starts and lost work included."""

    kind: str
    market: Market
    region: str
    micros_per_hour: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """A place to run a variant at, and what a million tokens cost there, in micro-units."""

    price: PlacePrice
    pace: UnitPace
    million_tokens_micros: float


def tabled_pace(tokens_per_second: float, *, row_seconds: float = 0.0) -> UnitPace:
    """Return the pace of a table that tells tokens a second, input and output alike."""
    if not (math.isfinite(tokens_per_second) and tokens_per_second > 0):
        raise ValueError(f"tokens_per_second is {tokens_per_second}; it must be above 0")
    return UnitPace(
        row_seconds=row_seconds,
        input_token_seconds=1 / tokens_per_second,
        output_token_seconds=1 / tokens_per_second,
        source=PaceSource.TABLED,
    )


def fits(kind: MachineKind, need: ModelNeed, tier: Tier) -> bool:
    """Whether a machine holds a variant and may run a tier's rows of it."""
    if kind.gpu is None and tier in need.gpu_tiers:
        return False
    return kind.memory_for_models_gib >= need.memory_gib


@dataclass(frozen=True, slots=True, kw_only=True)
class Machines:
    """Kinds of machines, what is known of their speed, and what they cost where."""

    kinds: Mapping[str, MachineKind]
    prices: tuple[PlacePrice, ...]
    #: By kind and variant: as measured.
    measured: Mapping[tuple[str, str], UnitPace] = field(default_factory=dict)
    #: The same of a table, for what nobody has measured.
    tabled: Mapping[tuple[str, str], UnitPace] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        hardware: Iterable[Hardware],
        prices: Iterable[PlacePrice],
        *,
        measured: Mapping[tuple[str, str], UnitPace],
        tabled: Mapping[tuple[str, str], UnitPace],
    ) -> Machines:
        """Return the machines of a catalogue."""
        kinds = {each.instance_type: MachineKind.of(each) for each in hardware}
        return cls(kinds=kinds, prices=tuple(prices), measured=measured, tabled=tabled)

    def pace(self, kind: str, variant: str) -> UnitPace | None:
        """Return how fast a kind runs a variant: as measured, else as tabled, else nobody knows."""
        return self.measured.get((kind, variant)) or self.tabled.get((kind, variant))

    def choices(self, need: ModelNeed, tier: Tier, *, output_share: float = 0.5) -> list[Choice]:
        """Return where a tier's rows of a variant may run, the cheapest per token first."""
        found = []
        for price in self.prices:
            kind = self.kinds.get(price.kind)
            pace = self.pace(price.kind, need.variant)
            if kind is None or pace is None or not fits(kind, need, tier):
                continue
            if need.regions is not None and price.region not in need.regions:
                continue
            cost = price_per_million_tokens(price.micros_per_hour, pace, output_share=output_share)
            found.append(Choice(price=price, pace=pace, million_tokens_micros=cost))
        return sorted(found, key=lambda each: (each.million_tokens_micros, each.price.kind, each.price.region))
