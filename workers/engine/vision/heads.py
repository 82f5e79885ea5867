"""From a request to the images that the model reads; its vectors become answers as the encoder's do."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.domain.images import image_urls_of
from pipeline.domain.models import ENDPOINTS, EngineKind
from pipeline.ports.engine import EngineRequest
from workers.engine.encoder.heads import BiEncoderHead, ClassifierHead, refuse_foreign


class ImageHead:
    """What a model of images answers: embeddings, or labels."""

    def __init__(self, answers: BiEncoderHead | ClassifierHead) -> None:
        """Answer as `answers` does of texts."""
        self.endpoints = answers.endpoints & ENDPOINTS[EngineKind.VISION]
        self._answers = answers

    def urls(self, request: EngineRequest) -> list[str]:
        """Return the URLs of the images to read, or raise `RequestRefusedError` for what cannot be answered."""
        refuse_foreign(request, self.endpoints)
        if isinstance(self._answers, BiEncoderHead):
            self._answers.check_dimensions(request)
        return image_urls_of(request.body)

    def body(self, request: EngineRequest, vectors: NDArray[np.float32], used: int) -> Mapping[str, Any]:
        """Return the answer from one vector an image and the count of tokens `used`."""
        return self._answers.body(request, vectors, used)
