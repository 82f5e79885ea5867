from __future__ import annotations

from hypothesis import strategies as st

from pipeline.domain.ids import BatchId, TenantId
from pipeline.domain.tiers import Tier
from pipeline.ports.cycle import FairTag
from scheduler.explain.turns import Contender, Line
from scheduler.policy import Policy
from tests.scheduler.world import ENDLESS_ROWS, World, backlog, hold

PACK_SECONDS = 10.0


def contender(
    name: str,
    *,
    tenant: str = "tnt_a",
    tier: Tier = Tier.STANDARD,
    seconds: float = 100.0,
    deadline_at_us: int = 0,
    priority: int = 0,
) -> Contender:
    return Contender(
        batch_id=BatchId(name),
        tenant_id=TenantId(tenant),
        tier=tier,
        deadline_at_us=deadline_at_us,
        created_at_us=0,
        seconds=seconds,
        pack_seconds=PACK_SECONDS,
        priority=priority,
    )


def line(*contenders: Contender, tags: tuple[FairTag, ...] = ()) -> Line:
    return Line("cpu", contenders, tags, Policy())


def tag(*path: str, start: float = 0.0, virtual: float = 0.0) -> FairTag:
    return FairTag(pool="cpu", path=path, start_seconds=start, virtual_seconds=virtual)


def test_nobody_is_before_the_only_one() -> None:
    me = contender("batch_a")

    before = line(me).before(me)

    assert (before.seconds, before.batches, before.tiers) == (0.0, 0, ())


def test_of_equals_the_one_due_first_is_first_by_one_pack() -> None:
    early, late = contender("batch_a", deadline_at_us=1), contender("batch_b", deadline_at_us=2)
    queue = line(late, early)

    assert queue.first() is early
    assert queue.before(early).batches == 0
    assert (queue.before(late).seconds, queue.before(late).batches) == (PACK_SECONDS, 1)


def test_a_batch_that_ran_ahead_waits_until_its_siblings_have_caught_up() -> None:
    me, other = contender("batch_a"), contender("batch_b")
    tags = (tag("standard", "tnt_a"), tag("standard", "tnt_a", "batch_a", start=40.0))

    assert line(me, other, tags=tags).before(me).seconds == 40.0
    assert line(me, contender("batch_b", seconds=15.0), tags=tags).before(me).seconds == 15.0
    assert line(me, other, tags=tags).before(other).seconds == 0.0


def test_all_of_a_higher_priority_goes_first_and_nothing_of_a_lower_one() -> None:
    me, high, low = contender("batch_a"), contender("batch_b", priority=2), contender("batch_c", priority=-1)
    others = contender("batch_d", tenant="tnt_b", priority=100, deadline_at_us=1)
    queue = line(me, high, low)

    assert queue.first() is high
    before = queue.before(me)
    assert (before.seconds, before.batches, before.outranking, before.highest_priority) == (100.0, 1, 1, 2)
    assert line(me, others).before(me).outranking == 0
    assert line(me, others).before(me).seconds == 0.0


def test_a_tier_of_twice_the_weight_gets_twice_the_work_before() -> None:
    me = contender("batch_a", tier=Tier.BULK)
    other = contender("batch_b", tier=Tier.STANDARD, deadline_at_us=1)
    tags = (tag(), tag("bulk", start=10.0))

    assert line(me, other, tags=tags).before(me).seconds == 40.0


def test_tags_of_other_pools_count_for_nothing() -> None:
    me, other = contender("batch_a"), contender("batch_b", deadline_at_us=1)
    elsewhere = FairTag(pool="gpu", path=("standard", "tnt_a", "batch_a"), start_seconds=500.0, virtual_seconds=0.0)

    assert line(me, other, tags=(elsewhere,)).before(me).seconds == 0.0


def test_what_is_told_is_what_the_cycle_then_does() -> None:
    tiers = st.sampled_from([Tier.URGENT, Tier.STANDARD, Tier.BULK])
    batches = st.lists(st.tuples(tiers, st.sampled_from(["tnt_a", "tnt_b"])), min_size=2, max_size=5)

    def check(drawn: list[tuple[Tier, str]], steps: int) -> None:
        policy = Policy(pack_rows_min=1, top_up_lead_seconds=0.0)
        world = World.of(
            *(
                backlog(f"batch_{number}", tier=tier, tenant_id=TenantId(tenant), rows=ENDLESS_ROWS)
                for number, (tier, tenant) in enumerate(drawn)
            ),
            policy=policy,
        )
        for _ in range(steps):
            world.step()
        seen = world.look()
        contenders = [
            Contender(
                batch_id=each.batch_id,
                tenant_id=each.tenant_id,
                tier=each.tier,
                deadline_at_us=each.deadline_at_us,
                created_at_us=each.created_at_us,
                seconds=1e9,
                pack_seconds=policy.pack_seconds_target,
            )
            for each in seen.backlogs
        ]
        queue = Line("cpu", contenders, seen.fair_tags, Policy())
        told = {each.batch_id: queue.before(each).seconds for each in contenders}
        first = queue.first()
        begun = len(world.dispatched)
        for _ in range(40):
            world.step()
        came = world.dispatched[begun:]
        assert first is not None
        assert first.batch_id in came[0]
        for name, seconds in told.items():
            before = 0.0
            for pack in came:
                if name in pack:
                    break
                before += sum(pack.values())
            # Accounts of one level are not in step with those of another, by a pack or two.
            assert abs(before - seconds) <= 2 * policy.pack_seconds_target

    hold(check, batches, st.integers(min_value=0, max_value=12), examples=25)
