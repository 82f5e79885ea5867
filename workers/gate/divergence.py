"""How far the variant's next-token distributions are from the reference's: KL(reference || variant), in nats."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

#: Positions turned into distributions at once: a vocabulary of 150,000 takes 80 MB of doubles for 64.
_POSITIONS_MAX: Final = 64
#: Edges of the histogram, in nats: half decades.
HISTOGRAM_EDGES: Final = tuple(float(10.0**power) for power in np.arange(-8.0, 1.5, 0.5))


@dataclass(frozen=True, slots=True, kw_only=True)
class Divergence:
    """KL(reference || variant) over positions of the reference's own answers."""

    sequences: int
    positions: int
    mean_nats: float
    median_nats: float
    p99_nats: float
    max_nats: float
    #: Share of positions where both find the same token the likeliest.
    same_top_share: float
    #: Positions between consecutive `HISTOGRAM_EDGES`; what lies outside is counted in the outermost.
    histogram: tuple[int, ...]


def log_softmax(logits: NDArray[Any]) -> Floats:
    """Return log probabilities over the last dimension, in double precision."""
    shifted = logits.astype(np.float64)
    shifted -= shifted.max(axis=-1, keepdims=True)
    shifted -= np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
    return shifted


def kl_per_position(reference: NDArray[Any], variant: NDArray[Any]) -> tuple[Floats, NDArray[np.bool_]]:
    """Return KL in nats and whether the likeliest token is the same, for each position of (positions, vocabulary)."""
    assert reference.shape == variant.shape, (reference.shape, variant.shape)
    nats: list[Floats] = []
    for start in range(0, len(reference), _POSITIONS_MAX):
        log_p = log_softmax(reference[start : start + _POSITIONS_MAX])
        log_q = log_softmax(variant[start : start + _POSITIONS_MAX])
        p = np.exp(log_p)
        # What the reference rules out counts nothing; rounding can leave a hair below zero, which no divergence is.
        terms = np.where(p > 0, p * (np.where(p > 0, log_p, 0.0) - log_q), 0.0)
        nats.append(np.maximum(0.0, terms.sum(axis=-1)))
    same = reference.argmax(axis=-1) == variant.argmax(axis=-1)
    return (np.concatenate(nats) if nats else np.zeros(0)), same


def summary(parts: Sequence[tuple[Floats, NDArray[np.bool_]]]) -> Divergence | None:
    """Return the figures over the sequences' positions; None without any position."""
    nats = np.concatenate([part for part, _ in parts]) if parts else np.zeros(0)
    if not nats.size:
        return None
    edges = np.array(HISTOGRAM_EDGES)
    counts, _ = np.histogram(np.clip(nats, edges[0], edges[-1]), bins=edges)
    return Divergence(
        sequences=len(parts),
        positions=int(nats.size),
        mean_nats=float(nats.mean()),
        median_nats=float(np.median(nats)),
        p99_nats=float(np.quantile(nats, 0.99)),
        max_nats=float(nats.max()),
        same_top_share=float(np.concatenate([same for _, same in parts]).mean()),
        histogram=tuple(int(count) for count in counts),
    )
