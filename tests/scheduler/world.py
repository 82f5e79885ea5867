"""A world for the scheduler: builders of snapshots, and a driver that does what storage would."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from itertools import count
from zlib import crc32

from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from pipeline.domain.endpoints import Endpoint
from pipeline.domain.ids import BatchId, PackId, TenantId
from pipeline.domain.promises import Promise
from pipeline.domain.tiers import Tier
from pipeline.ports.cycle import (
    Backlog,
    CyclePlan,
    FairTag,
    OpenShard,
    PackDraft,
    PoolView,
    Serving,
    Snapshot,
    WorkSize,
)
from scheduler.cycle import decide
from scheduler.policy import Policy

NOW_US = 1_700_000_000_000_000
HOUR_US = 3_600_000_000
#: Longer than any simulated run asks for.
ENDLESS_ROWS = 10_000_000
ALL_MODELS = ("model-a", "model-b", "model-c")


def backlog(name: str, *, rows: int = ENDLESS_ROWS, row_tokens: int = 100, **changes: object) -> Backlog:
    """Return a standard batch of one shard with `rows` open rows of `row_tokens` tokens each."""
    plain = Backlog(
        tenant_id=TenantId("tnt_a"),
        batch_id=BatchId(name),
        tier=Tier.STANDARD,
        model="model-a",
        endpoint=Endpoint.CHAT_COMPLETIONS,
        created_at_us=NOW_US - HOUR_US,
        deadline_at_us=NOW_US + 24 * HOUR_US,
        promise=Promise.DECLINED,
        hold_until_us=None,
        is_paused=False,
        left=WorkSize(rows=rows, input_tokens=rows * row_tokens, output_tokens=0),
        spent_micros=0,
        budget_micros=None,
        shards=(
            OpenShard(
                shard_id=crc32(name.encode()),
                shard_no=0,
                rows_total=rows,
                rows_packed=0,
                input_tokens=rows * row_tokens,
                output_tokens=0,
            ),
        ),
    )
    return replace(plain, **changes)  # type: ignore[arg-type]


def references(models: Iterable[str]) -> tuple[Serving, ...]:
    """Return the servings of a pool that serves each of `models` without quantization."""
    return tuple(Serving(variant=model, model=model, tiers=frozenset(Tier)) for model in models)


def snapshot(backlogs: Iterable[Backlog], **changes: object) -> Snapshot:
    """Return what one pool of two idle workers sees, every model measured at 100 tokens a second."""
    plain = Snapshot(
        now_us=NOW_US,
        backlogs=tuple(backlogs),
        pools=(PoolView(pool="cpu", workers=2, servings=references(ALL_MODELS), packs_waiting=0),),
        tokens_per_second=dict.fromkeys(ALL_MODELS, 100.0),
        virtual_seconds=0.0,
    )
    return replace(plain, **changes)  # type: ignore[arg-type]


def pack_ids() -> Callable[[], PackId]:
    """Return a maker of pack ids that counts."""
    numbers = count()
    return lambda: PackId(f"pack_{next(numbers):06d}")


def plan_of(seen: Snapshot, policy: Policy | None = None) -> CyclePlan:
    """Decide once."""
    return decide(seen, policy or Policy(pack_rows_min=1, pack_fixed_seconds=0.0), pack_ids())


def row_seconds(seen: Snapshot, policy: Policy) -> dict[tuple[str, int], float]:
    """Return the predicted seconds of a row, by batch and shard, worked out apart from the scheduler."""
    return {
        (each.batch_id, shard.shard_id): (shard.input_tokens + shard.output_tokens)
        / shard.rows_total
        / seen.tokens_per_second.get(each.model, policy.default_tokens_per_second)
        for each in seen.backlogs
        for shard in each.shards
    }


def charges_of(pack: PackDraft, seen: Snapshot, policy: Policy) -> dict[str, float]:
    """Return the predicted seconds that each batch has in the pack."""
    prices = row_seconds(seen, policy)
    charges: dict[str, float] = {}
    for draft in pack.slices:
        seconds = (draft.row_stop - draft.row_start) * prices[draft.batch_id, draft.shard_id]
        charges[draft.batch_id] = charges.get(draft.batch_id, 0.0) + seconds
    return charges


@dataclass
class World:
    """Backlogs, one pool, and the scheduler's memory; a step is a cycle and then some leases."""

    backlogs: dict[str, Backlog]
    policy: Policy = field(default_factory=Policy)
    workers: int = 2
    tokens_per_second: dict[str, float] = field(default_factory=lambda: dict.fromkeys(ALL_MODELS, 100.0))
    #: Batches that are not there for now.
    away: set[str] = field(default_factory=set)
    #: Batches that are there but out of budget for now.
    paused: set[str] = field(default_factory=set)
    waiting: list[PackDraft] = field(default_factory=list)
    #: For every pack so far, in the order of their making: what each batch was charged.
    dispatched: list[dict[str, float]] = field(default_factory=list)
    leased: list[PackDraft] = field(default_factory=list)
    fair_tags: tuple[FairTag, ...] = ()
    highest_ordinal: float = 0.0

    @classmethod
    def of(cls, *backlogs: Backlog, **changes: object) -> World:
        """Return a world of these backlogs."""
        return cls({each.batch_id: each for each in backlogs}, **changes)  # type: ignore[arg-type]

    def look(self) -> Snapshot:
        """Return what the scheduler sees now."""
        here = [
            replace(each, budget_micros=0) if name in self.paused else each
            for name, each in self.backlogs.items()
            if name not in self.away
        ]
        pool = PoolView(
            pool="cpu", workers=self.workers, servings=references(ALL_MODELS), packs_waiting=len(self.waiting)
        )
        return snapshot(
            [each for each in here if any(shard.rows_packed < shard.rows_total for shard in each.shards)],
            pools=(pool,),
            tokens_per_second=self.tokens_per_second,
            virtual_seconds=self.highest_ordinal,
            fair_tags=self.fair_tags,
        )

    def step(self, *, leases: int = 1) -> None:
        """Run one cycle, store its plan, and let workers lease the lowest ordinals."""
        seen = self.look()
        plan = plan_of(seen, self.policy)
        self.fair_tags = plan.fair_tags
        for pack in plan.packs:
            self.dispatched.append(charges_of(pack, seen, self.policy))
            self.highest_ordinal = max(self.highest_ordinal, pack.ordinal)
            self._mark_packed(pack)
        self.waiting += plan.packs
        self.waiting.sort(key=lambda pack: pack.ordinal)
        self.leased += self.waiting[:leases]
        del self.waiting[:leases]

    def _mark_packed(self, pack: PackDraft) -> None:
        for draft in pack.slices:
            before = self.backlogs[draft.batch_id]
            shards = tuple(
                replace(shard, rows_packed=draft.row_stop) if shard.shard_id == draft.shard_id else shard
                for shard in before.shards
            )
            self.backlogs[draft.batch_id] = replace(before, shards=shards)


def hold(check: Callable[..., None], *strategies: st.SearchStrategy[object], examples: int = 100) -> None:
    """Run `check` over drawn examples: the same in every run, and with nothing written to disk."""
    run = settings(max_examples=examples, deadline=None, database=None, derandomize=True, phases=[Phase.generate])(
        given(*strategies)(check)
    )
    run()
