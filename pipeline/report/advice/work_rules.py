"""Rules about what is asked for and what runs it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from decimal import Decimal
from itertools import groupby
from typing import Final

from pipeline.domain.plans import TIERS
from pipeline.domain.tiers import Tier
from pipeline.ports.usage import Usage, WorkUsage
from pipeline.report.advice.proposals import AdviceKind, Confidence, Proposal, Thresholds

_MILLION: Final = 1_000_000


def moved_tiers(usage: Usage, limits: Thresholds) -> Iterator[Proposal]:
    """Propose a more patient tier where batches had most of their window left, and that tier was cheaper."""
    for each in usage.batches:
        unused = each.window_unused_percent
        if each.batches < limits.batches_min or unused is None or unused < limits.window_unused_percent_min:
            continue
        here = _works(usage, each.tier, each.model)
        cheaper = [
            (price, tier)
            for tier in TIERS[TIERS.index(each.tier) + 1 :]
            if (price := _price(_works(usage, tier, each.model), limits)) is not None
        ]
        price_here = _price(here, limits)
        if not cheaper or price_here is None:
            continue
        price, tier = min(cheaper, key=lambda found: found[0])
        share = 1 - price / price_here
        if share * 100 < limits.difference_percent_min:
            continue
        yield Proposal(
            kind=AdviceKind.MOVE_TIER,
            subject=f"{each.model} in {each.tier}",
            sentence=f"Nine of ten {each.tier} batches of {each.model} had {unused:.0f} % of their window left when they completed; "
            f"in {tier} a token of it cost {share * 100:.0f} % less.",
            shares={work.account: share for work in here},
            evidence={
                "batches": each.batches,
                "window_unused_percent": round(unused, 1),
                "cost_micros_per_million_tokens": round(price_here * _MILLION),
                f"cost_micros_per_million_tokens_in_{tier}": round(price * _MILLION),
            },
            confidence=Confidence.MEDIUM,
            command=f"nightrate submit FILE --tier {tier}",
        )


def cheaper_variants(usage: Usage, limits: Thresholds) -> Iterator[Proposal]:
    """Propose the cheapest variant that passed its gate for the tier, where something dearer ran."""
    known = {(word.tier, word.variant): word.relative_cost for word in usage.variants}
    for work in usage.works:
        now = known.get((work.tier, work.variant), 1.0 if work.variant == work.model else None)
        words = [word for word in usage.variants if (word.tier, word.model) == (work.tier, work.model)]
        if now is None or not words:
            continue
        best = min(words, key=lambda word: (word.relative_cost, word.variant))
        share = 1 - Decimal(repr(best.relative_cost)) / Decimal(repr(now))
        if best.variant == work.variant or share * 100 < limits.difference_percent_min:
            continue
        yield Proposal(
            kind=AdviceKind.CHEAPER_VARIANT,
            subject=f"{work.variant} in {work.tier}" + (f" on {work.pool}, {work.market}" if work.pool else ""),
            sentence=f"{best.variant} may run {work.tier} rows of {work.model} and takes {share * 100:.0f} % less time for a token "
            f"than {work.variant}, which ran them.",
            shares={work.account: share},
            evidence={
                "relative_cost": now,
                "relative_cost_of_variant": best.relative_cost,
                "rows": work.rows,
                "tokens": work.tokens,
            },
            confidence=Confidence.LOW,
            command=f"nightrate models prepare {best.variant}",
        )


def prefix_caching(usage: Usage, limits: Thresholds) -> Iterator[Proposal]:
    """Propose to let shared beginnings of prompts hit the cache, where far fewer did than could."""
    for prefix in usage.prefixes:
        works = [work for work in _works(usage, prefix.tier, prefix.model) if work.tokens_prefilled is not None]
        prefilled = sum(work.tokens_prefilled or 0 for work in works)
        cached = sum(work.tokens_cached or 0 for work in works)
        if prefilled + cached < limits.tokens_min or not prefix.input_tokens:
            continue
        hit, possible = Decimal(cached) / (prefilled + cached), Decimal(prefix.shared_tokens) / prefix.input_tokens
        if (possible - hit) * 100 < Decimal(repr(limits.hit_points_min)):
            continue
        # A token read takes far less than one written: of the cost, only what reading takes could be saved, and that is
        # taken to be no more than its share of the tokens halved.
        shares = {work.account: (possible - hit) * work.input_tokens / work.tokens / 2 for work in works if work.tokens}
        yield Proposal(
            kind=AdviceKind.PREFIX_CACHE,
            subject=f"{prefix.model} in {prefix.tier}",
            sentence=f"{possible * 100:.0f} % of the prompts' tokens stood at beginnings that others had too, and {hit * 100:.0f} % came "
            "from the cache; put what prompts share first, word by word the same.",
            shares=shares,
            evidence={
                "shared_percent": round(float(possible) * 100, 1),
                "hit_percent": round(float(hit) * 100, 1),
                "tokens_prefilled": prefilled,
                "tokens_cached": cached,
            },
            confidence=Confidence.LOW,
            command="nightrate submit FILE",
        )


def repeated_inputs(usage: Usage, limits: Thresholds) -> Iterator[Proposal]:
    """Propose to keep results where the same file ran more than once."""
    del limits
    for each in usage.batches:
        if not each.repeated_batches or not each.cost_micros:
            continue
        share = min(Decimal(each.repeated_cost_micros) / each.cost_micros, Decimal(1))
        again = "once more" if each.repeated_batches == 1 else f"{each.repeated_batches} times more"
        yield Proposal(
            kind=AdviceKind.REPEATED_INPUT,
            subject=f"{each.model} in {each.tier}",
            sentence=f"Files that had run already ran {again}, byte by byte the same; an idempotency key "
            "returns the first batch instead.",
            shares={work.account: share for work in _works(usage, each.tier, each.model)},
            evidence={
                "batches_repeated": each.repeated_batches,
                "batches": each.batches,
                "cost_micros_of_them": each.repeated_cost_micros,
            },
            confidence=Confidence.HIGH,
            command="nightrate submit FILE --idempotency-key KEY",
        )


def tiny_batches(usage: Usage, limits: Thresholds) -> Iterator[Proposal]:
    """Propose to join tiny batches where a token of theirs cost more than of the others."""
    for each in usage.batches:
        others_tokens, others_cost = each.tokens - each.tiny_tokens, each.cost_micros - each.tiny_cost_micros
        enough = min(each.tiny_tokens, others_tokens) >= limits.tokens_min and others_cost > 0
        if each.tiny_batches < limits.tiny_batches_min or not enough or each.tiny_cost_micros <= 0:
            continue
        tiny, others = Decimal(each.tiny_cost_micros) / each.tiny_tokens, Decimal(others_cost) / others_tokens
        share_of_theirs = 1 - others / tiny
        if share_of_theirs * 100 < limits.difference_percent_min:
            continue
        share = share_of_theirs * each.tiny_cost_micros / each.cost_micros
        yield Proposal(
            kind=AdviceKind.FEWER_TINY_BATCHES,
            subject=f"{each.model} in {each.tier}",
            sentence=f"A token of {each.tiny_batches} tiny batches cost {(tiny / others - 1) * 100:.0f} % more than one of the others; "
            "join their files.",
            shares={work.account: share for work in _works(usage, each.tier, each.model)},
            evidence={
                "tiny_batches": each.tiny_batches,
                "cost_micros_per_million_tokens_tiny": round(tiny * _MILLION),
                "cost_micros_per_million_tokens_others": round(others * _MILLION),
            },
            confidence=Confidence.MEDIUM,
            command="cat *.jsonl | nightrate submit -",
        )


def bigger_packs(usage: Usage, limits: Thresholds) -> Iterator[Proposal]:
    """Propose to run work together where steps had room and full packs were faster."""
    by_variant = sorted(usage.works, key=lambda work: (work.variant, work.pool, work.market, work.tier))
    for (variant, pool, market), group in groupby(by_variant, key=lambda work: (work.variant, work.pool, work.market)):
        works = list(group)
        counted = [work for work in works if work.slot_steps]
        steps = sum(work.slot_steps or 0 for work in counted)
        reachable = max((work.reachable_tokens_per_second or 0.0 for work in works), default=0.0)
        packs, busy_us, tokens = (sum(getattr(work, name) for work in works) for name in ("packs", "busy_us", "tokens"))
        if not steps or packs < limits.packs_min or not busy_us or not reachable:
            continue
        fill = sum(work.slot_steps_busy or 0 for work in counted) / steps * 100
        actual = Decimal(tokens) * _MILLION / busy_us
        share = 1 - actual / Decimal(repr(reachable))
        if fill > limits.fill_percent_max or share * 100 < limits.difference_percent_min:
            continue
        yield Proposal(
            kind=AdviceKind.BIGGER_PACKS,
            subject=f"{variant} on {pool}, {market}",
            sentence=f"Steps of {variant} were {fill:.0f} % full, at {actual:.0f} tokens/s; one pack in ten had {reachable:.0f} "
            "tokens/s or more. Let batches run together, or give them longer windows.",
            shares={work.account: share for work in works},
            evidence={
                "fill_percent": round(fill, 1),
                "tokens_per_second": round(float(actual), 1),
                "tokens_per_second_reachable": round(reachable, 1),
                "packs": packs,
                "rows_per_pack": round(sum(work.rows for work in works) / packs, 1),
            },
            confidence=Confidence.LOW,
            command="nightrate submit FILE --hold-until 22:00",
        )


def _works(usage: Usage, tier: Tier, model: str) -> list[WorkUsage]:
    return [work for work in usage.works if (work.tier, work.model) == (tier, model)]


def _price(works: Sequence[WorkUsage], limits: Thresholds) -> Decimal | None:
    """Return what a token cost, in micro-units; None where too few ran to say."""
    tokens, cost = sum(work.tokens for work in works), sum(work.cost_micros for work in works)
    return Decimal(cost) / tokens if tokens >= limits.tokens_min and cost > 0 else None
