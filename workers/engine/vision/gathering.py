"""Images on their way to the model: fetched by a few threads, decoded by others, always ahead of it."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from workers.engine.vision.decoding import ImageLimits, decoded
from workers.engine.vision.sources import ImageSources

#: What a model reads of one image: (channels, height, width).
Pixels = NDArray[np.float32]
#: From a picture to what the model reads of it. Called by several threads at once.
Prepare = Callable[[Image.Image], Pixels]


class Gatherer:
    """Turns URLs into pixels, side by side.

    A thread that fetched an image waits until it is decoded. So no more files are in memory than threads fetch,
    and no more pictures than threads decode, however fast the network is.
    """

    def __init__(
        self, sources: ImageSources, prepare: Prepare, limits: ImageLimits, *, fetchers: int, decoders: int
    ) -> None:
        """Fetch with `fetchers` threads and decode with `decoders`."""
        self._sources = sources
        self._prepare = prepare
        self._limits = limits
        self._fetchers = ThreadPoolExecutor(fetchers, "image-fetcher")
        self._decoders = ThreadPoolExecutor(decoders, "image-decoder")

    def gather(self, url: str) -> Future[Pixels]:
        """Begin with an image; its future raises `RequestRefusedError` where it cannot be had."""
        if url[:5].lower() == "data:":
            return self._decoders.submit(self._inline, url)
        return self._fetchers.submit(self._remote, url)

    def close(self) -> None:
        """Drop what was begun. Threads that talk to a server are told to stop, and not waited for."""
        self._sources.close()
        self._fetchers.shutdown(wait=False, cancel_futures=True)
        self._decoders.shutdown(wait=False, cancel_futures=True)

    def _inline(self, url: str) -> Pixels:
        return self._decoded(self._sources.read(url))

    def _remote(self, url: str) -> Pixels:
        content = self._sources.read(url)
        return self._decoders.submit(self._decoded, content).result()

    def _decoded(self, content: bytes) -> Pixels:
        return self._prepare(decoded(content, self._limits))
