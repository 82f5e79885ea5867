"""Turns: how much work goes before a batch's next pack, told from the fair queue's tags.

The queue itself is not run: among the children of an account whoever starts earlier is served until it has caught up
(see `scheduler.fairness`), so the work before a batch follows from the start tags along its path. It is exact where
packs are full and nobody comes or goes, and a fair estimate otherwise.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field

from pipeline.domain.ids import BatchId, TenantId
from pipeline.domain.tiers import Tier
from pipeline.ports.cycle import FairTag
from scheduler.paths import DEFAULT_PRIORITY, Path, class_path
from scheduler.policy import Policy

#: Breaks ties between equal start tags.
_Rank = tuple[int, int, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Contender:
    """A batch with rows in no pack that may have packs of a pool now."""

    batch_id: BatchId
    tenant_id: TenantId
    tier: Tier
    deadline_at_us: int
    created_at_us: int
    #: Predicted worker-seconds of its rows that are in no pack, and of a full pack of them.
    seconds: float
    pack_seconds: float
    #: Among those of its tenant in its tier, the highest go first.
    priority: int = 0

    @property
    def rank(self) -> _Rank:
        """Return what decides between equal start tags: deadline, then age, then id."""
        return self.deadline_at_us, self.created_at_us, self.batch_id


@dataclass(frozen=True, slots=True, kw_only=True)
class Before:
    """The work that goes before a batch's next pack."""

    #: Predicted worker-seconds of others.
    seconds: float
    #: Batches that this work belongs to.
    batches: int
    #: The tiers they are of, the most batches first.
    tiers: tuple[tuple[Tier, int], ...]
    #: Those among them that are its own tenant's and go first for their priority, and the highest of these.
    outranking: int = 0
    highest_priority: int | None = None


@dataclass(slots=True, kw_only=True)
class _Account:
    start_seconds: float
    rank: _Rank
    #: Work below it, and the longest pack of that.
    seconds: float = 0.0
    pack_seconds: float = 0.0
    children: dict[str, _Account] = field(default_factory=dict)
    tier: Tier
    #: Of the first below it.
    tenant_id: TenantId
    #: Of a batch; among tiers and tenants all are alike.
    priority: int = 0


class Line:
    """Who competes for a pool's packs, in the order of their turns."""

    def __init__(self, pool: str, contenders: Iterable[Contender], tags: Iterable[FairTag], policy: Policy) -> None:
        """Take them as they stand."""
        self._policy = policy
        self._tags: dict[Path, FairTag] = {tag.path: tag for tag in tags if tag.pool == pool}
        #: By rank, so that the first below an account gives it its best rank.
        self.contenders = sorted(contenders, key=lambda each: each.rank)
        self._tiers: dict[str, _Account] = {}
        for each in self.contenders:
            self._add(each)

    def __contains__(self, batch_id: object) -> bool:
        return any(each.batch_id == batch_id for each in self.contenders)

    @property
    def seconds(self) -> float:
        """Return the work of all of them."""
        return sum(account.seconds for account in self._tiers.values())

    def first(self) -> Contender | None:
        """Return whose turn is next."""
        if not self.contenders:
            return None
        level = self._tiers
        path: list[str] = []
        for _ in range(3):
            name, account = min(level.items(), key=lambda item: _turn(item[1]))
            path.append(name)
            level = account.children
        return next(each for each in self.contenders if each.batch_id == path[-1])

    def before(self, me: Contender) -> Before:
        """Return what goes before one of the contenders."""
        level = self._tiers
        path = []
        for name in (me.tier.value, me.tenant_id, me.batch_id):
            path.append((level, level[name]))
            level = level[name].children
        seconds = 0.0
        counts: dict[Tier, int] = {}
        # From the batch up: what goes before it in its tenant moves its tenant back among the tier's, and so on.
        for depth, (siblings, account) in reversed(list(enumerate(path))):
            weight = self._weights(me.tier, me.tenant_id)[depth]
            start = account.start_seconds + seconds / weight
            for sibling in siblings.values():
                served = 0.0 if sibling is account else self._served(start, account, sibling, depth=depth)
                if served > 0:
                    seconds += served
                    counts[sibling.tier] = counts.get(sibling.tier, 0) + _batches_below(sibling, depth)
        tiers = tuple(sorted(counts.items(), key=lambda item: (-item[1], item[0])))
        outranking = [
            each.priority for each in path[-1][0].values() if each.priority > me.priority and each.seconds > 0
        ]
        return Before(
            seconds=seconds,
            batches=sum(counts.values()),
            tiers=tiers,
            outranking=len(outranking),
            highest_priority=max(outranking, default=None),
        )

    def _served(self, start: float, account: _Account, other: _Account, *, depth: int) -> float:
        """Return what another child is served before one that starts at `start`, in whole packs."""
        if other.priority != account.priority:
            return other.seconds if other.priority > account.priority else 0.0
        if (other.start_seconds, other.rank) > (start, account.rank):
            return 0.0
        weight = self._weights(other.tier, other.tenant_id)[depth]
        packs = max(1, math.ceil((start - other.start_seconds) * weight / other.pack_seconds))
        return min(other.seconds, packs * other.pack_seconds)

    def _weights(self, tier: Tier, tenant_id: TenantId) -> tuple[float, float, float]:
        return self._policy.weights_of(tier, tenant_id)

    def _add(self, each: Contender) -> None:
        tenant = each.tier.value, each.tenant_id
        paths = tenant[:1], tenant, (*class_path(tenant, each.priority), each.batch_id)
        level = self._tiers
        for path in paths:
            name = path[-1]
            account = level.get(name)
            if account is None:
                account = _Account(
                    start_seconds=self._start(path),
                    rank=each.rank,
                    tier=each.tier,
                    tenant_id=each.tenant_id,
                    priority=each.priority if path is paths[-1] else DEFAULT_PRIORITY,
                )
                level[name] = account
            account.seconds += each.seconds
            account.pack_seconds = max(account.pack_seconds, each.pack_seconds)
            level = account.children

    def _start(self, path: Path) -> float:
        parent, tag = self._tags.get(path[:-1]), self._tags.get(path)
        virtual = 0.0 if parent is None else parent.virtual_seconds
        return virtual if tag is None else tag.start_seconds


def _turn(account: _Account) -> tuple[int, float, _Rank]:
    return -account.priority, account.start_seconds, account.rank


def _batches_below(account: _Account, depth: int) -> int:
    below = 2 - depth
    return 1 if below == 0 else sum(_batches_below(child, depth + 1) for child in account.children.values())


def outranked(before: Before, priority: int) -> str:
    """Return what is to be said of those that go first for their priority, to be added to a sentence."""
    if before.highest_priority is None:
        return ""
    they = "one has" if before.outranking == 1 else f"{before.outranking:,} have"
    up_to = "" if before.outranking == 1 else "up to "
    return f", and of its tenant's {they} a higher priority ({up_to}{before.highest_priority}, and this {priority})"
