"""Servings of pools: the variants their workers serve, and the tiers that the gate's last words let run on them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from sqlalchemy import Connection, text

from pipeline.domain.gates import GateVerdict
from pipeline.domain.models import split_variant
from pipeline.domain.tiers import Tier
from pipeline.ports.cycle import Serving

#: What a person allowed is wanted there, measured or not.
_ALLOWED_COST: Final = 0.0
_UNMEASURED_COST: Final = 1.0

_LAST_WORDS: Final = text("""
    SELECT DISTINCT ON (variant, gate_key, tier) id, variant, gate_key, tier, verdict, relative_cost
      FROM qualifications WHERE variant = ANY(:variants)
     ORDER BY variant, gate_key, tier, id DESC
""")


@dataclass(frozen=True, slots=True)
class LastWord:
    """The last qualification of a variant, gate key and tier; of two, the higher number was said later."""

    number: int
    variant: str
    gate_key: str | None
    tier: Tier
    verdict: GateVerdict
    relative_cost: float | None


def read_last_words(connection: Connection, variants: Sequence[str]) -> tuple[LastWord, ...]:
    """Return the last word on each of `variants`."""
    rows = connection.execute(_LAST_WORDS, {"variants": list(variants)})
    return tuple(
        LastWord(row.id, row.variant, row.gate_key, Tier(row.tier), GateVerdict(row.verdict), row.relative_cost)
        for row in rows
    )


def servings_of(served: Iterable[tuple[str, str]], words: Iterable[LastWord]) -> tuple[Serving, ...]:
    """Return what workers that serve these (variant, gate key) pairs may run; a reference serves every tier."""
    by_variant: dict[str, list[LastWord]] = {}
    for word in words:
        by_variant.setdefault(word.variant, []).append(word)
    servings = []
    for variant, key in sorted(served):
        model, label = split_variant(variant)
        if not label:
            servings.append(Serving(variant=variant, model=model, tiers=frozenset(Tier)))
            continue
        held = held_words(by_variant.get(variant, ()), key)
        tiers = frozenset(tier for tier, word in held.items() if word.verdict.lets_run)
        if tiers:
            cost = min(_cost_of(held[tier]) for tier in tiers)
            servings.append(Serving(variant=variant, model=model, tiers=tiers, relative_cost=cost))
    return tuple(servings)


def held_words(words: Iterable[LastWord], key: str) -> dict[Tier, LastWord]:
    """Return of the words on one variant that which holds for each tier: said of this very key or of any, whichever came later."""
    held: dict[Tier, LastWord] = {}
    for word in words:
        if word.gate_key in {None, key} and (word.tier not in held or held[word.tier].number < word.number):
            held[word.tier] = word
    return held


def _cost_of(word: LastWord) -> float:
    if word.verdict is GateVerdict.ALLOWED:
        return _ALLOWED_COST
    return _UNMEASURED_COST if word.relative_cost is None else word.relative_cost
