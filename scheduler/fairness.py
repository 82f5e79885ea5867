"""Start-time fair queueing over a tree of accounts: pool, tier, tenant, batch.

P. Goyal, H. Vin, H. Cheng, "Start-time Fair Queueing" (SIGCOMM 1996), applied among the children of
every account. A child has a start tag, its parent a virtual time. The child with the lowest tag is
next; the virtual time moves up to that tag, and the tag up by predicted seconds / weight. Children
that always have rows then differ in service by at most one charge each:
|W_f/w_f - W_g/w_g| <= U_f/w_f + U_g/w_g, where U is the largest single charge. Only tiers have
weights; tenants of a tier, and batches of a tenant, are equals.

A child's tag is lifted to the virtual time when it comes (back) with rows, so that nobody saves up
turns by staying away. A tag ahead of the virtual time stays, so that nobody sheds a debt that way
either. For a child that had rows all along the lift is no change: the virtual time never passes it.

Filling up another batch's pack gives a child service out of turn; see `FairQueue.peers`. So does a promised
deadline that presses; see `FairQueue.press`.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import pairwise

from pipeline.domain.ids import BatchId
from pipeline.domain.tiers import WEIGHTS, Tier
from pipeline.ports.cycle import Backlog, EndedPack, EndedShare, FairTag
from scheduler.cursor import Cursor, Lane

#: Breaks ties between equal start tags: deadline, then age, then id.
Rank = tuple[int, int, BatchId]
#: From the pool down, as in `FairTag`.
Path = tuple[str, ...]
_BATCH_DEPTH = 3
#: Batches of a tenant are equals.
_BATCH_WEIGHT = 1.0
#: Far below any virtual time; the seconds of a deadline since the Unix epoch are added.
_PRESSING_ORDINAL = -1e10


@dataclass(slots=True, kw_only=True, eq=False)
class Account:
    """One node of a pool's tree. Mutable, and lives for one cycle."""

    path: Path
    weight: float
    #: The best rank below it.
    rank: Rank
    start_seconds: float
    virtual_seconds: float
    #: A batch's backlogs that the pool can serve; empty above the batches.
    cursors: list[Cursor] = field(default_factory=list)
    #: Children by precedence. An entry may be late: tags only grow, so `lowest` corrects it on sight.
    heap: list[tuple[float, Rank, Path, Account]] = field(default_factory=list)

    @property
    def is_spent(self) -> bool:
        """Whether no row is left below this account."""
        return all(cursor.is_spent for cursor in self.cursors) and lowest(self) is None


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """A batch's claim to a pack: its rows, and the accounts from the pool down that pay for them."""

    accounts: tuple[Account, ...]
    cursor: Cursor
    #: Out of turn, because the batch's deadline was promised and time is short.
    is_pressing: bool = False


def weight_of(tier: Tier) -> float:
    """Return a tier's share of a contended pool, relative to the other tiers' weights."""
    return float(WEIGHTS[tier])


def pressing_ordinal(deadline_at_us: int) -> float:
    """Return the ordinal of packs that must go first: below all others, the first due lowest."""
    return _PRESSING_ORDINAL + deadline_at_us / 1_000_000


def rank_of(backlog: Backlog) -> Rank:
    """Return what decides between equal start tags."""
    return backlog.deadline_at_us, backlog.created_at_us, backlog.batch_id


def lift(start_seconds: float, virtual_seconds: float) -> float:
    """Return the start tag of an account that has rows: no credit is banked, debts are kept."""
    return max(start_seconds, virtual_seconds)


def precedence(account: Account) -> tuple[float, Rank, Path]:
    """Return the key by which siblings take turns, lowest first."""
    return account.start_seconds, account.rank, account.path


def lowest(parent: Account) -> Account | None:
    """Return the child whose turn it is, or None when none has rows left."""
    heap = parent.heap
    while heap:
        *key, child = heap[0]
        if child.is_spent:
            heapq.heappop(heap)
        elif tuple(key) != precedence(child):
            heapq.heapreplace(heap, (*precedence(child), child))
        else:
            return child
    return None


def settle(account: Account) -> float:
    """Return the virtual time to end a cycle with: up to the lowest tag of a child with rows left.

    Otherwise a stream of batches that are each served in one pack would all start at the same virtual
    time, ahead of a long batch that has had its first pack, for ever.
    """
    child = lowest(account)
    return account.virtual_seconds if child is None else max(account.virtual_seconds, child.start_seconds)


def recall(tags: Iterable[FairTag], backlogs: Iterable[Backlog]) -> tuple[FairTag, ...]:
    """Return the tags without those of batches that have left: they have no rows and never return."""
    present = {path_of(backlog) for backlog in backlogs}
    return tuple(tag for tag in tags if len(tag.path) < _BATCH_DEPTH or tag.path in present)


def true_up(tags: Iterable[FairTag], ended: Iterable[EndedPack]) -> tuple[FairTag, ...]:
    """Return the tags with what packs took instead of what was charged for them at dispatch.

    An account without a tag was no further than its parent's virtual time: it gets one where it took more than
    it was charged. Where it took less there is nothing to give back: no credit is banked.
    """
    known = {(tag.pool, tag.path): tag for tag in tags}
    for pack in ended:
        tokens = sum(_tokens(share) for share in pack.shares)
        for share in pack.shares:
            took = pack.seconds * _tokens(share) / tokens if tokens else 0.0
            path = (pack.tier.value, share.tenant_id, share.batch_id)
            for depth, weight in enumerate(weights_of(pack.tier)[1:], start=1):
                _correct(known, pack.pool, path[:depth], (took - share.predicted_seconds) / weight)
    return tuple(known.values())


def _tokens(share: EndedShare) -> float:
    return share.actual.input_tokens + share.actual.output_tokens


def _correct(known: dict[tuple[str, Path], FairTag], pool: str, path: Path, seconds: float) -> None:
    parent = known.get((pool, path[:-1]))
    tag = known.get((pool, path))
    if tag is None and parent is not None and seconds > 0:
        tag = FairTag(pool=pool, path=path, start_seconds=parent.virtual_seconds, virtual_seconds=0.0)
    if tag is not None:
        known[pool, path] = replace(tag, start_seconds=tag.start_seconds + seconds)


def weights_of(tier: Tier) -> tuple[float, ...]:
    """Return the weights of the accounts from the pool down to a batch of this tier."""
    return 1.0, weight_of(tier), 1.0, _BATCH_WEIGHT


def path_of(backlog: Backlog) -> Path:
    """Return the path of a batch's account."""
    return backlog.tier.value, backlog.tenant_id, backlog.batch_id


class FairQueue:
    """The candidates of one pool in the order of their turns."""

    def __init__(
        self, pool: str, cursors: Iterable[Cursor], tags: Iterable[FairTag], *, virtual_seconds: float
    ) -> None:
        """Build the tree over `cursors`; `virtual_seconds` is where a pool without tags begins."""
        self.pool = pool
        self._tags: dict[Path, FairTag] = {tag.path: tag for tag in tags if tag.pool == pool}
        self._tags.setdefault((), FairTag(pool=pool, path=(), start_seconds=0.0, virtual_seconds=virtual_seconds))
        self._accounts: dict[Path, Account] = {}
        #: By tier and tenant: the accounts from the pool down to the tenant's.
        self._above: dict[Path, tuple[Account, ...]] = {}
        self._lanes: dict[Lane, list[Turn]] = {}
        #: Turns of the batches that go before all others, whatever their tags say; the first due first.
        self._pressing: deque[Turn] = deque()
        served = tuple(cursors)
        # By rank, so that the first batch under an account gives the account its best rank.
        ranked = [(rank_of(cursor.backlog), cursor.backlog.model, number) for number, cursor in enumerate(served)]
        for rank, _, number in sorted(ranked):
            self._add(served[number], rank)
        for account in self._accounts.values():
            heapq.heapify(account.heap)

    def press(self, batch_ids: Iterable[BatchId]) -> None:
        """Let these batches go before all others, in this order. They are charged as ever, so others get it back."""
        place = {batch_id: number for number, batch_id in enumerate(batch_ids)}
        turns = [turn for lane in self._lanes.values() for turn in lane if turn.cursor.backlog.batch_id in place]
        turns.sort(key=lambda turn: place[turn.cursor.backlog.batch_id])
        self._pressing = deque(replace(turn, is_pressing=True) for turn in turns)

    def first(self) -> Turn | None:
        """Return whose turn it is, or None when no row is left."""
        while self._pressing:
            if not self._pressing[0].cursor.is_spent:
                return self._pressing[0]
            self._pressing.popleft()
        account = self._accounts.get(())
        if account is None:
            return None
        accounts = [account]
        while (child := lowest(accounts[-1])) is not None:
            accounts.append(child)
        cursor = next((cursor for cursor in accounts[-1].cursors if not cursor.is_spent), None)
        return None if cursor is None else Turn(accounts=tuple(accounts), cursor=cursor)

    def begin(self, turn: Turn) -> float:
        """Move the virtual times up to the turn's start tags; return the pack's ordinal.

        The ordinal is the tag in the pool's own virtual time, so the lowest ordinal is the next turn. One that
        presses moves no virtual time, for others would be lifted and lose their claim; its ordinal is before them all.
        """
        if turn.is_pressing:
            return pressing_ordinal(turn.cursor.backlog.deadline_at_us)
        for parent, child in pairwise(turn.accounts):
            parent.virtual_seconds = max(parent.virtual_seconds, child.start_seconds)
        return turn.accounts[0].virtual_seconds

    def charge(self, turn: Turn, seconds: float) -> None:
        """Charge predicted seconds to every account of the turn."""
        for account in turn.accounts[1:]:
            account.start_seconds += seconds / account.weight

    def peers(self, turn: Turn, *, lead_seconds: float) -> Iterator[Turn]:
        """Yield who may fill up the turn's pack: its lane, in order of their own turns.

        A peer is served before its turn and pays for it, but the virtual time does not follow: others
        would be lifted and lose their claim. The lead is bounded, because a batch that fills up pack
        after pack would otherwise get ahead of other lanes without limit. The bound of the fairness
        among tenants and batches becomes 2 * lead + U_f/w_f + U_g/w_g; among tiers it is unchanged,
        since a pack stays within one.
        """
        lane = self._lanes[turn.cursor.lane]
        lane[:] = [peer for peer in lane if not peer.cursor.is_spent]
        waiting = [
            (tuple(precedence(account) for account in peer.accounts[1:]), position)
            for position, peer in enumerate(lane)
            if may_top_up(peer, lead_seconds=lead_seconds)
        ]
        heapq.heapify(waiting)
        # A copy, because the packer spends cursors while it walks and `lane` is rebuilt by the next call.
        turns = tuple(lane)
        while waiting:
            yield turns[heapq.heappop(waiting)[1]]

    def tags(self) -> tuple[FairTag, ...]:
        """Return what the next cycle must know, without the tags that it would lift anyway."""
        for account in self._accounts.values():
            account.virtual_seconds = settle(account)
        kept = self._tags | {path: _tag_of(self.pool, account) for path, account in self._accounts.items()}
        return tuple(kept[path] for path in sorted(_without_stale(kept)))

    def _add(self, cursor: Cursor, rank: Rank) -> None:
        path = path_of(cursor.backlog)
        above = self._above.get(path[:-1])
        if above is None:
            *weights, _ = weights_of(cursor.backlog.tier)
            above = ()
            for depth, weight in enumerate(weights):
                above = (*above, self._account(path[:depth], weight, rank, above[-1] if above else None))
            self._above[path[:-1]] = above
        batch = self._account(path, _BATCH_WEIGHT, rank, above[-1])
        batch.cursors.append(cursor)
        self._lanes.setdefault(cursor.lane, []).append(Turn(accounts=(*above, batch), cursor=cursor))

    def _account(self, path: Path, weight: float, rank: Rank, parent: Account | None) -> Account:
        known = self._accounts.get(path)
        if known is not None:
            return known
        tag = self._tags.get(path)
        start = 0.0 if tag is None else tag.start_seconds
        account = Account(
            path=path,
            weight=weight,
            rank=rank,
            start_seconds=start if parent is None else lift(start, parent.virtual_seconds),
            virtual_seconds=0.0 if tag is None else tag.virtual_seconds,
        )
        self._accounts[path] = account
        if parent is not None:
            # A heap once all are there.
            parent.heap.append((*precedence(account), account))
        return account


def may_top_up(peer: Turn, *, lead_seconds: float) -> bool:
    """Say whether the peer is close enough to its own turn, among tenants and among batches."""
    _, *levels = pairwise(peer.accounts)
    return all(child.start_seconds <= parent.virtual_seconds + lead_seconds for parent, child in levels)


def _tag_of(pool: str, account: Account) -> FairTag:
    return FairTag(
        pool=pool,
        path=account.path,
        start_seconds=account.start_seconds,
        virtual_seconds=account.virtual_seconds,
    )


def _without_stale(tags: Mapping[Path, FairTag]) -> set[Path]:
    """Return the paths to keep: those in debt, and all above them.

    An account at or behind its parent's virtual time starts there with or without a tag, and a virtual
    time matters only to children in debt.
    """
    kept: set[Path] = {()}
    for path, tag in tags.items():
        parent = tags.get(path[:-1])
        if path and (parent is None or tag.start_seconds > parent.virtual_seconds):
            kept |= {path[:depth] for depth in range(len(path) + 1)} & tags.keys()
    return kept
