"""A month of a fleet in the simulator: the scheduler's own cycle, packs, workers, spot machines that are taken."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import date
from random import Random

from pipeline.domain.ids import BatchId, TenantId
from pipeline.domain.tiers import Tier
from pipeline.ports.cycle import Serving
from scheduler.policy import Policy
from scheduler.simulate.arrivals import Arrival, Workload, made_up
from scheduler.simulate.fleet import Absence, Fleet, Pool, Speed, random_absences
from scheduler.simulate.record import Record
from scheduler.simulate.simulation import Simulation
from tests.bench.machine_lives import BOOT_SECONDS, LOAD_SECONDS, Life, lives_of

DAY_SECONDS = 86_400
LEASE_SECONDS = 30.0
#: What workers of one pool serve, and how often each is asked for.
MODELS: Mapping[str, float] = {"model-0": 0.25, "model-1": 0.25, "model-2": 0.25, "model-3": 0.15, "model-4": 0.1}


@dataclass(frozen=True, kw_only=True)
class Month:
    """What to simulate."""

    first: date = date(2026, 11, 1)
    days: int = 30
    tenants: int = 10
    batches_a_month: int = 5_000
    rows_a_month: int = 20_000_000
    workers: int = 12
    pools: int = 4
    #: What a cycle costs is spent once a pack: long ones let a month be simulated in minutes.
    pack_seconds: float = 900.0
    #: How often a worker commits what it has of a pack. With what the others say, a million entries in thirty days.
    commit_seconds: float = 72.0
    seed: int = 1

    @property
    def seconds(self) -> int:
        return self.days * DAY_SECONDS

    @property
    def batches(self) -> int:
        return max(1, self.batches_a_month * self.days // 30)

    @property
    def rows(self) -> int:
        return self.rows_a_month * self.days // 30

    @property
    def row_seconds(self) -> float:
        """Return what a row takes a worker: all of them keep the fleet busy for three quarters of its time."""
        return 0.76 * self.workers * 30 * DAY_SECONDS / self.rows_a_month


def arrivals(month: Month) -> tuple[Arrival, ...]:
    """Return so many batches with so many rows in all, as a tide of each day brings them."""
    random = Random(month.seed)
    drawn = made_up(
        Workload(
            hours=month.days * 24,
            batches_an_hour=month.batches / month.days / 24 * 1.3 + 1,
            tenants=month.tenants,
            rows_median=1_000,
            rows_spread=1.0,
            tiers={Tier.URGENT: 1, Tier.STANDARD: 4, Tier.BULK: 3, Tier.NIGHTLY: 2},
        ),
        seed=month.seed,
    )
    kept = [drawn[place] for place in sorted(random.sample(range(len(drawn)), month.batches))]
    models = random.choices(list(MODELS), weights=list(MODELS.values()), k=len(kept))
    # Each model has its share of rows exactly: by chance, a few large batches would keep a pool behind for days.
    of_model = {
        model: sum(_weight(each) for each, its in zip(kept, models, strict=True) if its == model) for model in MODELS
    }
    scale = {model: share * month.rows / of_model[model] for model, share in MODELS.items() if of_model[model]}
    found = [
        replace(
            _scaled(each, max(1, round(_weight(each) * scale[model]))),
            batch_id=BatchId(f"batch_m{number:06d}"),
            tenant_id=TenantId(f"tnt_m{int(each.tenant_id.removeprefix('tnt_'))}"),
            model=model,
            template=number % 50,
        )
        for number, (each, model) in enumerate(zip(kept, models, strict=True))
    ]
    largest = max(range(len(found)), key=lambda place: found[place].estimated.rows)
    missing = month.rows - sum(round(each.estimated.rows) for each in found)
    rows = round(found[largest].estimated.rows) + missing
    found[largest] = _scaled(found[largest], rows)
    return tuple(found)


def _weight(arrival: Arrival) -> float:
    # What is urgent is small: an hour is soon over.
    return arrival.estimated.rows * (0.2 if arrival.tier is Tier.URGENT else 1.0)


def _scaled(arrival: Arrival, rows: int) -> Arrival:
    size = arrival.estimated
    share = rows / size.rows
    scaled = replace(size, rows=rows, input_tokens=size.input_tokens * share, output_tokens=size.output_tokens * share)
    return replace(arrival, estimated=scaled)


def fleet(month: Month) -> Fleet:
    """Return pools of which all but the last are spot; a model each, and the last has what is left."""
    names = list(MODELS)
    models = [*([name] for name in names[: month.pools - 1]), names[month.pools - 1 :]]
    speed = Speed(
        row_seconds=month.row_seconds * 0.4,
        input_tokens_per_second=300 / month.row_seconds / 0.3,
        output_tokens_per_second=60 / month.row_seconds / 0.3,
    )
    return Fleet(
        pools=tuple(
            Pool(
                name=f"pool-{place}",
                workers=month.workers // month.pools,
                speeds={f"{model}@int8": speed for model in served},
                servings=tuple(
                    Serving(variant=f"{model}@int8", model=model, tiers=frozenset(Tier)) for model in served
                ),
                absences=tuple(_absences(month, place)),
            )
            for place, served in enumerate(models)
        ),
        lease_seconds=LEASE_SECONDS,
    )


def _absences(month: Month, place: int) -> Iterator[Absence]:
    workers, ready_after = month.workers // month.pools, BOOT_SECONDS + LOAD_SECONDS
    # On spot machines, which all pools but the last have, a worker is gone for half an hour every day or so.
    taken = random_absences(
        workers=workers if place < month.pools - 1 else 0,
        share=0.02,
        mean_seconds=1800,
        hours=month.days * 24,
        seed=month.seed * 100 + place,
    )
    for worker in range(workers):
        # All are launched as the month begins, one after the other.
        here_at = ready_after + worker * 7.0
        yield Absence(worker=worker, from_seconds=0.0, to_seconds=here_at)
        for each in taken:
            # The next machine is asked for once the last one is known to be lost.
            if each.worker == worker and each.from_seconds > here_at:
                here_at = max(each.to_seconds, each.from_seconds + LEASE_SECONDS + ready_after)
                yield Absence(worker=worker, from_seconds=each.from_seconds, to_seconds=here_at)


@dataclass(frozen=True, kw_only=True)
class Simulated:
    """What a month came to."""

    arrivals: tuple[Arrival, ...]
    record: Record
    lives: list[Life]


def simulate(month: Month) -> Simulated:
    """Run the month; equal months come to equal ones."""
    asked, machines = arrivals(month), fleet(month)
    policy = Policy(pack_seconds_target=month.pack_seconds, first_pack_seconds=60.0, packs_ahead_per_worker=1)
    record = Simulation(asked, machines, policy, seed=month.seed).run(until_seconds=month.seconds)
    lives = lives_of(record, asked, machines, month_seconds=month.seconds, commit_seconds=month.commit_seconds)
    return Simulated(arrivals=asked, record=record, lives=lives)
