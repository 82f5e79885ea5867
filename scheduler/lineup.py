"""The lineup: all backlogs of a snapshot in order of rank, with the columns that a cycle looks at in one go.

A cycle looks at very many backlogs and packs rows of few. What it must know of all of them it works out on arrays;
only those whose turn comes are looked at one by one. A backlog is known by its place in the lineup.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from itertools import pairwise
from operator import attrgetter
from typing import Any, Final, Self, TypeVar

import numpy as np

from pipeline.domain.costs.charging import PAR_PPM
from pipeline.domain.endpoints import Endpoint
from pipeline.domain.ids import BatchId, ProjectId, TenantId
from pipeline.domain.promises import Promise
from pipeline.domain.reasons import Reason
from pipeline.domain.tiers import Tier
from pipeline.ports.cycle import Backlog
from scheduler.columns import Flags, Floats, Integers, Sizes, codes_of
from scheduler.paths import DEFAULT_PRIORITY

#: Packs mix batches of one lane only: one tier, model and endpoint.
Lane = tuple[Tier, str, Endpoint]

_BY_RANK: Final = attrgetter("deadline_at_us", "created_at_us", "batch_id", "model")
_TIERS: Final = tuple(Tier)
_ENDPOINTS: Final = tuple(Endpoint)
_PROMISES: Final = tuple(Promise)


_Name = TypeVar("_Name", bound=str)


class Lineup(Sequence[Backlog]):
    """Backlogs by rank: deadline, then age, then id. Places are indices; equal backlogs give equal lineups."""

    def __init__(self, backlogs: Sequence[Backlog]) -> None:
        """Use `Lineup.of` instead: these are in order."""
        self._backlogs = backlogs
        models, model = _numbered(map(attrgetter("model"), backlogs))
        tier = codes_of(map(attrgetter("tier"), backlogs), _TIERS)
        endpoint = codes_of(map(attrgetter("endpoint"), backlogs), _ENDPOINTS)
        kinds, lane = np.unique((tier * len(models) + model) * len(_ENDPOINTS) + endpoint, return_inverse=True)
        #: The lane and the tenant of each backlog, as indices of `lanes` and `tenants`.
        self.lane: Integers = lane
        self.lanes: tuple[Lane, ...] = tuple(_lane_of(kind, models) for kind in kinds.tolist())
        self.tenants: tuple[TenantId, ...]
        self.tenants, self.tenant = _numbered(map(attrgetter("tenant_id"), backlogs))
        self.deadline_at_us = self._integers("deadline_at_us")

    @classmethod
    def of(cls, backlogs: Iterable[Backlog]) -> Self:
        """Return the lineup of these."""
        return cls(_by_rank(tuple(backlogs)))

    def __len__(self) -> int:
        """Return how many there are."""
        return len(self._backlogs)

    def __getitem__(self, place: Any) -> Any:  # noqa: ANN401 -- a place gives a backlog, a slice some
        """Return the backlog at a place."""
        return self._backlogs[place]

    @cached_property
    def left(self) -> Sizes:
        """What they have without a result, as intake estimated it."""
        return Sizes(*(self._floats(f"left.{name}") for name in ("rows", "input_tokens", "output_tokens")))

    @cached_property
    def rows_in_flight(self) -> Integers:
        """Rows in a pack and without a result."""
        return self._integers("rows_in_flight")

    @cached_property
    def template(self) -> Integers:
        """The template of the rows that come next; 0 where all are in packs."""
        return np.fromiter((each.shards[0].template if each.shards else 0 for each in self._backlogs), np.int64)

    @cached_property
    def is_packed(self) -> Flags:
        """Which have no row left for a pack."""
        # Rows are packed in order, so the last shard is the last to be packed.
        last = (each.shards and each.shards[-1] for each in self._backlogs)
        return self._flags(not shard or shard.rows_packed >= shard.rows_total for shard in last)

    @cached_property
    def is_paused(self) -> Flags:
        """Which a person paused."""
        return self._flags(map(attrgetter("is_paused"), self._backlogs))

    @cached_property
    def has_budget(self) -> Flags:
        """Which may not cost more than so much."""
        return self._flags(each.budget_micros is not None for each in self._backlogs)

    @cached_property
    def budget_micros(self) -> Integers:
        """How much that is; 0 where there is no budget."""
        return np.fromiter((each.budget_micros or 0 for each in self._backlogs), np.int64, len(self))

    @cached_property
    def spent_micros(self) -> Integers:
        """What they have cost."""
        return self._integers("spent_micros")

    @cached_property
    def reserved_micros(self) -> Integers:
        """What their packs in flight may still cost."""
        return self._integers("reserved_micros")

    @cached_property
    def multiplier(self) -> Floats:
        """What they are charged of what they cost, where tokens have no price."""
        return np.fromiter((each.terms.multiplier_ppm for each in self._backlogs), np.float64, len(self)) / PAR_PPM

    @cached_property
    def is_by_token(self) -> Flags:
        """Which are charged a price per token."""
        return self._flags(each.terms.is_by_token for each in self._backlogs)

    @cached_property
    def project(self) -> Integers:
        """The project of each backlog, as an index of `projects`."""
        return self._projects[1]

    @property
    def projects(self) -> tuple[ProjectId, ...]:
        """The projects of the backlogs."""
        return self._projects[0]

    @cached_property
    def _projects(self) -> tuple[tuple[ProjectId, ...], Integers]:
        return _numbered(map(attrgetter("project_id"), self._backlogs))

    @cached_property
    def must_promise(self) -> Flags:
        """Which are not to run before their deadlines are promised; once one is, this is no longer asked."""
        return self._flags(map(attrgetter("must_promise"), self._backlogs))

    @cached_property
    def priority(self) -> Integers:
        """Which of a tenant's in a tier go first: the highest."""
        return self._integers("priority")

    @cached_property
    def priorities(self) -> Mapping[BatchId, int]:
        """The priorities of those batches that have another than the default."""
        places = np.flatnonzero(self.priority != DEFAULT_PRIORITY).tolist()
        return {self._backlogs[place].batch_id: self._backlogs[place].priority for place in places}

    @cached_property
    def hold_until_us(self) -> Integers:
        """Until when they are held back, in microseconds since the Unix epoch; 0 where they are not."""
        return np.fromiter((each.hold_until_us or 0 for each in self._backlogs), np.int64)

    @cached_property
    def tiers_and_tenants(self) -> frozenset[tuple[str, ...]]:
        """The paths, from a pool down, of the tiers that have rows for packs, and of the tenants in them."""
        places = np.flatnonzero(~self.is_packed)
        pairs = np.unique(self.lane[places] * len(self.tenants) + self.tenant[places]).tolist()
        paths = {
            (self.lanes[pair // len(self.tenants)][0].value, self.tenants[pair % len(self.tenants)]) for pair in pairs
        }
        return frozenset(paths) | {path[:1] for path in paths}

    @cached_property
    def place_of_batch(self) -> dict[BatchId, int]:
        """The last place of each batch; one of several models has more than one."""
        return dict(zip(map(attrgetter("batch_id"), self._backlogs), range(len(self)), strict=True))

    @cached_property
    def batch(self) -> Integers:
        """Of each backlog the last place of its batch."""
        if len(self.place_of_batch) == len(self):  # nearly always: a batch has one model
            return np.arange(len(self))
        batch_ids = map(attrgetter("batch_id"), self._backlogs)
        return np.fromiter(map(self.place_of_batch.__getitem__, batch_ids), np.int64, len(self))

    @cached_property
    def created_at_us(self) -> Integers:
        """When they were submitted, in microseconds since the Unix epoch."""
        return self._integers("created_at_us")

    def reasons(self, members: Sequence[Reason]) -> Integers:
        """Return why each batch stood where it stood before, as an index of `members`; -1 where nothing was said."""
        return codes_of(map(attrgetter("reason"), self._backlogs), members)

    @cached_property
    def _promises(self) -> Integers:
        return codes_of(map(attrgetter("promise"), self._backlogs), _PROMISES)

    def with_promise(self, promise: Promise) -> Flags:
        """Return which have this promise."""
        found: Flags = self._promises == _PROMISES.index(promise)
        return found

    def in_lanes(self, is_wanted: Iterable[bool]) -> Flags:
        """Return which are in a lane that is wanted; `is_wanted` says it of each of `lanes`."""
        wanted: Flags = np.fromiter(is_wanted, np.bool_, len(self.lanes))
        return wanted[self.lane]

    def lines(self, places: Integers) -> Mapping[Tier, dict[int, dict[int, list[int]]]]:
        """Return these places in order of rank, by tier, tenant and lane."""
        key = self.tenant[places] * len(self.lanes) + self.lane[places]
        order = np.argsort(key, kind="stable")
        ordered = places[order].tolist()
        starts = np.flatnonzero(np.diff(key[order], prepend=-1))
        found: dict[Tier, dict[int, dict[int, list[int]]]] = {}
        for start, stop in pairwise([*starts.tolist(), len(ordered)]):
            tenant, lane = divmod(int(key[order[start]]), len(self.lanes))
            tier = self.lanes[lane][0]
            found.setdefault(tier, {}).setdefault(tenant, {})[lane] = ordered[start:stop]
        return found

    def _integers(self, name: str) -> Integers:
        return np.fromiter(map(attrgetter(name), self._backlogs), np.int64, len(self))

    def _floats(self, name: str) -> Floats:
        return np.fromiter(map(attrgetter(name), self._backlogs), np.float64, len(self))

    def _flags(self, values: Iterable[bool]) -> Flags:
        return np.fromiter(values, np.bool_, len(self))


def _numbered(values: Iterable[_Name]) -> tuple[tuple[_Name, ...], Integers]:
    """Return the different values, in order of appearance, and for each value which of them it is."""
    found = list(values)
    names = tuple(dict.fromkeys(found))
    numbers = {name: number for number, name in enumerate(names)}
    return names, np.fromiter(map(numbers.__getitem__, found), np.int64, len(found))


def _lane_of(kind: int, models: Sequence[str]) -> Lane:
    rest, endpoint = divmod(kind, len(_ENDPOINTS))
    tier, model = divmod(rest, len(models))
    return _TIERS[tier], models[model], _ENDPOINTS[endpoint]


def _by_rank(backlogs: Sequence[Backlog]) -> Sequence[Backlog]:
    """Return the backlogs in order of rank: by deadline and age on arrays, and by id where these do not decide."""
    deadlines = np.fromiter(map(attrgetter("deadline_at_us"), backlogs), np.int64, len(backlogs))
    ages = np.fromiter(map(attrgetter("created_at_us"), backlogs), np.int64, len(backlogs))
    order = np.lexsort((ages, deadlines))
    found = [backlogs[place] for place in order.tolist()]
    is_new = np.ones(len(found) + 1, dtype=np.bool_)
    is_new[1:-1] = (np.diff(deadlines[order]) != 0) | (np.diff(ages[order]) != 0)
    for start, stop in pairwise(np.flatnonzero(is_new).tolist()):
        if stop - start > 1:
            found[start:stop] = sorted(found[start:stop], key=_BY_RANK)
    return found
