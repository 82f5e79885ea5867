"""What a person reads who asked for a promise that cannot be made."""

from __future__ import annotations

import shlex

import pytest

from pipeline.domain.money import MICROS_PER_UNIT
from pipeline.domain.tiers import Tier
from pipeline.domain.windows import parse_window
from pipeline.entrypoints.cli.admission import _refused
from pipeline.entrypoints.cli.figures import micros_of
from pipeline.entrypoints.cli.submission import parse_terms
from pipeline.ports.desk import Terms
from scheduler.admission import Admission, Offer


def offer(tier: Tier, *, window: float | None = None, budget: int | None = None) -> Offer:
    return Offer(tier=tier, window_seconds=window, budget_micros=budget, currency="USD")


def terms(max_cost: str | None = "5") -> Terms:
    return parse_terms(tier="standard", window="1h", max_cost=max_cost, meta=None, idempotency_key=None)


def options(hint: str) -> list[dict[str, str]]:
    said = [shlex.split(each) for each in hint.removeprefix("accepted now: ").split(", or ")]
    return [dict(zip(words[::2], words[1::2], strict=True)) for words in said]


def test_a_refusal_says_what_is_wrong_and_which_options_would_be_accepted() -> None:
    admission = Admission(
        asked=offer(Tier.STANDARD, window=9_000.0, budget=7_123_456), others=(offer(Tier.BULK, window=9_000.0),)
    )

    refused = _refused(admission, terms())

    assert refused.exit_code == 4
    assert refused.message == (
        "not accepted in tier standard: the window of 1h cannot be promised now and it may cost more than $5.00"
    )
    assert refused.hint is not None
    mine, other = options(refused.hint)
    assert mine == {"--tier": "standard", "--window": "166m", "--max-cost": "7.13"}
    assert other == {"--tier": "bulk", "--window": "166m"}
    assert parse_window(mine["--window"]).total_seconds() > 9_000
    assert micros_of(mine["--max-cost"]) >= 7_123_456


def test_scripts_get_the_same_offers_with_what_may_stay_as_it_was_asked() -> None:
    refused = _refused(Admission(asked=offer(Tier.STANDARD, budget=7_123_456), others=()), terms())

    assert refused.details == {
        "batch_id": None,
        "offers": [{"tier": "standard", "window": "1h", "max_cost_micros": 7_123_456, "currency": "USD"}],
    }


@pytest.mark.parametrize("others", [(), (offer(Tier.BULK),)])
def test_a_tier_that_nobody_serves_is_told_as_such(others: tuple[Offer, ...]) -> None:
    refused = _refused(Admission(asked=None, others=others), terms(None))

    assert "no live worker serves this to tier standard" in refused.message
    assert refused.hint == ("accepted now: --tier bulk" if others else None)


def test_a_price_below_a_cent_is_told_to_the_micro_unit() -> None:
    refused = _refused(Admission(asked=offer(Tier.STANDARD, budget=90), others=()), terms("0.000001"))

    assert refused.hint is not None
    (mine,) = options(refused.hint)
    assert float(mine["--max-cost"]) * MICROS_PER_UNIT == pytest.approx(90)
