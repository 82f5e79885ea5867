"""The endpoints a batch can call, by their OpenAI path."""

from __future__ import annotations

from enum import StrEnum


class Endpoint(StrEnum):
    """One OpenAI endpoint that a request line may name in `url`."""

    CHAT_COMPLETIONS = "/v1/chat/completions"
    COMPLETIONS = "/v1/completions"
    EMBEDDINGS = "/v1/embeddings"
