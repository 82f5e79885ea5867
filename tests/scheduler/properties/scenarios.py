"""Worlds drawn from a seed: several tiers, tenants, batches and models, pools that differ in speed, price and variants."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from random import Random
from typing import Final

from pipeline.domain.ids import BatchId, PackId, TenantId
from pipeline.domain.tiers import Tier
from pipeline.ports.cycle import EndedPack, EndedShare, Serving, WorkSize
from scheduler.policy import Policy
from scheduler.prediction.predictions import Predictions
from tests.scheduler.properties.cast import Batch, Pool

#: Tokens a second by variant; what is quantized runs faster.
SPEEDS: Final[Mapping[str, float]] = {"chat": 100.0, "chat@int8": 160.0, "small": 400.0, "embed": 900.0}
ALL_TIERS: Final = frozenset(Tier)
#: Rows from a blink to a pack and a half.
ROW_TOKENS: Final = (1, 40, 300, 1500)


def serving(variant: str, *, tiers: frozenset[Tier] = ALL_TIERS, relative_cost: float = 1.0) -> Serving:
    """Return a variant as pools offer it."""
    return Serving(variant=variant, model=variant.partition("@")[0], tiers=tiers, relative_cost=relative_cost)


CHAT: Final = serving("chat")
INT8: Final = serving("chat@int8", tiers=ALL_TIERS - {Tier.URGENT}, relative_cost=0.6)
SMALL: Final = serving("small")
EMBED: Final = serving("embed")


def pools_of(random: Random) -> tuple[Pool, ...]:
    """Return pools that share some models: a dear one with everything, and one that is quantized or does one thing."""
    dear = Pool(
        name="dear",
        workers=random.randint(1, 3),
        servings=(CHAT, INT8, SMALL, EMBED),
        rate_micros_per_hour=9_000_000,
    )
    cheap = Pool(
        name="cheap",
        workers=random.randint(1, 2),
        servings=random.choice([(INT8, EMBED), (SMALL,), (CHAT, SMALL)]),
        pace=random.choice([0.5, 1.0, 2.0]),
        rate_micros_per_hour=1_000_000,
    )
    return (dear, cheap) if random.random() < 0.7 else (dear,)


def policy_of(random: Random, **changes: float) -> Policy:
    """Return a policy whose lead and head start differ from run to run."""
    plain = {
        "top_up_lead_seconds": random.choice([0.0, 5.0, 10.0]),
        "packs_ahead_per_worker": random.choice([1, 2, 3]),
        "pack_rows_min": 1,
    }
    return Policy(**(plain | changes))  # type: ignore[arg-type]


def families(random: Random, *, tiers: int = 3, tenants: int = 3, batches: int = 3) -> list[Batch]:
    """Return endless batches: so many tiers, up to so many tenants in each, up to so many batches of each."""
    return [
        Batch(
            name=f"batch_{tier}_{tenant}_{number}",
            tenant=f"tnt_{tenant}",
            tier=tier,
            model=random.choice(["chat", "chat", "small", "embed"]),
            row_tokens=random.choice(ROW_TOKENS),
        )
        for tier in random.sample(list(Tier), tiers)
        for tenant in range(random.randint(1, tenants))
        for number in range(random.randint(1, batches))
    ]


def stream(random: Random, *, count: int, every: float, tiers: tuple[Tier, ...] = (Tier.STANDARD,)) -> list[Batch]:
    """Return short batches, one after the other, whose ends leave room that others fill up."""
    return [
        Batch(
            name=f"short_{number:03d}",
            tenant=f"tnt_{random.randint(0, 2)}",
            tier=random.choice(tiers),
            model=random.choice(["chat", "small"]),
            rows=random.randint(1, 12),
            row_tokens=random.choice(ROW_TOKENS[1:]),
            at=number * every * random.uniform(0.5, 1.5),
        )
        for number in range(count)
    ]


def experienced(pools: Sequence[Pool]) -> Predictions:
    """Return predictions that know the pools' paces and learn no more; of errors they know nothing."""
    known = Predictions()
    for pool in pools:
        for each in pool.servings:
            for number, tokens in enumerate((500.0, 1000.0, 2000.0)):
                known.learn(_ran(pool, each, tokens, number))
    return known.frozen()


def _ran(pool: Pool, ran: Serving, tokens: float, number: int) -> EndedPack:
    size = WorkSize(rows=tokens / 100, input_tokens=tokens, output_tokens=0)
    share = EndedShare(
        tenant_id=TenantId("tnt_past"), batch_id=BatchId("batch_past"), template=0, predicted_seconds=0.0,
        estimated=size, actual=size, lengths={},
    )  # fmt: skip
    return EndedPack(
        pack_id=PackId(f"pack_past_{number}"), pool=pool.name, model=ran.model, variant=ran.variant,
        tier=Tier.STANDARD, seconds=tokens * pool.pace / SPEEDS[ran.variant], is_clean=True, shares=(share,),
    )  # fmt: skip
