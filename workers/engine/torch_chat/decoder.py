"""The port between the engine's loop and the two ways of running a model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from workers.engine.torch_chat.slots import SlotCache


@dataclass(frozen=True, slots=True)
class Prefill:
    """A prompt that enters a slot."""

    slot: int
    #: The prompt's tokens from position `start` on; never empty.
    tokens: list[int]
    #: The positions before this one are copied from slot `source`, which is decoding or stands earlier in
    #: the same step and whose sequence begins with the same tokens.
    start: int = 0
    source: int = 0


class Decoder(Protocol):
    """A causal language model over a slot cache."""

    cache: SlotCache
    #: Whether a prefill may start from another slot's prefix.
    shares_prefixes: bool
    #: Whether prompts that enter together are computed at the length of the longest.
    pads_prompts: bool
    #: Longest sequence, prompt and answer together, in tokens.
    context_tokens: int

    def forward(self, tokens: list[int], positions: list[int], prefills: Sequence[Prefill]) -> Tensor:
        """Run one step and return the next-token logits, float32, (rows, vocabulary).

        Args:
            tokens: The last token of each decoding row; row i lives in slot i.
            positions: The position of that token in its row.
            prefills: Rows that enter now; their logits follow those of the decoding rows.
        """
