"""Token estimates for planning: cheap, from what intake has in hand anyway. Nothing is billed by them.

A cross-encoder reads the first text again with each second one, which the size of the row does not tell.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from pipeline.domain.endpoints import Endpoint
from pipeline.domain.parameters import MAX_TOKENS_DEFAULT

#: UTF-8 bytes of the request's JSON to a token. English text has 4 to 5; other scripts have fewer characters
#: to a token and more bytes to a character. JSON's own bytes stand in for the chat template's tokens.
BYTES_PER_TOKEN: Final = 4
#: Assumed answer of a request that names no bound; answers rarely run into the engine's own default bound.
OUTPUT_TOKENS_ASSUMED_MAX: Final = 256


def output_tokens_assumed(endpoint: Endpoint) -> int:
    """Return how many output tokens to expect of a request without a bound."""
    return min(MAX_TOKENS_DEFAULT[endpoint], OUTPUT_TOKENS_ASSUMED_MAX)


def output_tokens(body: Mapping[str, Any], assumed: int) -> int:
    """Return how many output tokens to expect of a checked `body`: its bound, else `assumed`, for each choice."""
    bound: int | None = body.get("max_tokens") or body.get("max_completion_tokens")
    return (bound or assumed) * (body.get("n") or 1)


def input_tokens(row_bytes: NDArray[np.uint32]) -> int:
    """Return how many input tokens to expect of rows of these lengths together, each at least one."""
    return int(np.sum(np.maximum(row_bytes // BYTES_PER_TOKEN, 1), dtype=np.int64))
