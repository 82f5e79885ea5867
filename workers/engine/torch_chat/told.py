"""Log-probabilities for the rows that ask for them, read before anything changes the logits."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor

from pipeline.domain.parameters import Sampling
from workers.engine.logprobs import TokenLogprobs


class ToldRow(Protocol):
    """What is read and written of a row."""

    sampling: Sampling
    #: One entry for each output token, where they are asked for.
    told: list[TokenLogprobs]


class RawLogprobs:
    """The log-probabilities of one step; costs nothing where no row asks for them."""

    __slots__ = ("_raw", "_rows", "_slots", "_top_ids", "_top_values")

    @torch.inference_mode()
    def __init__(self, logits: Tensor, rows: Sequence[ToldRow]) -> None:
        """Read `logits`, float32 (rows, vocabulary), as the model made them."""
        self._slots = [slot for slot, row in enumerate(rows) if row.sampling.logprobs is not None]
        self._rows = [rows[slot] for slot in self._slots]
        if not self._slots:
            return
        self._raw = logits[torch.tensor(self._slots, device=logits.device)].log_softmax(dim=-1)
        count = min(max(row.sampling.logprobs or 0 for row in self._rows), logits.shape[1])
        values, ids = self._raw.topk(count, dim=-1)
        self._top_values: list[list[float]] = values.tolist()
        self._top_ids: list[list[int]] = ids.tolist()

    @torch.inference_mode()
    def note(self, tokens: Sequence[int]) -> None:
        """Add an entry to every row that asks, now that each slot's next token is chosen."""
        if not self._slots:
            return
        chosen = torch.tensor([tokens[slot] for slot in self._slots], device=self._raw.device)
        logprobs: list[float] = self._raw.gather(1, chosen[:, None])[:, 0].tolist()
        for row, logprob, ids, values in zip(self._rows, logprobs, self._top_ids, self._top_values, strict=True):
            count = row.sampling.logprobs or 0
            row.told.append(TokenLogprobs(logprob, list(zip(ids[:count], values[:count], strict=True))))
