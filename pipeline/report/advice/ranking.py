"""Suggestions ranked, each worth what is left for it to save once the better ones are done."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import ROUND_FLOOR, Decimal
from typing import Final

from pipeline.ports.usage import Usage
from pipeline.report.advice.fleet_rules import cheaper_places, less_idle, other_cost_micros, reserved_bases
from pipeline.report.advice.proposals import (
    THRESHOLDS,
    AdviceKind,
    Confidence,
    Proposal,
    Thresholds,
    base_account,
    idle_account,
)
from pipeline.report.advice.work_rules import (
    bigger_packs,
    cheaper_variants,
    moved_tiers,
    prefix_caching,
    repeated_inputs,
    tiny_batches,
)

_MONTH_DAYS: Final = 30
SUGGESTIONS_MAX: Final = 50

_Rule = Callable[[Usage, Thresholds], Iterator[Proposal]]
RULES: Final[Sequence[_Rule]] = (
    moved_tiers,
    cheaper_variants,
    bigger_packs,
    prefix_caching,
    cheaper_places,
    less_idle,
    reserved_bases,
    repeated_inputs,
    tiny_batches,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Suggestion:
    """Something to do, and the money it saves in a month of thirty days."""

    rank: int
    kind: AdviceKind
    subject: str
    sentence: str
    #: With all suggestions ranked before it done.
    saving_micros_per_month: int
    #: With nothing else done.
    alone_micros_per_month: int
    confidence: Confidence
    evidence: Mapping[str, int | float | str]
    command: str


def advise(usage: Usage, limits: Thresholds = THRESHOLDS) -> tuple[Suggestion, ...]:
    """Return what would save money, the most first; all savings together are never more than was spent.

    Each suggestion is worth its share of what the better ranked ones leave of the same accounts, so their sum counts nothing twice.
    """
    left = _accounts(usage)
    waiting = [proposal for rule in RULES for proposal in rule(usage, limits)]
    alone = {id(proposal): _worth(proposal, left) for proposal in waiting}
    found: list[Suggestion] = []
    while waiting and len(found) < SUGGESTIONS_MAX:
        best = max(waiting, key=lambda proposal: _worth(proposal, left))
        worth = _worth(best, left)
        if worth < limits.saving_micros_min:
            break
        waiting.remove(best)
        for account, share in best.shares.items():
            left[account] = left.get(account, 0) - _part(left.get(account, 0), share)
        found.append(
            Suggestion(
                rank=len(found) + 1,
                kind=best.kind,
                subject=best.subject,
                sentence=best.sentence,
                saving_micros_per_month=worth,
                alone_micros_per_month=alone[id(best)],
                confidence=best.confidence,
                evidence=best.evidence,
                command=best.command,
            )
        )
    return tuple(found)


def spent_micros_per_month(usage: Usage) -> int:
    """Return what the span's accounts come to in thirty days."""
    return sum(_accounts(usage).values())


def _accounts(usage: Usage) -> dict[str, int]:
    """Return what was spent, by account, scaled to a month."""
    spent: dict[str, int] = {}
    for work in usage.works:
        spent[work.account] = spent.get(work.account, 0) + work.cost_micros
    for pool in usage.pools:
        spent[idle_account(pool.pool, pool.market)] = pool.idle_cost_micros
        spent[base_account(pool.pool, pool.market)] = other_cost_micros(usage, pool)
    month = Decimal(_MONTH_DAYS) / Decimal(repr(usage.days)) if usage.days > 0 else Decimal(0)
    return {account: int(cost * month) for account, cost in spent.items()}


def _worth(proposal: Proposal, left: Mapping[str, int]) -> int:
    return sum(_part(left.get(account, 0), share) for account, share in proposal.shares.items())


def _part(micros: int, share: Decimal) -> int:
    assert 0 <= share <= 1, f"a share of {share} cannot be saved"
    return int((micros * share).to_integral_value(ROUND_FLOOR))
