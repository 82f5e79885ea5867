"""Pictures drawn from a seed, and the requests that show them."""

from __future__ import annotations

import base64
import io
from typing import Any

import numpy as np
from PIL import Image

from pipeline.domain.endpoints import Endpoint
from pipeline.ports.engine import EngineRequest

SHAPES = [(40, 60), (64, 32), (33, 33), (120, 50), (8, 9)]


def picture(seed: int, size: tuple[int, int] | None = None) -> Image.Image:
    """Draw coarse blocks of colour: a picture that survives being written as a JPEG."""
    rng = np.random.default_rng(seed)
    blocks = Image.fromarray(rng.integers(0, 256, (5, 6, 3), dtype=np.uint8))
    return blocks.resize(size or SHAPES[seed % len(SHAPES)], Image.Resampling.BICUBIC)


def stored(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:  # noqa: ANN401 -- Pillow's own
    content = io.BytesIO()
    image.save(content, kind, **options)
    return content.getvalue()


def data_uri(content: bytes, media_type: str = "image/png") -> str:
    return f"data:{media_type};base64,{base64.b64encode(content).decode()}"


def part(url: str) -> dict[str, Any]:
    return {"type": "image_url", "image_url": {"url": url}}


def inline(seed: int) -> dict[str, Any]:
    return part(data_uri(stored(picture(seed))))


def embed(key: int, given: object, **more: object) -> EngineRequest:
    return EngineRequest(key, Endpoint.EMBEDDINGS, {"model": "tiny", "input": given, **more})


def classify(key: int, given: object, **more: object) -> EngineRequest:
    return EngineRequest(key, Endpoint.CLASSIFY, {"model": "tiny", "input": given, **more})
