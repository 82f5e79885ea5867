"""What single tokens stand for: the exact bytes of each, which no text of a lone token can tell."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Any, Final

from workers.engine.text import REPLACEMENT, decoded

_BYTE: Final = re.compile(r"<0x([0-9A-Fa-f]{2})>")
#: What SentencePiece vocabularies write for a space.
_SPACE: Final = "\N{LOWER ONE EIGHTH BLOCK}"


class Pieces:
    """The vocabulary of one tokenizer as bytes."""

    def __init__(self, tokenizer: Any) -> None:  # noqa: ANN401 -- transformers has no types
        """Read how the tokenizer writes bytes; its tokens are looked up as they are asked for."""
        self._tokenizer = tokenizer
        self._special = frozenset(tokenizer.all_special_ids)
        self._added = {token: str(added.content) for token, added in tokenizer.added_tokens_decoder.items()}
        backend = getattr(tokenizer, "backend_tokenizer", None)
        decoder = backend.decoder.__getstate__() if backend is not None and backend.decoder is not None else b""
        self._is_byte_level = b"ByteLevel" in decoder
        self._known: dict[int, bytes] = {}

    def of(self, token: int) -> bytes:
        """Return the bytes of `token`; for a special token, those of its name."""
        found = self._known.get(token)
        if found is None:
            found = self._known[token] = self._read(token)
        return found

    def is_text(self, token: int) -> bool:
        """Say whether the token's bytes stand in an answer's text; a special token's name does not."""
        return token not in self._special

    def in_answer(self, tokens: list[int]) -> list[bytes]:
        """Return the bytes of each token of an answer; a first space that its text does not have is dropped."""
        found = [self.of(token) for token in tokens]
        if found and found[0].startswith(b" ") and not self._is_byte_level:
            text = decoded(self._tokenizer, tokens)
            if not text.startswith((" ", REPLACEMENT)):
                found[0] = found[0][1:]
        return found

    def _read(self, token: int) -> bytes:
        if token in self._added:
            return self._added[token].encode()
        piece = self._tokenizer.convert_ids_to_tokens(token)
        if piece is None:  # an id of the model that its tokenizer leaves out
            return b""
        if self._is_byte_level:
            alphabet = _byte_alphabet()
            if all(letter in alphabet for letter in piece):
                return bytes(alphabet[letter] for letter in piece)
        if byte := _BYTE.fullmatch(piece):
            return bytes([int(byte[1], 16)])
        return str(piece).replace(_SPACE, " ").encode()


@lru_cache(maxsize=1)
def _byte_alphabet() -> dict[str, int]:
    """Return the byte that each letter of byte-level vocabularies stands for (GPT-2's `bytes_to_unicode`)."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(256 + i): byte for i, byte in enumerate(others)}
