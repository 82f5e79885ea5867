"""Token estimates for planning: cheap, from what intake has in hand anyway. Nothing is billed by them.

A cross-encoder reads the first text again with each second one, which the size of the row does not tell.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from pipeline.domain.endpoints import Endpoint
from pipeline.domain.images import has_images, image_urls_of
from pipeline.domain.parameters import MAX_TOKENS_DEFAULT

#: UTF-8 bytes of the request's JSON to a token. English text has 4 to 5; other scripts have fewer characters
#: to a token and more bytes to a character. JSON's own bytes stand in for the chat template's tokens.
BYTES_PER_TOKEN: Final = 4
#: Assumed answer of a request that names no bound; answers rarely run into the engine's own default bound.
OUTPUT_TOKENS_ASSUMED_MAX: Final = 256
#: Assumed of an image: a picture of 224 by 224 pixels in patches of 14, which most vision models are near.
IMAGE_TOKENS_ASSUMED: Final = 256
_WITH_IMAGES: Final = frozenset({Endpoint.EMBEDDINGS, Endpoint.CLASSIFY})

#: Returns how many bytes of text a checked body is worth beyond its own.
ImageBytes = Callable[[Mapping[str, Any]], int]


def image_bytes_of(endpoint: Endpoint) -> ImageBytes:
    """Return the function that says what the images of a body change of its size, as far as tokens go.

    A picture inside a request is a megabyte of letters that no model reads as such, and a URL a few dozen that
    lead to the same picture.
    """
    return _image_bytes if endpoint in _WITH_IMAGES else _no_bytes


def _image_bytes(body: Mapping[str, Any]) -> int:
    if not has_images(body):
        return 0
    return sum(IMAGE_TOKENS_ASSUMED * BYTES_PER_TOKEN - len(url) for url in image_urls_of(body))


def _no_bytes(_body: Mapping[str, Any]) -> int:
    return 0


def output_tokens_assumed(endpoint: Endpoint) -> int:
    """Return how many output tokens to expect of a request without a bound."""
    return min(MAX_TOKENS_DEFAULT[endpoint], OUTPUT_TOKENS_ASSUMED_MAX)


def output_tokens(body: Mapping[str, Any], assumed: int) -> int:
    """Return how many output tokens to expect of a checked `body`: its bound, else `assumed`, for each choice."""
    bound: int | None = body.get("max_tokens") or body.get("max_completion_tokens") or body.get("max_output_tokens")
    return (bound or assumed) * (body.get("n") or 1)


def input_tokens(row_bytes: NDArray[np.uint32], image_bytes: NDArray[np.int32]) -> int:
    """Return how many input tokens to expect of these rows together, each at least one.

    Args:
        row_bytes: The rows' lengths.
        image_bytes: What their images change of that; see `image_bytes_of`.
    """
    worth = row_bytes.astype(np.int64) + image_bytes
    return int(np.sum(np.maximum(worth // BYTES_PER_TOKEN, 1)))
