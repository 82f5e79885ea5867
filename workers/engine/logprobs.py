"""Log-probabilities of an answer's tokens, in OpenAI's two shapes.

They are the model's own: of the distribution before temperature, penalties, biases and constraints, as in
vLLM's `raw_logprobs`. The end token is not part of an answer and has no entry; of an answer cut at a stop
string, the entries are those of the tokens that its text needs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from pipeline.domain.endpoints import Endpoint
from workers.engine.pieces import Pieces
from workers.engine.text import REPLACEMENT, decoded

#: OpenAI's value for "very unlikely": JSON has no infinity.
_LOGPROB_MIN: Final = -9999.0


@dataclass(frozen=True, slots=True)
class TokenLogprobs:
    """What the model gave one position; positional on purpose: there is one for each token."""

    #: Of the token that was chosen there.
    logprob: float
    #: The most likely tokens and their log-probabilities, in descending order.
    top: Sequence[tuple[int, float]]


def answer_logprobs(
    endpoint: Endpoint, pieces: Pieces, tokens: list[int], told: Sequence[TokenLogprobs]
) -> dict[str, Any]:
    """Return a choice's `logprobs` for the `tokens` of its text, of which `told` has an entry each."""
    texts = pieces.in_answer(tokens)
    if endpoint is Endpoint.CHAT_COMPLETIONS:
        content = [
            {
                **_entry(text, each.logprob),
                "top_logprobs": [_entry(pieces.of(other), logprob) for other, logprob in each.top],
            }
            for text, each in zip(texts, told, strict=False)
        ]
        return {"content": content, "refusal": None}
    names = [_name(text, "bytes:") for text in texts]
    return {
        "tokens": names,
        "token_logprobs": [_finite(each.logprob) for each, _ in zip(told, tokens, strict=False)],
        "top_logprobs": [
            # OpenAI: the chosen token is always among them, so there may be one more than asked for.
            {_name(pieces.of(other), "bytes:"): _finite(logprob) for other, logprob in reversed(each.top)}
            | {name: _finite(each.logprob)}
            for name, each in zip(names, told, strict=False)
        ],
        "text_offset": _offsets(pieces, tokens, texts),
    }


def tokens_of_text(tokenizer: Any, tokens: list[int], text: str) -> list[int]:  # noqa: ANN401 -- transformers has no types
    """Return the first of an answer's `tokens`, as many as its `text`, which may be cut, needs."""
    low, high = 0, len(tokens)
    if decoded(tokenizer, tokens).rstrip(REPLACEMENT) == text:
        return tokens
    while low < high:
        middle = (low + high) // 2
        if len(decoded(tokenizer, tokens[:middle]).rstrip(REPLACEMENT)) >= len(text):
            high = middle
        else:
            low = middle + 1
    return tokens[:low]


def _entry(text: bytes, logprob: float) -> dict[str, Any]:
    return {"token": _name(text, ""), "logprob": _finite(logprob), "bytes": list(text)}


def _name(text: bytes, mark: str) -> str:
    """Return a token's text; of one that is no whole characters, its bytes as OpenAI writes them."""
    try:
        return text.decode()
    except UnicodeDecodeError:
        return mark + "".join(f"\\x{byte:02x}" for byte in text)


def _finite(logprob: float) -> float:
    return max(logprob, _LOGPROB_MIN)


def _offsets(pieces: Pieces, tokens: list[int], texts: Sequence[bytes]) -> list[int]:
    """Return where each token begins in the answer's text, in characters; inside one, where that one begins."""
    offsets, begun = [], 0
    for token, text in zip(tokens, texts, strict=True):
        offsets.append(begun - 1 if begun and text and _continues(text[0]) else begun)
        if pieces.is_text(token):
            begun += sum(not _continues(byte) for byte in text)
    return offsets


def _continues(byte: int) -> bool:
    """Say whether the byte is one of a character's later ones in UTF-8."""
    return byte & 0xC0 == 0x80  # noqa: PLR2004 -- UTF-8's mark
