"""Seeded English-like texts with a realistic mix of lengths: queries, sentences, paragraphs, passages."""

from __future__ import annotations

import random
from typing import Final

#: Words of at most this many; a text of 205 words stays below 256 tokens of a WordPiece tokenizer.
WORDS_MAX: Final = 205

#: Share, median words, spread: as a search log, product reviews, news paragraphs and whole passages mix.
_KINDS: Final = ((30, 5, 0.5), (40, 16, 0.5), (22, 50, 0.5), (8, 140, 0.3))
_NOUNS: Final = (
    "train", "river", "invoice", "battery", "engine", "market", "patient", "garden", "contract", "camera", "student",
    "recipe", "server", "bridge", "teacher", "novel", "shipment", "weather", "committee", "violin", "satellite",
    "insurance", "kitchen", "protein", "harbour", "election", "museum", "keyboard", "mountain", "vaccine", "database",
    "orchestra", "glacier", "refund", "telescope", "workshop", "bicycle", "parliament", "algorithm", "blanket",
)  # fmt: skip
_VERBS: Final = (
    "left", "carried", "repaired", "announced", "measured", "delivered", "replaced", "described", "crossed", "sold",
    "examined", "cancelled", "improved", "followed", "ignored", "recorded", "designed", "questioned", "returned",
    "explained", "damaged", "painted", "compared", "financed", "translated",
)  # fmt: skip
_ADJECTIVES: Final = (
    "old", "quiet", "expensive", "broken", "northern", "reliable", "digital", "careful", "public", "empty", "wooden",
    "annual", "heavy", "unexpected", "medical", "narrow", "foreign", "cheap", "electric", "famous", "late", "early",
)  # fmt: skip
_ENDS: Final = (
    "before dawn", "in the valley", "without a receipt", "after the meeting", "for three weeks", "near the station",
    "at 7:45 pm", "in 1998", "by mistake", "under pressure", "with great care", "on the second floor",
    "according to the report", "despite the rain", "as agreed", "during the trial",
)  # fmt: skip
_QUESTIONS: Final = ("how", "why", "when", "where", "can", "what if", "who says")


def sentences(count: int, *, seed: int = 20261121) -> list[str]:
    """Return `count` texts, the same for the same seed."""
    rng = random.Random(seed)
    return [_text(rng) for _ in range(count)]


def _text(rng: random.Random) -> str:
    (_, median, spread), *_ = rng.choices(_KINDS, weights=[share for share, _, _ in _KINDS])
    words = max(1, min(WORDS_MAX, round(rng.lognormvariate(0, spread) * median)))
    made: list[str] = []
    while len(made) < words:
        made += _clause(rng)
    return " ".join(made[:words])


def _clause(rng: random.Random) -> list[str]:
    start = [rng.choice(_QUESTIONS)] if rng.random() < 0.15 else []
    middle = ["the", rng.choice(_ADJECTIVES), rng.choice(_NOUNS), rng.choice(_VERBS), "the", rng.choice(_NOUNS)]
    end = rng.choice(_ENDS).split() if rng.random() < 0.6 else []
    clause = [*start, *middle, *end]
    clause[-1] += rng.choice((",", ".", ".", "?", ";", " -"))
    return clause
