"""The endpoints a batch can call, by their path at OpenAI, or at vLLM's server where OpenAI has none."""

from __future__ import annotations

from enum import StrEnum


class Endpoint(StrEnum):
    """One endpoint that a request line may name in `url`."""

    CHAT_COMPLETIONS = "/v1/chat/completions"
    COMPLETIONS = "/v1/completions"
    RESPONSES = "/v1/responses"
    EMBEDDINGS = "/v1/embeddings"
    SCORE = "/v1/score"
    RERANK = "/v1/rerank"
    CLASSIFY = "/v1/classify"
