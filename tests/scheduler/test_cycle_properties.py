"""What holds of every plan, whatever the snapshot; each property is shown to catch a broken scheduler."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from random import Random
from typing import Any

import numpy as np
import pytest
from hypothesis import strategies as st

from pipeline.domain.endpoints import Endpoint
from pipeline.domain.ids import BatchId, TenantId
from pipeline.domain.promises import Promise
from pipeline.domain.reasons import Reason
from pipeline.domain.tiers import Tier
from pipeline.ports.cycle import Backlog, OpenShard, PoolView, Serving, SliceDraft, Snapshot, WorkSize
from scheduler import cursor, cycle, deadlines, fairness, lineup, nominate, packing, promises, routing
from scheduler.columns import Floats, Integers
from scheduler.policy import Policy
from scheduler.purses import Purses
from tests.scheduler.world import ALL_MODELS, HOUR_US, NOW_US, hold, plan_of, references

VARIANTS = tuple(f"{model}@int8" for model in ALL_MODELS)
POLICY = Policy(pack_slices_max=8, pack_rows_max=500, pack_rows_min=1)


def open_shard(random: Random, shard_id: int) -> OpenShard:
    rows = random.randint(1, 200)
    return OpenShard(
        shard_id=shard_id,
        shard_no=shard_id,
        rows_total=rows,
        rows_packed=random.choice([0, 0, random.randint(0, rows)]),
        input_tokens=rows * random.randint(0, 300),
        output_tokens=random.choice([0, random.randint(0, 20_000)]),
    )


def backlogs_of_a_batch(random: Random, number: int) -> list[Backlog]:
    """Return one batch's backlogs, of one model or two; few tenants, tiers and endpoints, so that many meet."""
    plain = Backlog(
        tenant_id=TenantId(random.choice(["tnt_a", "tnt_b"])),
        batch_id=BatchId(f"batch_{number}"),
        tier=random.choice([Tier.STANDARD, Tier.STANDARD, *Tier]),
        model="",
        endpoint=random.choice([Endpoint.CHAT_COMPLETIONS, Endpoint.COMPLETIONS]),
        created_at_us=NOW_US - random.randint(0, 3) * HOUR_US,
        deadline_at_us=NOW_US + random.randint(-1, 6) * HOUR_US,
        promise=random.choice(list(Promise)),
        hold_until_us=random.choice([None, None, NOW_US + random.randint(-1, 3) * HOUR_US]),
        is_paused=random.choice([False, False, False, True]),
        left=WorkSize(
            rows=100, input_tokens=random.choice([0, 10_000, 100_000, 400_000]), output_tokens=random.randint(0, 1000)
        ),
        spent_micros=random.randint(0, 3),
        budget_micros=random.choice([None, None, random.randint(0, 3)]),
        shards=(),
        rows_in_flight=random.randint(0, 1),
    )
    models = random.sample(ALL_MODELS, random.randint(1, 2))
    return [
        replace(
            plain,
            model=model,
            shards=tuple(open_shard(random, 10 * (2 * number + part) + n) for n in range(random.randint(1, 3))),
        )
        for part, model in enumerate(models)
    ]


def servings_of(random: Random) -> tuple[Serving, ...]:
    """Return references of some models, and of some of all models a variant that some tiers may use."""
    return references(random.sample(ALL_MODELS, random.randint(0, 3))) + tuple(
        Serving(
            variant=f"{model}@int8",
            model=model,
            tiers=frozenset(random.sample(list(Tier), random.randint(0, 4))),
            relative_cost=random.choice([0.0, 0.5, 1.0, 1.5]),
        )
        for model in random.sample(ALL_MODELS, random.randint(0, 3))
    )


def snapshot_of(seed: int) -> Snapshot:
    """Return the snapshot of a seed: Hypothesis draws seeds, since drawing every field costs a hundred times more."""
    random = Random(seed)
    pools = [
        PoolView(
            pool=f"pool_{number}",
            workers=random.choice([0, 1, 2, 3]),
            servings=servings_of(random),
            packs_waiting=random.choice([0, 0, random.randint(0, 4)]),
        )
        for number in range(random.randint(0, 3))
    ]
    speeds = [0.0, 1e-300, random.uniform(10, 100), random.uniform(10, 5000)]
    return Snapshot(
        now_us=NOW_US,
        backlogs=tuple(each for number in range(random.randint(0, 10)) for each in backlogs_of_a_batch(random, number)),
        pools=tuple(pools),
        tokens_per_second={name: random.choice(speeds) for name in (*ALL_MODELS, *VARIANTS) if random.random() < 0.8},
        virtual_seconds=random.choice([0.0, random.uniform(0, 100)]),
    )


def snapshots() -> st.SearchStrategy[Snapshot]:
    return st.integers(0, 2**32 - 1).map(snapshot_of)


def slices_of(seen: Snapshot) -> list[SliceDraft]:
    return [draft for pack in plan_of(seen, POLICY).packs for draft in pack.slices]


def is_eligible(seen: Snapshot, each: Backlog) -> bool:
    in_budget = each.budget_micros is None or each.spent_micros < each.budget_micros
    return in_budget and not each.is_paused and seen.now_us < each.deadline_at_us


def is_held(seen: Snapshot, each: Backlog) -> bool:
    return each.hold_until_us is not None and seen.now_us < each.hold_until_us


def worker_seconds(seen: Snapshot, each: Backlog) -> dict[str, float]:
    """Return what the backlog may ask of each pool at worst, worked out apart from the scheduler."""
    chosen = {
        pool.pool: min(
            (serving for serving in pool.servings if serving.model == each.model and each.tier in serving.tiers),
            key=lambda serving: (serving.relative_cost, serving.variant),
        )
        for pool in seen.pools
        if (each.model, each.tier) in lanes_of(pool)
    }
    workers = {pool.pool: pool.workers for pool in seen.pools if pool.pool in chosen}
    return {
        pool: POLICY.cost_upper_factor
        * (each.left.input_tokens + each.left.output_tokens)
        * workers[pool]
        / sum(workers.values())
        / speed_of(seen, serving)
        for pool, serving in chosen.items()
    }


def speed_of(seen: Snapshot, serving: Serving) -> float:
    speed = seen.tokens_per_second.get(serving.variant, 0.0)
    return speed if speed >= 0.001 else POLICY.default_tokens_per_second


def lanes_of(pool: PoolView) -> set[tuple[str, Tier]]:
    """Return the models and tiers that the pool may run."""
    return {(serving.model, tier) for serving in pool.servings if pool.workers for tier in serving.tiers}


def no_row_is_in_two_slices(seen: Snapshot) -> None:
    rows = [(draft.shard_id, row) for draft in slices_of(seen) for row in range(draft.row_start, draft.row_stop)]

    assert len(rows) == len(set(rows))


def slices_lie_in_their_shards_and_follow_what_is_packed(seen: Snapshot) -> None:
    shards = {shard.shard_id: shard for each in seen.backlogs for shard in each.shards}
    owners = {shard.shard_id: each.batch_id for each in seen.backlogs for shard in each.shards}
    next_row = {shard_id: shard.rows_packed for shard_id, shard in shards.items()}

    for draft in slices_of(seen):
        assert draft.batch_id == owners[draft.shard_id]
        assert next_row[draft.shard_id] == draft.row_start < draft.row_stop <= shards[draft.shard_id].rows_total
        next_row[draft.shard_id] = draft.row_stop


def shards_are_packed_in_order(seen: Snapshot) -> None:
    packed = [draft.shard_id for draft in slices_of(seen)]

    for each in seen.backlogs:
        mine = [shard_id for shard_id in packed if shard_id in {shard.shard_id for shard in each.shards}]
        assert mine == sorted(mine)


def room_is_not_left_while_someone_could_use_it(seen: Snapshot) -> None:
    plan = plan_of(seen, POLICY)
    packed: dict[int, int] = {}
    for pack in plan.packs:
        for draft in pack.slices:
            packed[draft.shard_id] = draft.row_stop
    open_lanes = {
        (each.model, each.tier)
        for each in seen.backlogs
        if is_eligible(seen, each)
        and not is_held(seen, each)
        and any(packed.get(shard.shard_id, shard.rows_packed) < shard.rows_total for shard in each.shards)
    }

    for pool in seen.pools:
        made = sum(pack.pool == pool.pool for pack in plan.packs)
        has_room = pool.packs_waiting + made < pool.workers * POLICY.packs_ahead_per_worker
        assert not (has_room and lanes_of(pool) & open_lanes)


def no_pool_is_sent_more_than_it_may_have_waiting(seen: Snapshot) -> None:
    plan = plan_of(seen, POLICY)

    for pool in seen.pools:
        made = sum(pack.pool == pool.pool for pack in plan.packs)
        assert made == 0 or pool.packs_waiting + made <= pool.workers * POLICY.packs_ahead_per_worker


def packs_are_of_one_lane_and_within_their_limits(seen: Snapshot) -> None:
    backlog_of = {shard.shard_id: each for each in seen.backlogs for shard in each.shards}
    pools = {pool.pool: pool for pool in seen.pools if pool.workers}

    for pack in plan_of(seen, POLICY).packs:
        members = [backlog_of[draft.shard_id] for draft in pack.slices]
        rows = sum(draft.row_stop - draft.row_start for draft in pack.slices)
        is_measured = seen.tokens_per_second.get(pack.variant, 0.0) >= 0.001
        target = POLICY.pack_seconds_target if is_measured else POLICY.first_pack_seconds
        assert {(each.tier, each.model, each.endpoint) for each in members} == {(pack.tier, pack.model, pack.endpoint)}
        assert (pack.model, pack.tier) in lanes_of(pools[pack.pool])
        assert 1 <= rows <= POLICY.pack_rows_max
        assert len(pack.slices) <= POLICY.pack_slices_max
        assert rows == 1 or pack.predicted_seconds <= target * (1 + 1e-9)


def packs_run_on_the_cheapest_variant_that_may_run_them(seen: Snapshot) -> None:
    pools = {pool.pool: pool for pool in seen.pools}

    for pack in plan_of(seen, POLICY).packs:
        fitting = [each for each in pools[pack.pool].servings if each.model == pack.model and pack.tier in each.tiers]
        cheapest = min(each.relative_cost for each in fitting) if fitting else None
        assert [each.relative_cost for each in fitting if each.variant == pack.variant] == [cheapest]


def nothing_is_dispatched_that_is_paused_over_budget_or_past_the_deadline(seen: Snapshot) -> None:
    eligible = {each.batch_id for each in seen.backlogs if is_eligible(seen, each)}

    assert {draft.batch_id for draft in slices_of(seen)} <= eligible


def what_is_held_starts_just_when_it_can_wait_no_longer(seen: Snapshot) -> None:
    packed = {draft.batch_id for draft in slices_of(seen)}
    workers = {pool.pool: pool.workers for pool in seen.pools}

    for each in seen.backlogs:
        spare = [
            workers[pool] * ((each.deadline_at_us - seen.now_us) / 1e6 - 3 * POLICY.pack_seconds_target - 60) - seconds
            for pool, seconds in worker_seconds(seen, each).items()
        ]
        others = [other for other in seen.backlogs if other.batch_id == each.batch_id and other is not each]
        if is_held(seen, each) and not others and min(spare, default=0.0) > 0:
            assert each.batch_id not in packed


def what_is_newly_promised_can_be_kept(seen: Snapshot) -> None:
    plan = plan_of(seen, POLICY)
    promised = {batch_id for batch_id, promise in plan.promises if promise is Promise.MADE}
    kept = [each for each in seen.backlogs if each.batch_id in promised or (each.promise, each.is_paused) == KEPT]

    assert {batch_id for batch_id, _ in plan.promises} <= {
        each.batch_id for each in seen.backlogs if each.promise is Promise.PENDING
    }
    for pool in seen.pools:
        for late in (each for each in kept if each.batch_id in promised):
            due = [each for each in kept if each.deadline_at_us <= late.deadline_at_us]
            asked = sum(worker_seconds(seen, each).get(pool.pool, 0.0) for each in due)
            if late.deadline_at_us > seen.now_us and worker_seconds(seen, late).get(pool.pool):
                seconds = (late.deadline_at_us - seen.now_us) / 1e6 - 2 * POLICY.pack_seconds_target - 60
                assert asked <= POLICY.promised_share * pool.workers * seconds * (1 + 1e-9)


def every_batch_leaves_with_one_reason(seen: Snapshot) -> None:
    plan = plan_of(seen, POLICY)
    packed = {draft.batch_id for pack in plan.packs for draft in pack.slices}

    assert [standing.batch_id for standing in plan.standings] == sorted({each.batch_id for each in seen.backlogs})
    stood = {standing.batch_id: standing.reason for standing in plan.standings}
    again = replace(seen, backlogs=tuple(replace(each, reason=stood[each.batch_id]) for each in seen.backlogs))
    assert plan_of(again, POLICY).standings == ()
    assert packed <= {standing.batch_id for standing in plan.standings if standing.reason is Reason.RUNNING}


def equal_snapshots_give_equal_plans(seen: Snapshot) -> None:
    turned = replace(seen, backlogs=seen.backlogs[::-1], pools=seen.pools[::-1])

    assert plan_of(seen, POLICY) == plan_of(seen, POLICY) == plan_of(turned, POLICY)


def ordinals_follow_the_order_of_the_packs(seen: Snapshot) -> None:
    plan = plan_of(seen, POLICY)

    for pool in seen.pools:
        ordinals = [pack.ordinal for pack in plan.packs if pack.pool == pool.pool]
        assert ordinals == sorted(ordinals)
        # What presses goes before all others, whatever these had.
        assert all(ordinal < -1e9 or ordinal >= seen.virtual_seconds for ordinal in ordinals)


PROPERTIES = [
    no_row_is_in_two_slices,
    slices_lie_in_their_shards_and_follow_what_is_packed,
    shards_are_packed_in_order,
    room_is_not_left_while_someone_could_use_it,
    no_pool_is_sent_more_than_it_may_have_waiting,
    packs_are_of_one_lane_and_within_their_limits,
    nothing_is_dispatched_that_is_paused_over_budget_or_past_the_deadline,
    what_is_held_starts_just_when_it_can_wait_no_longer,
    what_is_newly_promised_can_be_kept,
    every_batch_leaves_with_one_reason,
    equal_snapshots_give_equal_plans,
    ordinals_follow_the_order_of_the_packs,
]


@pytest.mark.parametrize("prop", PROPERTIES, ids=lambda prop: prop.__name__)
def test_it_holds_of_every_plan(prop: Callable[[Snapshot], None]) -> None:
    hold(prop, snapshots(), examples=200)


def lazy_advance(self: cursor.Cursor, rows: int) -> None:
    """Forget every other row taken; still come to an end."""
    step = max(1, rows // 2)
    self.row += step
    if self.row >= self.backlog.shards[self.shard_index].rows_total:
        self._enter(self.shard_index + 1)


def skip_shard(self: cursor.Cursor, rows: int) -> None:
    """Take the shards from the last to the first once the first is begun."""
    del rows
    self.backlog = replace(self.backlog, shards=self.backlog.shards[:0:-1])
    self._enter(0)


class QueueWithItsOwnCursors(fairness.FairQueue):
    """Give each pool cursors of its own instead of the shared ones."""

    def __init__(
        self, pool: str, seen: lineup.Lineup, places: object, cursors: object, *more: object, **named: object
    ) -> None:
        del cursors
        outlook: Any = OutlookOfAMinute()
        own = cursor.Cursors(seen, outlook, Purses(seen, outlook))
        super().__init__(pool, seen, places, own, *more, **named)  # type: ignore[arg-type]


class OutlookOfAMinute:
    """Expect the same of every row."""

    def row_seconds_of(self, _: Backlog) -> Callable[[object], float]:
        return lambda _: 0.1

    def row_charge_micros(self, *_: object) -> None:
        return None

    def dearest_second_micros(self, model: str, tier: Tier) -> float:
        del model, tier
        return 0.0

    def dearest_fixed_micros(self, model: str, tier: Tier) -> float:
        del model, tier
        return 0.0

    def next_row_micros(self, _: lineup.Lineup, places: Integers) -> Floats:
        return np.zeros(len(places))


def only_budget(seen: lineup.Lineup, *_: object, **__: object) -> object:
    """Refuse what has any budget at all."""
    return np.array([-1 if each.budget_micros is None else 2 for each in seen], dtype=int)


def hold_on(seen: lineup.Lineup, *_: object, **__: object) -> object:
    """Hold back for ever what was ever to be held."""
    return np.array([-1 if each.hold_until_us is None else 5 for each in seen], dtype=int)


def peer_of_any_lane(self: fairness.FairQueue, _: object, *, lead_seconds: float) -> fairness.Turn | None:
    """Fill up with whoever is next."""
    del lead_seconds
    return self.first()


def routes_without_tiers(pools: Iterable[PoolView]) -> routing.Routes:
    """Let every tier run on every variant."""
    every = frozenset(Tier)
    opened = [
        replace(pool, servings=tuple(replace(serving, tiers=every) for serving in pool.servings)) for pool in pools
    ]
    return MADE_OVER(opened)


MADE_OVER = routing.Routes.over
_random = Random(1)
#: Of a backlog: its promise, and whether it is paused, where the promise takes up time.
KEPT = (Promise.MADE, False)

MUTANTS = [
    (no_row_is_in_two_slices, cursor.Cursor, "advance", lazy_advance),
    (no_row_is_in_two_slices, cycle, "FairQueue", QueueWithItsOwnCursors),
    (slices_lie_in_their_shards_and_follow_what_is_packed, cursor, "first_open_row", lambda _: 0),
    (
        slices_lie_in_their_shards_and_follow_what_is_packed,
        cursor,
        "first_open_row",
        lambda shard: min(shard.rows_packed + 1, shard.rows_total),
    ),
    (shards_are_packed_in_order, cursor.Cursor, "advance", skip_shard),
    (room_is_not_left_while_someone_could_use_it, cycle, "refusals_of", only_budget),
    (
        room_is_not_left_while_someone_could_use_it,
        cycle,
        "packs_admitted",
        lambda pool, _: 0 if pool.packs_waiting else pool.workers,
    ),
    (no_pool_is_sent_more_than_it_may_have_waiting, cycle, "packs_admitted", lambda pool, _: pool.workers * 2),
    (packs_are_of_one_lane_and_within_their_limits, fairness.FairQueue, "peer", peer_of_any_lane),
    (packs_are_of_one_lane_and_within_their_limits, cursor, "rows_that_fit", lambda *_: 3),
    (packs_are_of_one_lane_and_within_their_limits, packing, "seconds_target", lambda *_, **__: 10.0),
    (packs_run_on_the_cheapest_variant_that_may_run_them, routing, "_preference", lambda serving: serving.variant),
    (packs_run_on_the_cheapest_variant_that_may_run_them, routing.Routes, "over", routes_without_tiers),
    (
        nothing_is_dispatched_that_is_paused_over_budget_or_past_the_deadline,
        cycle,
        "refusals_of",
        lambda seen, *_, **__: np.full(len(seen), -1),
    ),
    (
        nothing_is_dispatched_that_is_paused_over_budget_or_past_the_deadline,
        nominate,
        "is_overdue",
        lambda deadlines, **_: np.zeros(len(deadlines), dtype=bool),
    ),
    (
        what_is_held_starts_just_when_it_can_wait_no_longer,
        promises.Promises,
        "can_wait",
        lambda self: np.zeros(len(self._lineup), dtype=bool),
    ),
    (room_is_not_left_while_someone_could_use_it, cycle, "refusals_of", hold_on),
    (what_is_newly_promised_can_be_kept, deadlines.Book, "can_promise", lambda *_: True),
    (what_is_newly_promised_can_be_kept, deadlines.Book, "enter_all", lambda *_: None),
    (every_batch_leaves_with_one_reason, cycle, "_REASONS_BY_PRECEDENCE", tuple(Reason)[::-1]),
    (equal_snapshots_give_equal_plans, lineup, "_by_rank", lambda seen: _random.sample(seen, len(seen))),
    (equal_snapshots_give_equal_plans, cycle, "sorted", lambda rows, **_: list(rows)),
    (ordinals_follow_the_order_of_the_packs, fairness.FairQueue, "begin", lambda _, turn: -turn.accounts[1].weight),
]


@pytest.mark.parametrize(("prop", "place", "name", "mutant"), MUTANTS)
def test_a_broken_scheduler_is_caught(
    prop: Callable[[Snapshot], None],
    place: object,
    name: str,
    mutant: object,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(place, name, mutant, raising=name != "sorted")

    # A mutant that plays dice fails differently each time, which Hypothesis reports as a group.
    with pytest.raises((AssertionError, ExceptionGroup)):
        hold(prop, snapshots(), examples=400)
