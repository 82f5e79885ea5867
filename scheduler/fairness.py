"""Start-time fair queueing over a tree of accounts: pool, tier, tenant, batch.

P. Goyal, H. Vin, H. Cheng, "Start-time Fair Queueing" (SIGCOMM 1996), applied among the children of
every account. A child has a start tag, its parent a virtual time. The child with the lowest tag is
next; the virtual time moves up to that tag, and the tag up by predicted seconds / weight. Children
that always have rows then differ in service by at most one charge each:
|W_f/w_f - W_g/w_g| <= U_f/w_f + U_g/w_g, where U is the largest single charge. Tiers and tenants have
weights; batches of a tenant are equals.

Where batches of a tenant in a tier have different priorities, those of the highest that have rows take their turns,
and the others wait. Each priority has a virtual time of its own (`scheduler.paths`), so that among equals it is as if
the others were not there: who was passed over has saved up no turns, and nobody is lifted past an equal meanwhile.

A child that comes (back) with rows starts at the virtual time, so that nobody saves up turns by
staying away. A tag ahead of the virtual time stays, so that nobody sheds a debt that way either. A child
that has rows all along keeps its tag, also where it fell behind the virtual time because its packs took less
than it was charged (`scheduler.charges.true_up`).

Filling up another batch's pack gives a child service out of turn; see `FairQueue.peer`. So does a promised
deadline that presses; see `FairQueue.press`.

Accounts are made when they are looked at: of tenants and batches without a debt only the next one is.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from pipeline.domain.ids import TenantId
from pipeline.domain.tiers import Tier
from pipeline.ports.cycle import FairTag, PoolView
from scheduler.accounts import Account, Turn, pressing_ordinal
from scheduler.charges import without_stale
from scheduler.columns import Integers
from scheduler.cursor import Cursor, Cursors
from scheduler.lineup import Lineup
from scheduler.paths import Path, class_path, is_class
from scheduler.policy import Policy
from scheduler.siblings import Siblings


@dataclass(frozen=True, slots=True, eq=False)
class _Seat:
    """A backlog's place in line: its batch's account, how far it is packed, and the account it takes turns below."""

    account: Account
    cursor: Cursor
    above: Account


class _Line:
    """A tenant's backlogs in one lane: those of the highest priority first, and among equals by turn."""

    def __init__(self, classes: Sequence[Siblings[_Seat]]) -> None:
        """Take those of each priority, the highest first."""
        self.classes = classes

    def lowest(self) -> _Seat | None:
        """Return whose turn it is, or None when none has rows left."""
        for each in self.classes:
            seat = each.lowest()
            if seat is not None:
                return seat
        return None


@dataclass(slots=True, kw_only=True, eq=False)
class _Tenant:
    """A tenant of one tier, with its backlogs by lane."""

    tenant_id: TenantId
    account: Account
    rank: int
    lines: dict[int, _Line]

    def lowest(self) -> _Seat | None:
        """Return whose turn it is among its batches, or None when none has rows left."""
        if len(self.lines) == 1:
            (line,) = self.lines.values()
            return line.lowest()
        seats = [seat for line in self.lines.values() if (seat := line.lowest()) is not None]
        return min(seats, key=lambda seat: (-seat.cursor.backlog.priority, *_turn(seat)), default=None)

    def firsts(self) -> Iterable[_Seat]:
        """Return the first of each priority that has rows left."""
        found: dict[Path, _Seat] = {}
        for line in self.lines.values():
            for siblings in line.classes:
                seat = siblings.lowest()
                if seat is not None:
                    known = found.setdefault(seat.above.path, seat)
                    found[seat.above.path] = min(known, seat, key=_turn)
        return found.values()


@dataclass(slots=True, kw_only=True, eq=False)
class _Tier:
    """A tier, with its tenants: all, and by the lanes they have backlogs in once a pack of the lane is filled up."""

    account: Account
    rank: int
    #: Places of backlogs by tenant and lane.
    places: dict[int, dict[int, list[int]]]
    #: Each tenant by its rank.
    ranks: dict[int, int]
    tenants: Siblings[_Tenant] = field(init=False)
    by_lane: dict[int, Siblings[_Tenant]] = field(default_factory=dict, init=False)


def lift(tag: FairTag | None, virtual_seconds: float) -> float:
    """Return the start tag of an account with rows: the one it had, or where it is new or was away the virtual time."""
    return virtual_seconds if tag is None else tag.start_seconds


def turn_of(account: Account) -> float:
    """Return the tag by which siblings take turns, lowest first; rank decides between equal ones."""
    return account.start_seconds


def may_fill_up(account: Account, parent: Account, *, lead_seconds: float) -> bool:
    """Say whether the account is close enough to its own turn to fill up another's pack."""
    return account.start_seconds <= parent.virtual_seconds + lead_seconds


def settle(account: Account, lowest: Account | None) -> float:
    """Return the virtual time to end a cycle with: up to the lowest tag of a child with rows left.

    Otherwise a stream of batches that are each served in one pack would all start at the same virtual
    time, ahead of a long batch that has had its first pack, for ever.
    """
    return account.virtual_seconds if lowest is None else max(account.virtual_seconds, lowest.start_seconds)


class FairQueue:
    """The order in which one pool serves the backlogs it can, within one cycle."""

    def __init__(
        self,
        pool: PoolView,
        lineup: Lineup,
        places: Integers,
        cursors: Cursors,
        tags: Iterable[FairTag],
        policy: Policy,
        *,
        now_us: int,
        virtual_seconds: float,
    ) -> None:
        """Queue the backlogs at `places`; start from `tags`, or at `virtual_seconds` where the pool has none."""
        self.pool = pool.pool
        self._workers = pool.workers
        self._packs = dict(pool.packs_of_tenants)
        self._now_us = now_us
        self._lineup = lineup
        self._cursors = cursors
        self._policy = policy
        self._tags = {tag.path: tag for tag in tags if tag.pool == pool.pool}
        root = FairTag(pool=pool.pool, path=(), start_seconds=0.0, virtual_seconds=virtual_seconds)
        self._tags.setdefault((), root)
        #: Of each account the names of those children that got back more than they were ahead.
        self._behind: dict[Path, set[str]] = {}
        for path, tag in self._tags.items():
            if path and not is_class(path) and tag.start_seconds < self._virtual_before(path[:-1]):
                self._behind.setdefault(path[:-1], set()).add(path[-1])
        self._accounts: dict[Path, Account] = {}
        self._root = self._account((), 1.0, None)
        self._seats: dict[int, _Seat] = {}
        self._tenants: dict[tuple[Tier, int], _Tenant] = {}
        self._tiers = {tier: self._tier(tier, lines) for tier, lines in lineup.lines(places).items()}
        self._is_queued = np.zeros(len(lineup), dtype=np.bool_)
        self._is_queued[places] = True
        #: Places of the backlogs that go before all others, whatever their tags say; the first due first.
        self._pressing: deque[int] = deque()
        self._pressing_packs = 0.0

    def press(self, places: Integers, *, packs: float) -> None:
        """Let these backlogs go before all others, in this order, for so many packs.

        They are charged as ever, so others get it back.
        """
        self._pressing = deque(places[self._is_queued[places]].tolist())
        self._pressing_packs = packs

    def first(self) -> Turn | None:
        """Return whose turn it is, or None when no row is left."""
        while self._pressing and self._pressing_packs > 0:
            place = self._pressing[0]
            if not self._cursors.at(place).is_spent:
                return self._turn_at(place)
            self._pressing.popleft()
        for tier in self._by_turn():
            tenant = tier.tenants.lowest()
            seat = None if tenant is None else tenant.lowest()
            if tenant is not None and seat is not None:
                return _turn_to(seat, self._root, tier.account, tenant.account)
        return None

    def begin(self, turn: Turn) -> float:
        """Move the virtual times up to the turn's start tags; return the pack's ordinal.

        The ordinal is the tag in the pool's own virtual time, so the lowest ordinal is the next turn. One that
        presses moves no virtual time, for others would be lifted and lose their claim; its ordinal is before them all.
        """
        if turn.is_pressing:
            self._pressing_packs -= 1
            return pressing_ordinal(turn.cursor.backlog.deadline_at_us)
        root, tier, tenant, batch = turn.accounts
        for parent, child in ((root, tier), (tier, tenant), (turn.above, batch)):
            parent.virtual_seconds = max(parent.virtual_seconds, child.start_seconds)
        return self._root.virtual_seconds

    def charge(self, turn: Turn, seconds: float) -> None:
        """Charge predicted seconds to every account of the turn."""
        for account in turn.accounts[1:]:
            account.start_seconds += seconds / account.weight

    def count(self, seconds: Mapping[TenantId, float]) -> None:
        """Count a pack that has so many predicted seconds of each tenant against the tenants' limits."""
        whole = sum(seconds.values())
        for tenant_id, part in seconds.items():
            self._packs[tenant_id] = self._packs.get(tenant_id, 0.0) + (part / whole if whole else 1.0)

    def peer(self, turn: Turn, *, lead_seconds: float) -> Turn | None:
        """Return who is next to fill up the turn's pack: the next of its lane, or None where nobody may.

        A peer is served before its turn and pays for it, but the virtual time does not follow: others
        would be lifted and lose their claim. The lead is bounded, because a batch that fills up pack
        after pack would otherwise get ahead of other lanes without limit. The bound of the fairness
        among tenants and batches becomes 2 * lead + U_f/w_f + U_g/w_g; among tiers it is unchanged,
        since a pack stays within one.
        """
        root, above, _tenant, _batch = turn.accounts
        tier = self._tiers[turn.cursor.backlog.tier]
        lane = int(self._lineup.lane[turn.cursor.place])
        tenants = self._tenants_in(tier, lane)
        while (tenant := tenants.lowest()) is not None:
            if not may_fill_up(tenant.account, above, lead_seconds=lead_seconds):
                return None
            seat = tenant.lines[lane].lowest()
            assert seat is not None, "a tenant whose line is spent is left out"
            if may_fill_up(seat.account, seat.above, lead_seconds=lead_seconds):
                return _turn_to(seat, root, above, tenant.account)
            # It got this far ahead by filling up: no more of that in this cycle.
            tenants.drop_lowest()
        return None

    def tags(self) -> tuple[FairTag, ...]:
        """Return what the next cycle must know, without the tags that it would lift anyway."""
        waiting = {seat.account.path for seat in self._seats.values() if not seat.cursor.is_spent}
        for tenant in self._tenants.values():
            for seat in tenant.firsts():
                seat.above.virtual_seconds = settle(seat.above, seat.account)
                waiting.add(tenant.account.path)
        for tier in self._tiers.values():
            lowest = tier.tenants.lowest()
            tier.account.virtual_seconds = settle(tier.account, None if lowest is None else lowest.account)
            if lowest is not None:
                waiting.add(tier.account.path)
        first = next((tier for tier in self._by_turn() if tier.account.path in waiting), None)
        self._root.virtual_seconds = settle(self._root, None if first is None else first.account)
        return without_stale(self._tags | {path: self._tag_of(each) for path, each in self._accounts.items()}, waiting)

    # --- the tree, as far as it is looked at ---------------------------------------------------

    def _by_turn(self) -> Iterator[_Tier]:
        return iter(sorted(self._tiers.values(), key=lambda tier: (turn_of(tier.account), tier.rank)))

    def _tier(self, name: Tier, places: dict[int, dict[int, list[int]]]) -> _Tier:
        ranks = {min(line[0] for line in lines.values()): tenant for tenant, lines in places.items()}
        account = self._account((name.value,), self._policy.tier_weight(name), self._root)
        tier = _Tier(account=account, rank=min(ranks), places=places, ranks=ranks)
        tier.tenants = Siblings(
            sorted(ranks),
            behind=self._ranks_behind(tier),
            least_tag=self._virtual_before(account.path),
            account_of=lambda rank: self._tenant(tier, name, rank),
            tag_of=lambda tenant: turn_of(tenant.account),
            is_spent=lambda tenant: self._is_at_limit(tenant) or tenant.lowest() is None,
        )
        return tier

    def _ranks_behind(self, tier: _Tier) -> set[int]:
        names = self._behind.get(tier.account.path, ())
        return (
            {rank for rank, tenant in tier.ranks.items() if self._lineup.tenants[tenant] in names} if names else set()
        )

    def _tenants_in(self, tier: _Tier, lane: int) -> Siblings[_Tenant]:
        found = tier.by_lane.get(lane)
        if found is None:
            name = self._lineup.lanes[lane][0]
            found = tier.by_lane[lane] = Siblings(
                sorted(rank for rank, tenant in tier.ranks.items() if lane in tier.places[tenant]),
                behind={rank for rank in self._ranks_behind(tier) if lane in tier.places[tier.ranks[rank]]},
                least_tag=self._virtual_before(tier.account.path),
                account_of=lambda rank: self._tenant(tier, name, rank),
                tag_of=lambda tenant: turn_of(tenant.account),
                is_spent=lambda tenant: self._is_at_limit(tenant) or tenant.lines[lane].lowest() is None,
            )
        return found

    def _tenant(self, tier: _Tier, name: Tier, rank: int) -> _Tenant:
        number = tier.ranks[rank]
        known = self._tenants.get((name, number))
        if known is None:
            tenant_id = self._lineup.tenants[number]
            path = (*tier.account.path, tenant_id)
            account = self._account(path, self._policy.tenant_weight(tenant_id), tier.account)
            lines = {lane: self._line(account, places) for lane, places in tier.places[number].items()}
            known = self._tenants[name, number] = _Tenant(tenant_id=tenant_id, account=account, rank=rank, lines=lines)
        return known

    def _is_at_limit(self, tenant: _Tenant) -> bool:
        """Say whether a tenant has as many packs on their way as it may; in one cycle they only grow more."""
        packs = self._packs.get(tenant.tenant_id, 0.0)
        return packs > 0 and packs >= self._policy.packs_of_tenant_max(tenant.tenant_id, workers=self._workers)

    def _line(self, tenant: Account, places: list[int]) -> _Line:
        if not self._lineup.priorities:
            return _Line([self._siblings(tenant, places)])
        priority = self._lineup.priority[places]
        found = []
        for each in np.unique(priority)[::-1].tolist():
            path = class_path(tenant.path, each)
            above = tenant if path == tenant.path else self._account(path, 1.0, tenant)
            found.append(self._siblings(above, np.asarray(places)[priority == each].tolist()))
        return _Line(found)

    def _siblings(self, above: Account, places: list[int]) -> Siblings[_Seat]:
        names = self._behind.get(above.path, ())
        return Siblings(
            places,
            behind={place for place in places if self._lineup[place].batch_id in names} if names else (),
            least_tag=self._virtual_before(above.path),
            account_of=lambda place: self._seat(above, place),
            tag_of=lambda seat: turn_of(seat.account),
            is_spent=lambda seat: seat.cursor.is_spent,
        )

    def _seat(self, above: Account, place: int) -> _Seat:
        seat = self._seats.get(place)
        if seat is None:
            cursor = self._cursors.at(place)
            account = self._account((*above.path, cursor.backlog.batch_id), 1.0, above)
            seat = self._seats[place] = _Seat(account, cursor, above)
        return seat

    def _turn_at(self, place: int) -> Turn:
        backlog, number = self._lineup[place], int(self._lineup.tenant[place])
        tier = self._tiers[backlog.tier]
        rank = min(line[0] for line in tier.places[number].values())
        tenant = self._tenant(tier, backlog.tier, rank).account
        path = class_path(tenant.path, backlog.priority)
        above = tenant if path == tenant.path else self._account(path, 1.0, tenant)
        return _turn_to(self._seat(above, place), self._root, tier.account, tenant, is_pressing=True)

    def _account(self, path: Path, weight: float, parent: Account | None) -> Account:
        known = self._accounts.get(path)
        if known is None:
            # At the start of the cycle: who had rows then was there before what the cycle did.
            virtual = 0.0 if parent is None else self._virtual_before(parent.path)
            known = self._accounts[path] = Account(
                path=path,
                weight=weight,
                start_seconds=lift(self._tags.get(path), virtual),
                virtual_seconds=self._virtual_before(path),
            )
        return known

    def _tag_of(self, account: Account) -> FairTag:
        return FairTag(
            pool=self.pool,
            path=account.path,
            start_seconds=account.start_seconds,
            virtual_seconds=account.virtual_seconds,
            at_us=self._now_us,
        )

    def _virtual_before(self, path: Path) -> float:
        tag = self._tags.get(path)
        return 0.0 if tag is None else tag.virtual_seconds


def _turn(seat: _Seat) -> tuple[float, int]:
    """Return what equals take turns by."""
    return turn_of(seat.account), seat.cursor.place


def _turn_to(seat: _Seat, root: Account, tier: Account, tenant: Account, *, is_pressing: bool = False) -> Turn:
    accounts = root, tier, tenant, seat.account
    return Turn(accounts=accounts, above=seat.above, cursor=seat.cursor, is_pressing=is_pressing)
