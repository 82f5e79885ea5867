"""Nominate: which backlogs may have packs at all, and why the others may not."""

from __future__ import annotations

from typing import Final

import numpy as np

from pipeline.domain.reasons import Reason
from scheduler.columns import Flags, Integers
from scheduler.deadlines import is_overdue
from scheduler.lineup import Lineup
from scheduler.outlook import Outlook
from scheduler.purses import Purses

#: Why a backlog may have no pack now, the first that holds first: what ends it, what its user can change, what its
#: platform can.
REFUSALS: Final = (
    Reason.DEADLINE_PASSED,
    Reason.USER_PAUSED,
    Reason.BUDGET_REACHED,
    Reason.PROJECT_BUDGET_REACHED,
    Reason.TENANT_BUDGET_REACHED,
    Reason.NO_WORKER,
    Reason.ALL_PACKED,
    Reason.HELD,
    Reason.WORKER_COMING,
)


def refusals_of(lineup: Lineup, outlook: Outlook, *, now_us: int, can_wait: Flags, purses: Purses) -> Integers:
    """Return for each backlog why it may have no pack now, as an index of `REFUSALS`, or -1 where it may.

    What is held back competes once it cannot wait.
    """
    is_served = outlook.is_served_now(lineup)
    is_coming = outlook.is_served_later(lineup) & ~is_served
    holds: dict[Reason, Flags] = {
        # Workers drop rows of an overdue batch anyway, so a pack of them is waste.
        Reason.DEADLINE_PASSED: is_overdue(lineup.deadline_at_us, now_us=now_us),
        Reason.USER_PAUSED: lineup.is_paused,
        Reason.BUDGET_REACHED: purses.is_reached,
        Reason.PROJECT_BUDGET_REACHED: purses.is_project_reached,
        Reason.TENANT_BUDGET_REACHED: purses.is_tenant_reached,
        # What is packed waits for a worker too.
        Reason.NO_WORKER: ~is_served & ~is_coming,
        Reason.WORKER_COMING: is_coming,
        Reason.ALL_PACKED: lineup.is_packed,
        Reason.HELD: (lineup.hold_until_us > now_us) & can_wait,
    }
    return np.select([holds[reason] for reason in REFUSALS], range(len(REFUSALS)), default=-1)
