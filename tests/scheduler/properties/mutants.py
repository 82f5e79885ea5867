"""Policies broken on purpose. The only module that knows how the policy is made.

Where it can be, a mutant changes what goes into the cycle or what comes out of it, and so outlives a change of the
policy's insides; the others replace one function.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from functools import cache
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
from hypothesis import strategies as st

from pipeline.domain.ids import PackId
from pipeline.domain.promises import Promise
from pipeline.domain.tiers import Tier
from pipeline.ports.cycle import CyclePlan, EndedPack, EndedShare, Snapshot
from scheduler import charges, cycle, deadlines, fairness, paths
from scheduler.policy import Policy
from scheduler.prediction.predictions import Predictions
from tests.scheduler.properties import world
from tests.scheduler.world import hold

Check = Callable[[int], None]
Mutant = Callable[[], AbstractContextManager[object]]
_decide, _pressing, _peer = cycle.decide, deadlines.Book.pressing, fairness.FairQueue.peer
_press = fairness.FairQueue.press
_RANKS = {tier: rank for rank, tier in enumerate((Tier.NIGHTLY, Tier.BULK, Tier.STANDARD, Tier.URGENT))}


def holds(check: Check, *, examples: int) -> None:
    """Let Hypothesis draw seeds, the same in every run."""
    hold(check, st.integers(0, 2**32 - 1), examples=examples)


def is_caught(check: Check, mutant: Mutant, *, seeds: Sequence[int]) -> None:
    """Assert that the check passes on each of these seeds, and on one of them fails under the mutant."""
    for seed in seeds:
        _pass(check, seed)
    with mutant(), pytest.raises(AssertionError):
        _run(check, seeds)


def _run(check: Check, seeds: Sequence[int]) -> None:
    for seed in seeds:
        check(seed)


@cache
def _pass(check: Check, seed: int) -> None:
    """Check once for all mutants."""
    check(seed)


# --- from outside --------------------------------------------------------------------------------


@contextmanager
def _around(
    *,
    before: Callable[[Snapshot], Snapshot] = lambda seen: seen,
    after: Callable[[Snapshot, CyclePlan], CyclePlan] = lambda _, plan: plan,
    policy_of: Callable[[Policy], Policy] = lambda policy: policy,
) -> Iterator[None]:
    def decide(
        seen: Snapshot, policy: Policy, new_pack_id: Callable[[], PackId], predictions: Predictions | None = None
    ) -> CyclePlan:
        return after(seen, _decide(before(seen), policy_of(policy), new_pack_id, predictions))

    with patch.object(world, "decide", decide):
        yield


def idle_with_work_queued() -> AbstractContextManager[object]:
    """Publish a pack a pool at most, and none while one waits."""

    def few(seen: Snapshot, plan: CyclePlan) -> CyclePlan:
        room = {pool.pool for pool in seen.pools if not pool.packs_waiting}
        kept = []
        for pack in plan.packs:
            if pack.pool in room:
                room.remove(pack.pool)
                kept.append(pack)
        return replace(plan, packs=tuple(kept))

    return _around(after=few)


def one_pool_each() -> AbstractContextManager[object]:
    """Let a model run only in the first pool that serves it."""

    def parted(seen: Snapshot) -> Snapshot:
        taken: set[str] = set()
        pools = []
        for pool in sorted(seen.pools, key=lambda pool: pool.pool):
            pools.append(replace(pool, servings=tuple(each for each in pool.servings if each.model not in taken)))
            taken |= {each.model for each in pool.servings}
        return replace(seen, pools=tuple(pools))

    return _around(before=parted)


def never_ends_a_hold() -> AbstractContextManager[object]:
    """Hold back for ever what was ever to be held."""

    def held(seen: Snapshot) -> Snapshot:
        for_ever = 2**60
        return replace(
            seen,
            backlogs=tuple(
                each if each.hold_until_us is None else replace(each, hold_until_us=for_ever) for each in seen.backlogs
            ),
        )

    return _around(before=held)


def forgets() -> AbstractContextManager[object]:
    """Remember nothing from one cycle to the next."""
    return _around(after=lambda _, plan: replace(plan, fair_tags=()))


def shed_debt() -> AbstractContextManager[object]:
    """Let everyone begin each cycle at the virtual time, whatever it owes."""

    def unowed(seen: Snapshot) -> Snapshot:
        virtual = {(tag.pool, tag.path): tag.virtual_seconds for tag in seen.fair_tags}
        return replace(
            seen,
            fair_tags=tuple(
                replace(tag, start_seconds=virtual.get((tag.pool, tag.path[:-1]), tag.start_seconds))
                for tag in seen.fair_tags
            ),
        )

    return _around(before=unowed)


def no_true_up() -> AbstractContextManager[object]:
    """Take what packs were charged for what they took; predictions learn as ever."""
    return _around(before=lambda seen: replace(seen, ended=tuple(map(_as_charged, seen.ended))))


def _as_charged(pack: EndedPack) -> EndedPack:
    whole = sum(_tokens(share) for share in pack.shares)
    shares = (replace(each, predicted_seconds=pack.seconds * _tokens(each) / whole) for each in pack.shares)
    return replace(pack, shares=tuple(shares))


def _tokens(share: EndedShare) -> float:
    return share.actual.input_tokens + share.actual.output_tokens


def admit_all() -> AbstractContextManager[object]:
    """Promise whatever is asked."""

    def yes(seen: Snapshot, plan: CyclePlan) -> CyclePlan:
        asked = sorted({each.batch_id for each in seen.backlogs if each.promise is Promise.PENDING})
        return replace(plan, promises=tuple((batch_id, Promise.MADE) for batch_id in asked))

    return _around(after=yes)


def promised_share_of_one() -> AbstractContextManager[object]:
    """Promise all of a pool's time."""
    return _around(policy_of=lambda policy: replace(policy, promised_share=1.0))


def budget_ignored() -> AbstractContextManager[object]:
    """See no budget."""
    return _around(
        before=lambda seen: replace(seen, backlogs=tuple(replace(each, budget_micros=None) for each in seen.backlogs))
    )


def nothing_reserved() -> AbstractContextManager[object]:
    """See of what was spent and not of what is set aside."""
    return _around(
        before=lambda seen: replace(seen, backlogs=tuple(replace(each, reserved_micros=0) for each in seen.backlogs))
    )


def priorities_ignored() -> AbstractContextManager[object]:
    """Take all of a tenant's batches for equals."""
    return _around(
        before=lambda seen: replace(seen, backlogs=tuple(replace(each, priority=0) for each in seen.backlogs))
    )


def lowest_priority_first() -> AbstractContextManager[object]:
    """Take the highest priority for the lowest."""
    return _around(
        before=lambda seen: replace(
            seen, backlogs=tuple(replace(each, priority=-each.priority) for each in seen.backlogs)
        )
    )


# --- from inside ---------------------------------------------------------------------------------


def no_lift() -> AbstractContextManager[object]:
    """Let who comes back begin where it left off, or at the very beginning."""
    return patch.object(fairness, "lift", lambda tag, _: 0.0 if tag is None else tag.start_seconds)


def banked_credit() -> AbstractContextManager[object]:
    """Let who stayed away save up a minute and a half."""
    return patch.object(fairness, "lift", lambda tag, virtual: virtual - 90.0 if tag is None else tag.start_seconds)


def punished_return() -> AbstractContextManager[object]:
    """Let who comes back begin far behind the others."""
    return patch.object(fairness, "lift", lambda tag, virtual: 2 * virtual if tag is None else tag.start_seconds)


def no_weights() -> AbstractContextManager[object]:
    """Take all tiers for equals."""
    return patch.object(Policy, "tier_weight", lambda *_: 1.0)


def strict_tiers() -> AbstractContextManager[object]:
    """Serve a tier only where no higher one has rows: the limit of ever larger weights."""
    return patch.object(Policy, "tier_weight", lambda _, tier: 1e6 ** _RANKS[tier])


def earliest_due_first() -> AbstractContextManager[object]:
    """Let the earliest deadline win, whatever it has had."""
    return patch.object(fairness, "turn_of", lambda _: 0.0)


def packs_for_seconds() -> AbstractContextManager[object]:
    """Charge a pack as one second at most."""
    charge = fairness.FairQueue.charge
    return patch.object(fairness.FairQueue, "charge", lambda self, turn, seconds: charge(self, turn, min(seconds, 1.0)))


def free_top_ups() -> AbstractContextManager[object]:
    """Charge nothing for rows that fill up another batch's pack."""

    def unpaid(self: Any, turn: Any, **lead: float) -> Any:  # noqa: ANN401 -- whatever a turn becomes
        peer = _peer(self, turn, **lead)
        return peer and replace(peer, accounts=peer.accounts[:1])

    return patch.object(fairness.FairQueue, "peer", unpaid)


def one_time_for_all_priorities() -> AbstractContextManager[object]:
    """Let a priority's turns move the virtual time of those that it passes over."""
    together = [patch.object(module, "class_path", lambda tenant, _: tenant) for module in (fairness, charges, paths)]

    @contextmanager
    def patched() -> Iterator[None]:
        with together[0], together[1], together[2]:
            yield

    return patched()


def fills_by_turn_alone() -> AbstractContextManager[object]:
    """Let the lowest priority fill up packs first."""

    def last(self: Any) -> Any:  # noqa: ANN401 -- a seat
        return next((seat for each in reversed(self.classes) if (seat := each.lowest()) is not None), None)

    def peer(self: Any, turn: Any, **lead: float) -> Any:  # noqa: ANN401 -- whatever a turn becomes
        with patch.object(fairness._Line, "lowest", last):
            return _peer(self, turn, **lead)

    return patch.object(fairness.FairQueue, "peer", peer)


def boundless_top_ups() -> AbstractContextManager[object]:
    """Let a batch fill up packs however far ahead of its turn it is."""
    return patch.object(fairness, "may_fill_up", lambda *_, **__: True)


def no_guard() -> AbstractContextManager[object]:
    """Let no promised deadline press."""
    return patch.object(deadlines.Book, "pressing", lambda *_, **__: np.array([], dtype=int))


def latest_deadline_first() -> AbstractContextManager[object]:
    """Let the last due of those that press go first."""
    return patch.object(deadlines.Book, "pressing", lambda *given, **more: _pressing(*given, **more)[::-1])


def guard_without_measure() -> AbstractContextManager[object]:
    """Let all who press do so with every worker."""

    def boundless(self: Any, places: Any, *, packs: float) -> None:  # noqa: ANN401 -- whatever the places become
        del packs
        _press(self, places, packs=math.inf)

    return patch.object(fairness.FairQueue, "press", boundless)
