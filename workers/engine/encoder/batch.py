"""Texts as tokens, and a batch of them as a padded rectangle."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

#: A text, or a pair that a cross-encoder reads together.
Text = str | tuple[str, str]


@dataclass(frozen=True, slots=True)
class Tokens:
    """One text's tokens. Positional: an engine holds many thousands."""

    ids: list[int]
    #: Where the second text of a pair begins, by the tokenizer's token types; the end where there is none.
    second_at: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """Texts padded at the right to the longest: arrays of shape (texts, tokens), one length a text."""

    ids: NDArray[np.int64]
    mask: NDArray[np.int64]
    types: NDArray[np.int64]

    @property
    def is_full(self) -> bool:
        """Say whether nothing is padded."""
        return bool(self.mask.all())


def padded(texts: Sequence[Tokens], *, pad_id: int) -> Batch:
    """Return the batch of these texts, which stand in ascending length."""
    length = len(texts[-1].ids)
    ids = np.full((len(texts), length), pad_id, dtype=np.int64)
    places = np.arange(length)
    lengths = np.array([len(text.ids) for text in texts])
    for row, text in enumerate(texts):
        ids[row, : len(text.ids)] = text.ids
    mask = (places < lengths[:, None]).astype(np.int64)
    seconds = np.array([text.second_at for text in texts])
    types = (places >= seconds[:, None]).astype(np.int64) * mask
    return Batch(ids=ids, mask=mask, types=types)


class TextTokenizer:
    """transformers' tokenizer, called once for many texts."""

    def __init__(self, tokenizer: Any) -> None:  # noqa: ANN401 -- transformers has no types
        """Wrap a loaded tokenizer."""
        # Texts too long are refused by the engine, by name; transformers' own advice about them would be noise.
        tokenizer.model_max_length = int(1e9)
        self._tokenizer = tokenizer
        self.pad_id: int = tokenizer.pad_token_id or 0

    def __call__(self, texts: Sequence[Text]) -> list[Tokens]:
        """Return the tokens of each text, its special tokens included, however many there are.

        Raises:
            Exception: Whatever the tokenizer raises at a text it cannot read, such as half a surrogate pair.
        """
        singles = [text for text in texts if isinstance(text, str)]
        pairs = [text for text in texts if not isinstance(text, str)]
        # Apart: a pair with an empty second text is not a single text.
        whole, paired = iter(self._singles(singles)), iter(self._pairs(pairs))
        return [next(whole) if isinstance(text, str) else next(paired) for text in texts]

    def _singles(self, texts: list[str]) -> list[Tokens]:
        if not texts:
            return []
        encoded = self._tokenizer(texts, truncation=False, return_attention_mask=False)
        return [Tokens(ids, len(ids)) for ids in encoded["input_ids"]]

    def _pairs(self, texts: list[tuple[str, str]]) -> list[Tokens]:
        if not texts:
            return []
        firsts, seconds = (list(side) for side in zip(*texts, strict=True))
        encoded = self._tokenizer(firsts, seconds, truncation=False, return_token_type_ids=True)
        return [
            Tokens(ids, len(types) - sum(types))
            for ids, types in zip(encoded["input_ids"], encoded["token_type_ids"], strict=True)
        ]
