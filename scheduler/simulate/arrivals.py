"""Arrivals: batches that come, one after the other."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from random import Random
from typing import Final

from pipeline.domain.endpoints import Endpoint
from pipeline.domain.ids import BatchId, TenantId
from pipeline.domain.tiers import DEFAULT_WINDOWS, Tier
from pipeline.domain.windows import parse_window
from pipeline.ports.cycle import WorkSize

_DAY_SECONDS: Final = 86_400


@dataclass(frozen=True, slots=True, kw_only=True)
class Arrival:
    """A batch, and what nobody knows of it before it has run."""

    batch_id: BatchId
    tenant_id: TenantId
    tier: Tier
    model: str
    #: Seconds since the simulation began.
    at_seconds: float
    window_seconds: float
    #: As intake estimates it.
    estimated: WorkSize
    #: Actual output tokens over estimated ones.
    output_ratio: float = 1.0
    endpoint: Endpoint = Endpoint.CHAT_COMPLETIONS
    template: int = 0
    hold_until_seconds: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Workload:
    """What to make arrivals up from; the rates of a day rise and fall around their mean like a tide."""

    hours: float = 24.0
    batches_an_hour: float = 20.0
    tenants: int = 8
    #: Rows of a batch are spread log-normally around this.
    rows_median: float = 1000.0
    rows_spread: float = 1.2
    input_tokens_a_row: float = 300.0
    output_tokens_a_row: float = 100.0
    model: str = "model"
    #: How often each tier is chosen, relative to the others.
    tiers: Mapping[Tier, float] | None = None
    #: Highest over mean rate of arrivals in a day; 1 is no tide.
    peak: float = 1.6


def made_up(workload: Workload, *, seed: int) -> tuple[Arrival, ...]:
    """Return the arrivals of a Poisson process whose rate follows the day; equal seeds give equal ones."""
    random = Random(seed)  # noqa: S311 -- a simulation, not a secret
    tiers = workload.tiers or {Tier.URGENT: 1, Tier.STANDARD: 4, Tier.BULK: 3, Tier.NIGHTLY: 2}
    return tuple(
        _made_up(workload, random, number, at_seconds, tiers)
        for number, at_seconds in zip(count(), _instants(workload, random), strict=False)
    )


def _instants(workload: Workload, random: Random) -> Iterator[float]:
    """Thin a process at the peak's rate down to the rate of the moment (P. Lewis, G. Shedler, 1979)."""
    peak_rate = workload.batches_an_hour * workload.peak / 3600
    at_seconds = 0.0
    while (at_seconds := at_seconds + random.expovariate(peak_rate)) < workload.hours * 3600:
        tide = 1 + (workload.peak - 1) * math.sin(2 * math.pi * at_seconds / _DAY_SECONDS)
        if random.random() * workload.peak <= tide:
            yield at_seconds


def _made_up(
    workload: Workload, random: Random, number: int, at_seconds: float, tiers: Mapping[Tier, float]
) -> Arrival:
    tier = random.choices(list(tiers), weights=list(tiers.values()))[0]
    rows = max(1, round(random.lognormvariate(math.log(workload.rows_median), workload.rows_spread)))
    return Arrival(
        batch_id=BatchId(f"batch_{number:06d}"),
        # Few tenants send much: shares fall like 1/n.
        tenant_id=TenantId(f"tnt_{_zipf(random, workload.tenants):03d}"),
        tier=tier,
        model=workload.model,
        at_seconds=at_seconds,
        window_seconds=parse_window(DEFAULT_WINDOWS[tier]).total_seconds(),
        estimated=WorkSize(
            rows=rows,
            input_tokens=rows * workload.input_tokens_a_row * random.lognormvariate(0, 0.3),
            output_tokens=rows * workload.output_tokens_a_row * random.lognormvariate(0, 0.3),
        ),
        output_ratio=min(1.0, random.lognormvariate(-0.5, 0.4)),
        template=number,
    )


def _zipf(random: Random, tenants: int) -> int:
    ranks: Sequence[int] = range(tenants)
    return random.choices(ranks, weights=[1 / (rank + 1) for rank in ranks])[0]
