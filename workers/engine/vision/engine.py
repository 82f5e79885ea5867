"""The vision engine: images of many rows, gathered ahead of the model and run in batches of one size."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from pipeline.domain.errors import RequestRefusedError
from pipeline.domain.images import image_param
from pipeline.domain.limits import LINE_BYTES_MAX
from pipeline.ports.engine import EngineRequest, EngineResult
from pipeline.ports.meters import EngineIdentity, EngineMeters
from workers.engine.answers import attempted, drafted, failure, refusal
from workers.engine.counters import Counters
from workers.engine.torch_chat.memory import MemoryLimit, is_out_of_memory, too_large
from workers.engine.vision.forward import Seen, VisionForward
from workers.engine.vision.gathering import Gatherer, Pixels
from workers.engine.vision.heads import ImageHead

#: Batches gathered ahead, beside one for each stream.
_BATCHES_AHEAD: Final = 2
#: Of what is gathered ahead, once it is decoded; a batch is gathered whatever it takes.
_AHEAD_BYTES_MAX: Final = 512 * 1024**2
#: Of requests held, images inside them included.
_HELD_BYTES_MAX: Final = 256 * 1024**2
#: Rows taken at once: what their images weigh is known only then.
_ROWS_AT_ONCE: Final = 64
#: How long a batch that is not full waits for neighbours that may be nearly there.
_LINGER_SECONDS: Final = 0.01
#: How long a step waits where nothing is ready: the worker has other things to look after.
_PATIENCE_SECONDS: Final = 0.2


@dataclass(slots=True, eq=False)
class _Row:
    request: EngineRequest
    urls: list[str]
    #: Of its URLs, images inside them included.
    held_bytes: int
    #: One vector an image, filled as batches finish.
    vectors: list[NDArray[np.float32] | None]
    missing: int
    tokens: int = 0
    is_over: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class _Part:
    """One image of a row. Positional: there are many."""

    row: _Row
    index: int


_Batch = list[tuple[_Part, Pixels]]


class VisionEngine:
    """One model of images; implements `Engine`."""

    name = "vision"

    def __init__(
        self,
        model: str,
        *,
        forward: VisionForward,
        gatherer: Gatherer,
        head: ImageHead,
        batch_images: int,
        image_bytes: int,
        rows_waiting_max: int,
        identity: EngineIdentity,
    ) -> None:
        """Serve `forward` under the name `model`; what it reads of an image has `image_bytes`."""
        self.model = model
        self.endpoints = head.endpoints
        self.identity = identity
        self._forward = forward
        self._gatherer = gatherer
        self._head = head
        self._batch_images = batch_images
        self._ahead_max = max(
            batch_images, min(batch_images * (forward.streams + _BATCHES_AHEAD), _AHEAD_BYTES_MAX // image_bytes)
        )
        self._limit = MemoryLimit(batch_images * image_bytes)
        self._rows_waiting_max = rows_waiting_max
        self._counters = Counters()
        self._tokens = 0
        #: Rows that are not answered yet.
        self._rows: dict[int, _Row] = {}
        self._held_bytes = 0
        self._waiting: deque[_Part] = deque()
        self._gathering: dict[Future[Pixels], _Part] = {}
        #: By shape: a batch has images of one.
        self._ready: dict[tuple[int, ...], deque[tuple[_Part, Pixels]]] = {}
        self._running: dict[Future[Seen], _Batch] = {}
        self._ended: list[EngineResult] = []
        self._streams = forward.streams
        self._threads = ThreadPoolExecutor(forward.streams, "vision", initializer=forward.enter_thread)

    def room(self) -> int:
        """Return how many more rows to take: some at a time, and no more than memory bears of the largest."""
        largest = max((row.held_bytes for row in self._rows.values()), default=LINE_BYTES_MAX)
        bearable = (_HELD_BYTES_MAX - self._held_bytes) // max(1, largest)
        return max(0, min(_ROWS_AT_ONCE, self._rows_waiting_max - self.in_flight(), bearable))

    def in_flight(self) -> int:
        """Return how many added rows have not come back yet."""
        return len(self._rows) + len(self._ended)

    def add(self, requests: Sequence[EngineRequest]) -> None:
        """Take rows in and begin with their images."""
        rows, ended = drafted(requests, [attempted(self._head.urls, request) for request in requests], _row)
        self._ended += ended
        for row in rows:
            self._rows[row.request.key] = row
            self._held_bytes += row.held_bytes
            self._waiting += [_Part(row, index) for index in range(len(row.urls))]
        self._gather()

    def step(self) -> Sequence[EngineResult]:
        """Wait for a batch, or for images where the model has none, and return the rows that are whole now.

        A slow server holds up its own rows and no others: without neighbours at hand a batch runs as it is, and
        where nothing is ready the step ends.
        """
        self._gather()
        self._linger()
        self._start(is_partial_due=True)
        self._gather()
        if not self._ended and (watched := self._watched()):
            wait(watched, timeout=_PATIENCE_SECONDS, return_when=FIRST_COMPLETED)
        finished = [(future, self._running.pop(future)) for future in tuple(self._running) if future.done()]
        # Before the answers are written, which takes a while: the device must not wait for that.
        self._gather()
        self._start(is_partial_due=False)
        for future, batch in finished:
            self._finish(future, batch)
        results, self._ended = self._ended, []
        return results

    def meters(self) -> EngineMeters:
        """Return the counters; a batch has a slot for each image that fits it."""
        return self._counters.meters(tokens_prefilled=self._tokens, tokens_cached=0, tokens_padding=0)

    def abort(self, keys: Sequence[int]) -> None:
        """Forget these rows, images already computed included."""
        gone = frozenset(keys)
        for key in gone & self._rows.keys():
            self._leave(self._rows[key])
        self._ended = [result for result in self._ended if result.key not in gone]
        self._sweep()

    def close(self) -> None:
        """Forget every row, wait for the batches that run, and drop the model; servers are not waited for."""
        self._gatherer.close()
        self._rows, self._waiting, self._gathering, self._ready, self._ended = {}, deque(), {}, {}, []
        self._held_bytes = 0
        self._threads.shutdown(cancel_futures=True)
        self._running = {}
        self._forward.close()

    # --- gathering -----------------------------------------------------------------------------

    def _gather(self) -> None:
        """Take in the images that are there, and begin with others as far as memory goes."""
        for future in [each for each in self._gathering if each.done()]:
            self._take(self._gathering.pop(future), future)
        ahead = len(self._gathering) + sum(map(len, self._ready.values()))
        while self._waiting and ahead < self._ahead_max:
            part = self._waiting.popleft()
            if not part.row.is_over:
                self._gathering[self._gatherer.gather(part.row.urls[part.index])] = part
                ahead += 1

    def _take(self, part: _Part, future: Future[Pixels]) -> None:
        request = part.row.request
        if part.row.is_over or future.cancelled():
            return
        error = future.exception()
        if error is None:
            pixels = future.result()
            self._ready.setdefault(pixels.shape, deque()).append((part, pixels))
        elif isinstance(error, RequestRefusedError):
            error.param = image_param(request.body, part.index)
            self._end(part.row, refusal(request, error))
        elif isinstance(error, Exception):
            self._end(part.row, failure(request, error))
        else:
            raise error

    def _linger(self) -> None:
        """Give a batch that is not full a moment to become so, where the model could run it at once."""
        deadline: float | None = None
        while self._ready and self._gathering and self._has_idle_stream() and not self._is_full():
            now = time.monotonic()
            deadline = deadline or now + _LINGER_SECONDS
            if now >= deadline:
                return
            wait(self._gathering, timeout=deadline - now, return_when=FIRST_COMPLETED)
            self._gather()

    def _watched(self) -> list[Future[Any]]:
        """Return what a step waits for: batches, and where the model has too few of them, images."""
        images = self._gathering if self._has_idle_stream() else ()
        return [*self._running, *images]

    def _has_idle_stream(self) -> bool:
        return len(self._running) < self._streams

    def _is_full(self) -> bool:
        return any(len(images) >= self._fitting(images[0][1]) for images in self._ready.values())

    def _fitting(self, pixels: Pixels) -> int:
        """Return how many such images make a batch."""
        return max(1, min(self._batch_images, self._limit.bytes_max // pixels.nbytes))

    # --- running -------------------------------------------------------------------------------

    def _start(self, *, is_partial_due: bool) -> None:
        """Keep every stream busy, with a full batch more at hand for the first that ends."""
        while self._ready:
            shape = max(self._ready, key=lambda each: len(self._ready[each]))
            images = self._ready[shape]
            fitting = self._fitting(images[0][1])
            is_due = self._has_idle_stream() and is_partial_due
            if not is_due and (len(images) < fitting or len(self._running) > self._streams):
                return
            batch = [images.popleft() for _ in range(min(len(images), fitting))]
            if not images:
                del self._ready[shape]
            pixels = np.stack([each for _, each in batch])
            self._running[self._threads.submit(self._forward.run, pixels)] = batch

    def _finish(self, future: Future[Seen], batch: _Batch) -> None:
        try:
            seen = future.result()
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            self._retreat(batch)
            return
        self._limit.note_clean()
        self._counters.note_step(len(batch), self._batch_images)
        self._tokens += seen.positions * len(batch)
        for (part, _), vector in zip(batch, seen.vectors, strict=True):
            self._keep(part, vector, seen.positions)

    def _retreat(self, batch: _Batch) -> None:
        """Put a batch back that memory did not suffice for; fewer are tried next."""
        self._forward.free()
        row, pixels = batch[0][0].row, batch[0][1]
        alone = row.request.key if len(batch) == 1 else None
        if self._limit.note_failure(pixels.nbytes * len(batch), alone) is None:
            self._ready.setdefault(pixels.shape, deque()).extendleft(
                image for image in reversed(batch) if not image[0].row.is_over
            )
            if not self._ready[pixels.shape]:
                del self._ready[pixels.shape]
        elif not row.is_over:
            self._end(row, too_large(row.request))

    def _keep(self, part: _Part, vector: NDArray[np.float32], positions: int) -> None:
        row = part.row
        if row.is_over:
            return
        row.vectors[part.index] = vector
        row.missing -= 1
        row.tokens += positions
        if row.missing:
            return
        try:
            body = self._head.body(
                row.request, np.stack([each for each in row.vectors if each is not None]), row.tokens
            )
        except Exception as error:  # noqa: BLE001 -- one row's answer is that row's error, its neighbours go on
            self._end(row, failure(row.request, error))
        else:
            self._end(row, EngineResult(row.request.key, 200, body, row.tokens, 0))

    # --- leaving -------------------------------------------------------------------------------

    def _end(self, row: _Row, result: EngineResult) -> None:
        self._leave(row)
        self._ended.append(result)
        if row.missing:
            self._sweep()

    def _leave(self, row: _Row) -> None:
        row.is_over = True
        self._held_bytes -= row.held_bytes
        del self._rows[row.request.key]

    def _sweep(self) -> None:
        """Drop what was gathered of rows that are over; what waits to be gathered is passed over in its turn."""
        for future, part in self._gathering.items():
            if part.row.is_over:
                future.cancel()
        kept = {
            shape: deque(image for image in images if not image[0].row.is_over) for shape, images in self._ready.items()
        }
        self._ready = {shape: images for shape, images in kept.items() if images}


def _row(request: EngineRequest, urls: list[str]) -> _Row:
    return _Row(request, urls, sum(map(len, urls)), [None] * len(urls), len(urls))
