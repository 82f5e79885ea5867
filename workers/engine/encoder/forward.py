"""What a backend is to the engine: batches in, one vector a text out."""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from workers.engine.encoder.batch import Batch


class Forward(Protocol):
    """A loaded encoder. `run` may be called from `streams` threads at once."""

    #: Numbers of one vector: an embedding's dimensions, or a classifier's labels.
    width: int
    #: Batches that compute side by side.
    streams: int

    def enter_thread(self) -> None:
        """Prepare the calling thread for `run`; each of the engine's threads calls it once."""

    def run(self, batch: Batch) -> NDArray[np.float32]:
        """Return (texts, width): pooled embeddings, or a classifier's raw scores."""

    def close(self) -> None:
        """Let go of the model."""
