from __future__ import annotations

import pytest

from pipeline.domain.ids import BatchId, PackId, TenantId
from pipeline.domain.tiers import Tier
from pipeline.ports.cycle import EndedPack, EndedShare, FairTag, PoolView, WorkSize
from scheduler.charges import recall, true_up
from scheduler.lineup import Lineup
from scheduler.policy import Policy
from tests.scheduler.world import backlog, plan_of, references, snapshot

NOTHING = WorkSize(rows=0, input_tokens=0, output_tokens=0)


def share(batch: str, *, predicted: float, tokens: float, tenant: str = "tnt_a") -> EndedShare:
    actual = WorkSize(rows=1, input_tokens=tokens, output_tokens=0)
    return EndedShare(
        tenant_id=TenantId(tenant), batch_id=BatchId(batch), template=0, predicted_seconds=predicted,
        estimated=actual, actual=actual, lengths={},
    )  # fmt: skip


def ended(seconds: float, *shares: EndedShare, tier: Tier = Tier.STANDARD) -> EndedPack:
    return EndedPack(
        pack_id=PackId("pack_a"), pool="cpu", model="m", variant="m", tier=tier, seconds=seconds, is_clean=True,
        shares=shares,
    )  # fmt: skip


def tag(*path: str, start: float, virtual: float = 0.0) -> FairTag:
    return FairTag(pool="cpu", path=path, start_seconds=start, virtual_seconds=virtual)


def starts(tags: tuple[FairTag, ...]) -> dict[tuple[str, ...], float]:
    return {each.path: each.start_seconds for each in tags}


def test_every_account_on_the_path_pays_what_the_pack_took() -> None:
    tags = (tag(start=0, virtual=1.0), tag("standard", start=5.0), tag("standard", "tnt_a", start=5.0))

    after = starts(true_up(tags, [ended(8.0, share("batch_a", predicted=4.0, tokens=10))], Policy()))

    assert after["standard",] == pytest.approx(5.0 + 4.0 / 4)  # the tier's weight is 4
    assert after["standard", "tnt_a"] == pytest.approx(9.0)


def test_a_pack_of_several_batches_is_split_by_their_tokens() -> None:
    tags = (
        tag(start=0),
        tag("standard", start=0),
        tag("standard", "tnt_a", start=9.0),
        tag("standard", "tnt_b", start=9.0),
    )

    after = starts(
        true_up(
            tags,
            [ended(6.0, share("a", predicted=1.0, tokens=20), share("b", predicted=1.0, tokens=10, tenant="tnt_b"))],
            Policy(),
        )
    )

    assert (after["standard", "tnt_a"], after["standard", "tnt_b"]) == (pytest.approx(12.0), pytest.approx(10.0))


def test_who_took_less_gets_the_rest_back() -> None:
    tags = (tag(start=0), tag("bulk", start=10.0))

    (_, bulk) = true_up(tags, [ended(1.0, share("a", predicted=5.0, tokens=1), tier=Tier.BULK)], Policy())

    assert bulk.start_seconds == pytest.approx(10.0 - 4.0 / 2)


def test_who_had_no_debt_gets_one_but_no_credit() -> None:
    tags = (tag(start=0, virtual=3.0),)

    took_more = starts(true_up(tags, [ended(8.0, share("a", predicted=4.0, tokens=1))], Policy()))
    took_less = starts(true_up(tags, [ended(1.0, share("a", predicted=4.0, tokens=1))], Policy()))

    assert took_more["standard",] == pytest.approx(4.0)
    assert took_less == {(): 0}


def test_a_pack_that_was_withdrawn_costs_nothing() -> None:
    withdrawn = EndedShare(
        tenant_id=TenantId("tnt_a"), batch_id=BatchId("batch_a"), template=0, predicted_seconds=4.0,
        estimated=NOTHING, actual=NOTHING, lengths={},
    )  # fmt: skip

    (_, tenant) = true_up((tag(start=0), tag("standard", start=6.0)), [ended(0.0, withdrawn)], Policy())

    assert tenant.start_seconds == pytest.approx(5.0)


def test_a_batch_that_has_left_gets_no_tag() -> None:
    tags = true_up(
        (tag(start=0), tag("standard", start=0)), [ended(8.0, share("gone", predicted=1.0, tokens=1))], Policy()
    )

    assert all(len(each.path) < 3 for each in recall(tags, Lineup.of([backlog("batch_a")])))


def test_a_plan_settles_what_ended_and_says_what_it_learned() -> None:
    pack = ended(8.0, share("batch_a", predicted=4.0, tokens=10))

    plan = plan_of(snapshot([backlog("batch_a")], ended=(pack,)))

    assert plan.settled == (pack.pack_id,)
    assert {entry.kind for entry in plan.learned} == {"pace", "tokens"}


def test_a_batch_that_takes_twice_what_was_predicted_gets_half_the_packs_of_its_equal() -> None:
    """Two tenants, equals; one's rows take twice their prediction. True-ups make their times equal, not their packs."""
    took = {"tnt_a": 0.0, "tnt_b": 0.0}
    tags: tuple[FairTag, ...] = ()
    last: tuple[EndedPack, ...] = ()
    backlogs = [backlog("batch_a"), backlog("batch_b", tenant_id=TenantId("tnt_b"), model="model-b")]
    pool = PoolView(pool="cpu", workers=1, servings=references(["model-a", "model-b"]), packs_waiting=0)
    for _ in range(60):
        seen = snapshot(backlogs, fair_tags=tags, ended=last, pools=(pool,))
        plan = plan_of(seen, Policy(pack_rows_min=1, packs_ahead_per_worker=1))
        tags = plan.fair_tags
        (pack,) = plan.packs
        seconds = pack.predicted_seconds * (2 if pack.model == "model-a" else 1)
        tenant = "tnt_a" if pack.model == "model-a" else "tnt_b"
        took[tenant] += seconds
        batch = pack.slices[0].batch_id
        last = (ended(seconds, share(batch, predicted=pack.predicted_seconds, tokens=1, tenant=tenant)),)

    assert took["tnt_a"] == pytest.approx(took["tnt_b"], rel=0.1)
