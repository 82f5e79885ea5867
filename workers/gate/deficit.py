"""How good the reference finds a variant's answer: the likelihood deficit, in points of token probability.

The reference reads prompt and answer once, without generating, and at each of the answer's n tokens y says how
probable it found that token and the others. With p the probabilities after whatever the request asks for (penalties,
temperature, nucleus, ...):

    greedy     x = mean over tokens of  p(y) - max over v of p(v)       in [-1, 0]
    sampled    x = mean over tokens of  p(y) - sum over v of p(v)^2     in [-1, 1/4]

A greedy x is 0 where each token is the one that the reference would have taken there. Another wording that it finds
as likely costs nothing, a near tie next to nothing, a token that it holds impossible a whole n-th. A sampled x has
mean 0 where tokens are drawn from p, whatever p is: sum p^2 is what p(y) is worth on average then. Its mean is below 0
where the variant puts weight on what the reference finds less likely; a variant that only sharpens the reference's
choice shows as positive, which this cannot tell from better. It is never above p(y) - p(y)^2, which is 1/4 at most.

Nothing is generated, so that one early difference does not make the rest incomparable; and nothing is compared
with an answer of the reference's, so that it need not be computed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from workers.gate.divergence import log_softmax

Floats = NDArray[np.float64]


def greedy_deficit(logits: NDArray[Any], tokens: Sequence[int]) -> Floats:
    """Return p(y) - max p for each of `tokens`, whose predicting logits are the rows of (tokens, vocabulary)."""
    p = np.exp(log_softmax(logits))
    found: Floats = _of(p, tokens) - p.max(axis=-1)
    return found


def sampled_deficit(logits: NDArray[Any], tokens: Sequence[int]) -> Floats:
    """Return p(y) - sum p^2 for each of `tokens`; `logits` are those that were drawn from, -inf where nothing may be."""
    p = np.exp(log_softmax(logits))
    found: Floats = _of(p, tokens) - (p * p).sum(axis=-1)
    return found


def _of(p: Floats, tokens: Sequence[int]) -> Floats:
    chosen: Floats = p[np.arange(len(tokens)), np.asarray(tokens)]
    return chosen
