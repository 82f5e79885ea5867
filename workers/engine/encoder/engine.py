"""The encoder engine: texts of many rows, batched by length at the least cost, several batches side by side."""

from __future__ import annotations

import time
from collections.abc import Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from pipeline.domain.errors import RequestRefusedError
from pipeline.ports.engine import EngineRequest, EngineResult
from pipeline.ports.meters import EngineIdentity, EngineMeters
from workers.engine.answers import attempted, drafted, failure
from workers.engine.encoder.batch import Text, TextTokenizer, Tokens, padded
from workers.engine.encoder.costs import CostModel
from workers.engine.encoder.forward import Forward
from workers.engine.encoder.heads import TEXT_FIELDS, Head
from workers.engine.encoder.packing import BatchBounds, packed

#: Texts waiting: rows of two thousand inputs each are no reason to hold millions of tokens.
_TEXTS_WAITING_MAX: Final = 65_536


@dataclass(slots=True, eq=False)
class _Row:
    request: EngineRequest
    tokens: list[Tokens]
    #: One vector a text, filled as batches finish.
    vectors: NDArray[np.float32]
    missing: int
    is_forgotten: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class _Part:
    """One text of a row. Positional: there are many."""

    row: _Row
    index: int

    @property
    def tokens(self) -> Tokens:
        return self.row.tokens[self.index]


@dataclass(frozen=True, slots=True)
class _Done:
    """A batch that ran, with the seconds it took."""

    vectors: NDArray[np.float32]
    length: int
    seconds: float


class EncoderEngine:
    """One text encoder; implements `Engine`."""

    name = "encoder"

    def __init__(
        self,
        model: str,
        *,
        forward: Forward,
        tokenizer: TextTokenizer,
        head: Head,
        tokens_max: int,
        bounds: BatchBounds,
        rows_waiting_max: int,
        identity: EngineIdentity,
    ) -> None:
        """Serve `forward` under the name `model`; a text has `tokens_max` tokens at most."""
        self.model = model
        self.endpoints = head.endpoints
        self.identity = identity
        self._steps = self._tokens = self._padding = 0
        self._forward = forward
        self._tokenizer = tokenizer
        self._head = head
        self._tokens_max = tokens_max
        self._bounds = bounds
        self._rows_waiting_max = rows_waiting_max
        self._costs = CostModel(tokens_max=bounds.tokens_max)
        #: Rows that have parts waiting or running.
        self._rows: dict[int, _Row] = {}
        self._arrived: list[_Part] = []
        #: Batches to run, the next one last.
        self._planned: list[list[_Part]] = []
        self._running: dict[Future[_Done], list[_Part]] = {}
        self._ended: list[EngineResult] = []
        self._threads = ThreadPoolExecutor(forward.streams, "encoder", initializer=forward.enter_thread)

    def room(self) -> int:
        """Return how many more rows improve the packing by length."""
        if len(self._arrived) >= _TEXTS_WAITING_MAX:
            return 0
        return max(0, self._rows_waiting_max - self.in_flight())

    def in_flight(self) -> int:
        """Return how many added rows have not come back yet."""
        return len(self._rows) + len(self._ended)

    def add(self, requests: Sequence[EngineRequest]) -> None:
        """Tokenize rows in bulk; they wait for the next packing. Batches that run go on meanwhile."""
        texts = [attempted(self._head.texts, request) for request in requests]
        rows, ended = drafted(requests, self._tokenized(texts), self._row)
        self._ended += ended
        for row in rows:
            self._rows[row.request.key] = row
            self._arrived += [_Part(row, index) for index in range(len(row.tokens))]

    def step(self) -> Sequence[EngineResult]:
        """Wait for a batch, the longest texts first, and return the rows that are whole now."""
        results, self._ended = self._ended, []
        self._start()
        if not self._running:
            return results
        done = wait(self._running, return_when=FIRST_COMPLETED).done
        finished = [(future.result(), self._running.pop(future)) for future in done]
        self._learn(finished)
        # Before the answers are written, which takes a while: the device must not wait for that.
        self._start()
        for batch, parts in finished:
            self._count(batch.length, parts)
            results += self._completed(batch, parts)
        return results

    def meters(self) -> EngineMeters:
        """Return the counters. A batch is as large as its packing makes it: there are no slots to be empty."""
        return EngineMeters(
            engine_steps=self._steps, tokens_prefilled=self._tokens, tokens_cached=0, tokens_padding=self._padding
        )

    def abort(self, keys: Sequence[int]) -> None:
        """Forget these rows, parts already computed included."""
        gone = frozenset(keys)
        for key in gone & self._rows.keys():
            self._rows.pop(key).is_forgotten = True
        self._arrived = _remembered(self._arrived)
        self._planned = [left for parts in self._planned if (left := _remembered(parts))]
        self._ended = [result for result in self._ended if result.key not in gone]

    def close(self) -> None:
        """Forget every row, wait for the batches that run, and drop the model."""
        self._rows, self._arrived, self._planned, self._ended = {}, [], [], []
        self._threads.shutdown(cancel_futures=True)
        self._running = {}
        self._forward.close()

    # --- entering ------------------------------------------------------------------------------

    def _tokenized(self, texts: Sequence[list[Text] | Exception]) -> list[list[Tokens] | Exception]:
        """Return the tokens of each text of each row, or what went wrong with that row."""
        flat = [text for row in texts if not isinstance(row, Exception) for text in row]
        try:
            tokens = iter(self._tokenizer(flat))
        except Exception as error:  # noqa: BLE001 -- such as half a surrogate pair: find the row it belongs to
            if len(texts) == 1:
                return [error]
            middle = len(texts) // 2
            return self._tokenized(texts[:middle]) + self._tokenized(texts[middle:])
        return [row if isinstance(row, Exception) else [next(tokens) for _ in row] for row in texts]

    def _row(self, request: EngineRequest, tokens: list[Tokens]) -> _Row:
        self._refuse_what_is_too_long(request, tokens)
        vectors = np.empty((len(tokens), self._forward.width), dtype=np.float32)
        return _Row(request, tokens, vectors, len(tokens))

    def _refuse_what_is_too_long(self, request: EngineRequest, tokens: list[Tokens]) -> None:
        longest = max(len(text.ids) for text in tokens)
        if longest > self._tokens_max:
            raise RequestRefusedError(
                f"This model's maximum context length is {self._tokens_max} tokens; an input has {longest}.",
                code="context_length_exceeded",
                param=f"body.{TEXT_FIELDS.get(request.endpoint, 'input')}",
            )

    # --- running -------------------------------------------------------------------------------

    def _start(self) -> None:
        """Keep every stream busy, with a batch more at hand for the first that ends."""
        while len(self._running) <= self._forward.streams and (parts := self._next_batch()):
            self._running[self._threads.submit(self._run, [part.tokens for part in parts])] = parts

    def _next_batch(self) -> list[_Part]:
        if not self._planned:
            self._plan()
        return self._planned.pop() if self._planned else []

    def _plan(self) -> None:
        """Pack all that arrived since the last plan."""
        parts, self._arrived = self._arrived, []
        parts.sort(key=lambda part: len(part.tokens.ids))
        start = 0
        for size in packed([len(part.tokens.ids) for part in parts], self._costs.cost(), self._bounds):
            self._planned.append(parts[start : start + size])
            start += size

    def _learn(self, finished: Sequence[tuple[_Done, list[_Part]]]) -> None:
        """Note what batches cost; as soon as that tells something, what was planned by assumption is planned again."""
        was_learned = self._costs.is_learned
        for batch, parts in finished:
            self._costs.note(len(parts), batch.length, batch.seconds)
        if self._costs.is_learned and not was_learned:
            self._arrived += [part for parts in self._planned for part in parts]
            self._planned = []

    def _run(self, tokens: list[Tokens]) -> _Done:
        batch = padded(tokens, pad_id=self._tokenizer.pad_id)
        started = time.perf_counter()
        vectors = self._forward.run(batch)
        return _Done(vectors, batch.ids.shape[1], time.perf_counter() - started)

    def _count(self, length: int, parts: Sequence[_Part]) -> None:
        tokens = sum(len(part.tokens.ids) for part in parts)
        self._steps += 1
        self._tokens += tokens
        self._padding += length * len(parts) - tokens

    def _completed(self, batch: _Done, parts: list[_Part]) -> list[EngineResult]:
        results = []
        for part, vector in zip(parts, batch.vectors, strict=True):
            row = part.row
            row.vectors[part.index] = vector
            row.missing -= 1
            if not row.missing and not row.is_forgotten:
                del self._rows[row.request.key]
                results.append(self._result(row))
        return results

    def _result(self, row: _Row) -> EngineResult:
        used = sum(len(text.ids) for text in row.tokens)
        try:
            body = self._head.body(row.request, row.vectors, used)
        except Exception as error:  # noqa: BLE001 -- one row's answer is that row's error, its neighbours go on
            return failure(row.request, error)
        return EngineResult(row.request.key, 200, body, used, 0)


def _remembered(parts: list[_Part]) -> list[_Part]:
    return [part for part in parts if not part.row.is_forgotten]
