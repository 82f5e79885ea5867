from __future__ import annotations

from dataclasses import replace

import pytest

from pipeline.domain.ids import BatchId, PackId, TenantId
from pipeline.domain.shares import UnitCosts
from pipeline.domain.tiers import Tier
from pipeline.ports.cycle import EndedPack, EndedShare, FairTag, WorkSize
from scheduler.charges import recall, true_up
from scheduler.lineup import Lineup
from scheduler.policy import Policy
from tests.scheduler.world import ENDLESS_ROWS, NOW_US, backlog, plan_of, snapshot

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


def test_a_true_up_splits_as_the_bill_does() -> None:
    tags = (tag(start=0), tag("standard", start=0), *(tag("standard", f"tnt_{one}", start=9.0) for one in "ab"))
    prompts = replace(share("a", predicted=1.0, tokens=0), actual=WorkSize(rows=1, input_tokens=900, output_tokens=10))
    answers = replace(
        share("b", predicted=1.0, tokens=0, tenant="tnt_b"),
        actual=WorkSize(rows=1, input_tokens=10, output_tokens=100),
    )
    costs = UnitCosts(row_picoseconds=0, input_token_picoseconds=1, output_token_picoseconds=10)

    after = starts(true_up(tags, [replace(ended(8.0, prompts, answers), unit_costs=costs)], Policy()))

    # Predicted costs are 1,000 and 1,010 of 2,010; by tokens alike the prompts would bear 7.1 of the 8 seconds.
    assert after["standard", "tnt_a"] == pytest.approx(9.0 + 8 * 1000 / 2010 - 1.0)
    assert after["standard", "tnt_b"] == pytest.approx(9.0 + 8 * 1010 / 2010 - 1.0)


def test_rows_without_tokens_share_a_pack_by_their_number() -> None:
    tags = (tag(start=0), tag("standard", start=0), *(tag("standard", f"tnt_{one}", start=9.0) for one in "ab"))
    one = share("a", predicted=0.0, tokens=0)
    three = share("b", predicted=0.0, tokens=0, tenant="tnt_b")
    three = replace(three, actual=replace(three.actual, rows=3))

    after = starts(true_up(tags, [ended(8.0, one, three)], Policy()))

    assert (after["standard", "tnt_a"], after["standard", "tnt_b"]) == (pytest.approx(11.0), pytest.approx(15.0))


def test_who_took_less_gets_the_rest_back() -> None:
    tags = (tag(start=0), tag("bulk", start=10.0))

    after = starts(true_up(tags, [ended(1.0, share("a", predicted=5.0, tokens=1), tier=Tier.BULK)], Policy()))

    assert after["bulk",] == pytest.approx(10.0 - 4.0 / 2)


def test_who_had_no_tag_gets_one_ahead_of_the_virtual_time_or_behind_it() -> None:
    tags = (tag(start=0, virtual=3.0),)

    took_more = starts(true_up(tags, [ended(8.0, share("a", predicted=4.0, tokens=1))], Policy()))
    took_less = starts(true_up(tags, [ended(1.0, share("a", predicted=4.0, tokens=1))], Policy()))

    assert took_more["standard",] == pytest.approx(3.0 + 4.0 / 4)
    assert took_less["standard",] == pytest.approx(3.0 - 3.0 / 4)


def recalled(*tags: FairTag, now_us: int = NOW_US, **changes: object) -> dict[tuple[str, ...], float]:
    """Return the tags as a cycle finds them in which tenant a has a batch with rows, unless changes say otherwise."""
    lineup = Lineup.of([backlog("batch_a", **changes)])
    return starts(recall(tags, lineup, Policy(debt_half_life_seconds=100.0), now_us=now_us))


def test_credit_is_kept_as_long_as_there_are_rows_for_packs() -> None:
    tags = (
        tag(start=0, virtual=20.0),
        tag("standard", start=15.0, virtual=9.0),
        tag("standard", "tnt_a", start=5.0, virtual=7.0),
        tag("standard", "tnt_a", "batch_a", start=4.0),
        tag("standard", "tnt_gone", start=5.0),
    )
    # All of its rows are in packs.
    packed = replace(backlog("batch_a").shards[0], rows_packed=ENDLESS_ROWS)

    waiting, away = recalled(*tags), recalled(*tags, shards=(packed,))

    assert (waiting["standard",], waiting["standard", "tnt_a"], waiting["standard", "tnt_a", "batch_a"]) == (15, 5, 4)
    assert waiting["standard", "tnt_gone"] == 9
    assert (away["standard",], away["standard", "tnt_a"]) == (20, 9)
    assert ("standard", "tnt_a", "batch_a") not in away


def test_the_debt_of_who_has_no_rows_halves_with_time() -> None:
    tags = (
        tag(start=0, virtual=20.0),
        tag("standard", start=20.0, virtual=10.0),
        replace(tag("standard", "tnt_a", start=90.0), at_us=NOW_US - 200_000_000),
        replace(tag("standard", "tnt_gone", start=90.0), at_us=NOW_US - 200_000_000),
        tag("standard", "tnt_timeless", start=90.0),
    )

    found = recalled(*tags)

    assert found["standard", "tnt_a"] == 90
    assert found["standard", "tnt_gone"] == pytest.approx(10.0 + 80.0 / 4)
    assert found["standard", "tnt_timeless"] == 90


def test_a_pack_that_was_withdrawn_costs_nothing() -> None:
    withdrawn = EndedShare(
        tenant_id=TenantId("tnt_a"), batch_id=BatchId("batch_a"), template=0, predicted_seconds=4.0,
        estimated=NOTHING, actual=NOTHING, lengths={},
    )  # fmt: skip

    after = starts(true_up((tag(start=0), tag("standard", start=6.0)), [ended(0.0, withdrawn)], Policy()))

    assert after["standard",] == pytest.approx(5.0)


def test_a_batch_that_has_left_gets_no_tag() -> None:
    tags = true_up(
        (tag(start=0), tag("standard", start=0)), [ended(8.0, share("gone", predicted=1.0, tokens=1))], Policy()
    )

    assert all(len(each.path) < 3 for each in recall(tags, Lineup.of([backlog("batch_a")]), Policy(), now_us=NOW_US))


def test_a_plan_settles_what_ended_and_says_what_it_learned() -> None:
    pack = ended(8.0, share("batch_a", predicted=4.0, tokens=10))

    plan = plan_of(snapshot([backlog("batch_a")], ended=(pack,)))

    assert plan.settled == (pack.pack_id,)
    assert {entry.kind for entry in plan.learned} == {"pace", "tokens"}


def test_the_account_of_a_priority_is_kept_for_those_below_it() -> None:
    (high,) = [replace(backlog("batch_a"), priority=5)]
    above = (high.tier.value, high.tenant_id, "priority 5")
    tags = tuple(
        FairTag(pool="cpu", path=path, start_seconds=9.0, virtual_seconds=1.0)
        for path in (above[:1], above[:2], above, (*above, "batch_a"))
    )

    kept = recall(tags, Lineup.of([high]), Policy(), now_us=NOW_US)
    gone = recall(tags, Lineup.of([replace(high, priority=0)]), Policy(), now_us=NOW_US)

    assert [tag.path for tag in kept] == [tag.path for tag in tags]
    assert [tag.path for tag in gone] == [above[:1], above[:2]]
