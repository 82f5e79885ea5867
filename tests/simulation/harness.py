"""One seed, one run: draw the faults, let them rage, heal, drain, check."""

from __future__ import annotations

import random
from functools import partial
from typing import Final

from pipeline.domain.endpoints import Endpoint
from pipeline.domain.ids import BatchId, PackId, TenantId
from pipeline.domain.shares import UnitCosts
from pipeline.domain.tiers import Tier
from pipeline.ports.cycle import PackDraft, SliceDraft
from tests.simulation.invariants import check
from tests.simulation.layers import REAL, Layers
from tests.simulation.schedulers import canceller, dispatcher, fleet, rescuer
from tests.simulation.world import MODEL, POOL, Plan, Report, World

_TENANT: Final = TenantId("tnt_default")

#: Events that the whole range of seeds must bring about, each at least once.
SOMETIMES: Final = (
    "ambiguous_call",
    "ambiguous_commit",
    "attempt_failed",
    "bisected_by_rescue",
    "convicted",
    "convictor_fenced",
    "fenced_commit",
    "fenced_finish",
    "hint_doubled",
    "hint_late",
    "hint_lost",
    "innocent_by_faults",
    "killed",
    "late_span",
    "lease_refused",
    "muted",
    "paused",
    "poison_crash",
    "preempted",
    "preempted_hard",
    "renewal_lost",
    "replayed_commit",
    "rescue_late",
    "rescued",
    "scheduler_crashed",
    "scheduler_paused",
    "sealed",
    "self_fenced",
    "skipped_withdrawn",
    "stopped",
    "store_error",
    "verdict_bisect",
    "verdict_convict",
    "verdict_done",
    "verdict_retry",
    "withdrawn",
    "worker_lost",
    "zombie",
)


def run(seed: int, layers: Layers = REAL, *, traced: bool = False) -> Report:
    """Run one seed to its end and return what happened."""
    rng = random.Random(seed)
    plan = _draw(rng)
    world = World(seed, rng, plan, layers, traced=traced)
    store = world.store
    for shard_id, (batch_id, rows) in enumerate(plan.batches.items(), 1):
        store.add_batch(_TENANT, batch_id)
        store.add_shard(shard_id, batch_id, 0, rows)
    if traced:
        world.say(plan)
    world.start(dispatcher(world))
    world.start(canceller(world))
    world.start(fleet(world))
    for _ in range(plan.rescuers):
        scheduler = partial(rescuer, world)
        world.start(scheduler(), delay_us=rng.randrange(1_000), restart=scheduler)
    world.run()
    world.report.violations += check(world)
    return world.report


def _draw(rng: random.Random) -> Plan:
    """Draw the work, then a swarm of faults: each is on in some seeds only, softly or hard."""
    batches = {BatchId(f"batch_{number}"): rng.randrange(1, 8) for number in range(rng.randrange(1, 4))}
    plan = Plan(
        workers=rng.randrange(1, 5),
        rescuers=rng.randrange(1, 3),
        heal_at_us=rng.randrange(3_000, 20_000),
        part_rows=rng.randrange(1, 5),
        run_us=rng.choice((200, 600, 1_500)),
        poll_us=rng.choice((800, 2_500)),
        silence_us=rng.choice((3_000, rng.randrange(3_000, 6_000))),
        rescue_us=rng.choice((500, 1_200)),
        workers_first=rng.random() < 0.5,
        rate_micros_per_hour=rng.choice((0, 333_333_333, 2_500_000_007, 9_999_999_999)),
        batches=batches,
        dispatches=_draw_packs(rng, batches),
        withdrawals=[],
        poison={},
    )
    if rng.random() < 0.3:
        plan.poison = {number: 1 << rng.randrange(rows) for number, rows in enumerate(batches.values(), 1)}
        plan.poison_kills = rng.random() < 0.7
    if rng.random() < 0.3:
        plan.withdrawals = [(rng.randrange(8_000), rng.choice(list(batches)))]
    plan.is_calm = rng.random() < 0.1
    if not plan.is_calm:
        _draw_faults(rng, plan)
    return plan


def _draw_packs(rng: random.Random, batches: dict[BatchId, int]) -> list[tuple[int, PackDraft]]:
    """Cut the rows of all batches, in order, into a few packs that may span batches."""
    rows = [(number, batch_id, n) for number, (batch_id, total) in enumerate(batches.items(), 1) for n in range(total)]
    cuts = sorted([*rng.sample(range(1, len(rows) + 1), min(len(rows), rng.randrange(1, 5))), len(rows)])
    packs: list[tuple[int, PackDraft]] = []
    start = 0
    for cut in cuts:
        if cut > start:
            slices = tuple(
                SliceDraft(batch_id=batch_id, shard_id=shard_id, row_start=row, row_stop=row + 1)
                for shard_id, batch_id, row in rows[start:cut]
            )
            packs.append((rng.randrange(3_000), _pack(len(packs) + 1, rng.randrange(3), slices)))
            start = cut
    return sorted(packs, key=lambda pack: (pack[0], pack[1].pack_id))


def _pack(number: int, ordinal: int, slices: tuple[SliceDraft, ...]) -> PackDraft:
    return PackDraft(
        pack_id=PackId(f"pack_{number}"),
        pool=POOL,
        model=MODEL,
        variant=MODEL,
        endpoint=Endpoint.CHAT_COMPLETIONS,
        tier=Tier.STANDARD,
        ordinal=float(ordinal),
        predicted_seconds=1.0,
        slices=slices,
        unit_costs=UnitCosts(row_picoseconds=7, input_token_picoseconds=2, output_token_picoseconds=20),
    )


def _draw_faults(rng: random.Random, plan: Plan) -> None:
    def maybe(*levels: float) -> float:
        return rng.choice(levels) if rng.random() < 0.5 else 0.0

    plan.kill_rate = maybe(0.003, 0.01, 0.04)
    plan.pause_rate = maybe(0.003, 0.01, 0.04)
    plan.pause_us_max = rng.choice((3_000, 12_000))
    plan.clock_stops = rng.random() < 0.5
    plan.mute_rate = maybe(0.02, 0.2) if rng.random() < 0.5 else 0.0
    plan.preempt_rate = maybe(0.05, 0.3)
    plan.grace_us = rng.choice((2, 1_000, 5_000))
    plan.error_before = maybe(0.02, 0.1, 0.3)
    plan.error_after = maybe(0.02, 0.1, 0.2)
    plan.scheduler_crash_rate = maybe(0.01, 0.05)
    plan.scheduler_pause_rate = maybe(0.01, 0.05)
    plan.scheduler_slow_rate = maybe(0.3)
    plan.hint_lost = maybe(0.3, 1.0)
    plan.hint_doubled = maybe(0.3)
    plan.hint_late = maybe(0.3)
