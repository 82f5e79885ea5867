"""A transformers model of images on torch."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from workers.engine.vision.gathering import Pixels


class Vector(StrEnum):
    """Which of a model's outputs is an image's vector."""

    #: A classifier's raw scores.
    LOGITS = "logits"
    #: What the model was trained to be searched by, beside texts: CLIP's and SigLIP's.
    FEATURES = "features"
    #: A tower of CLIP with its projection.
    PROJECTION = "projection"
    #: What the model itself makes of its positions.
    POOLER = "pooler"
    #: The first position, where no weights for more are in the folder.
    FIRST = "first"


@dataclass(frozen=True, slots=True)
class Seen:
    """What a model made of a batch."""

    #: (images, width): embeddings of unit length, or raw scores.
    vectors: NDArray[np.float32]
    #: Positions of the model's last layer that each image took: what counts as its tokens.
    positions: int


class VisionForward:
    """A loaded model. `run` may be called from `streams` threads at once."""

    def __init__(
        self,
        module: Any,  # noqa: ANN401 -- transformers has no types
        *,
        vector: Vector,
        dtype: torch.dtype,
        streams: int,
        threads: int | None,
    ) -> None:
        """Run `module` on its device and read `vector` of what it gives.

        Pixels are given in `dtype`; each stream computes with `threads` threads.
        """
        #: Batches that compute side by side.
        self.streams = streams
        self._threads = threads
        self._module = module
        self._vector = vector
        self._dtype = dtype
        #: Each thread's own: the positions of the last layer that its batch took.
        self._seen = threading.local()
        if vector is Vector.LOGITS:
            # A classifier keeps what its backbone saw to itself.
            for child in module.children():
                child.register_forward_hook(self._note)

    def enter_thread(self) -> None:
        """Set the number of threads that operators called from this one use."""
        if self._threads is not None:
            torch.set_num_threads(self._threads)

    @torch.inference_mode()
    def run(self, pixels: Pixels) -> Seen:
        """Return what the model makes of images (images, channels, height, width) of one size."""
        self._seen.positions = 1
        given = torch.from_numpy(pixels).to(device=self._module.device, dtype=self._dtype)
        if self._vector is Vector.FEATURES:
            output = self._module.get_image_features(pixel_values=given)
        else:
            output = self._module(pixel_values=given)
        if self._vector is Vector.LOGITS:
            found = output.logits.float()
        else:
            self._note(None, (), output)
            found = functional.normalize(self._embedding(output).float(), dim=-1)
        return Seen(found.cpu().numpy(), self._seen.positions)

    def free(self) -> None:
        """Give back the device's memory that nothing uses."""
        if self._module.device.type == "cuda":
            torch.cuda.empty_cache()

    def close(self) -> None:
        """Let go of the module."""
        self._module = None

    def _embedding(self, output: Any) -> Tensor:  # noqa: ANN401 -- as above
        if self._vector is Vector.PROJECTION:
            vectors: Tensor = output.image_embeds
        elif self._vector is Vector.FIRST:
            vectors = output.last_hidden_state[:, 0]
        else:
            vectors = output.pooler_output
        # A convolutional model keeps a height and a width of one.
        return vectors.flatten(1)

    def _note(self, _module: nn.Module | None, _given: Any, output: Any) -> None:  # noqa: ANN401 -- as above
        """Count the positions of the last layer, if this output shows it: a sequence, or a map of features."""
        hidden = getattr(output, "last_hidden_state", None)
        if isinstance(hidden, Tensor):
            is_sequence = hidden.ndim == 3  # noqa: PLR2004 -- images, positions, features
            self._seen.positions = int(hidden.shape[1] if is_sequence else hidden[0, 0].numel())
