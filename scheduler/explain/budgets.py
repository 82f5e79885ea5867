"""What a batch that has reached its budget is told."""

from __future__ import annotations

from typing import Final

from pipeline.domain.figures import counted, money
from pipeline.ports.explain import BatchFacts, Change
from scheduler.explain.forecast import Prospect
from scheduler.explain.words import verb

#: What a new budget leaves beyond what finishing is expected to cost.
_BUDGET_MARGIN: Final = 1.2
_CENT_MICROS: Final = 10_000


def over_budget(facts: BatchFacts, prospect: Prospect | None, *, rows_left: int) -> tuple[str, tuple[Change, ...]]:
    """Return what the batch has cost, and a budget that should see it through."""
    view = facts.view
    command = f"nightrate change {view.batch_id} --max-cost"
    spent = money(view.cost_micros, view.currency)
    was_changed = view.steered_at is not None and facts.reason_at is not None and view.steered_at > facts.reason_at
    if view.budget_micros is None or (was_changed and view.cost_micros < view.budget_micros):
        return "Its budget was raised just now; the next cycle looks at it.", ()
    budget = money(view.budget_micros, view.currency)
    cost = f"It has cost {spent} of its budget of {budget}"
    if view.cost_micros < view.budget_micros:
        cost += ", and what is left may not pay for another row"
    left = f"{counted(rows_left, 'row')} {verb(rows_left, 'is', 'are')} left"
    if prospect is None:
        raise_it = Change(sentence="a higher budget, or none", command=f"{command} none")
        return f"{cost}, so nothing new starts; {left}.", (raise_it,)
    more = prospect.cost_micros
    wanted = _round_up(1 + round(view.cost_micros + more * _BUDGET_MARGIN))
    amount = f"{wanted // 1_000_000}.{wanted % 1_000_000:06d}".rstrip("0").rstrip(".")
    raise_it = Change(sentence="a budget that should see it through", command=f"{command} {amount}")
    return (
        f"{cost}, so nothing new starts; {left}, for about {money(_rough(more), view.currency)} more.",
        (raise_it,),
    )


def _rough(micros: int) -> int:
    """Round an estimate to two digits."""
    digits = max(0, len(str(micros)) - 2)
    return round(micros, -digits)


def _round_up(micros: int) -> int:
    step = _CENT_MICROS if micros >= _CENT_MICROS else 100
    return -(-micros // step) * step
