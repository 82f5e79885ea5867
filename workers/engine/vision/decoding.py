"""From the bytes of a picture to one in 8-bit RGB, or to what is wrong with it.

The bytes are a stranger's. So what they are is told by their first bytes and not by their name, only four decoders
can be reached, and width and height are read from the header and bounded before a decoder allocates anything.
"""

from __future__ import annotations

import io
import struct
from dataclasses import dataclass
from typing import Final

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from pipeline.domain.errors import RequestRefusedError
from pipeline.domain.images import FORMATS
from pipeline.domain.limits import IMAGE_ASPECT_MAX, IMAGE_BYTES_MAX, IMAGE_PIXELS_MAX

# Pillow's own guard warns at half its bound, and Python's warnings are one state of all threads; ours is below.
Image.MAX_IMAGE_PIXELS = None

#: The mark at the head of a file, and the one decoder that it opens.
_MAGICS: Final = ((b"\x89PNG\r\n\x1a\n", "PNG"), (b"\xff\xd8\xff", "JPEG"), (b"GIF87a", "GIF"), (b"GIF89a", "GIF"))
_RIFF: Final = b"RIFF"
_WEBP: Final = b"WEBP"
_WHITE: Final = (255, 255, 255, 255)
#: Modes whose samples have 16 bits; the widest is kept in 32.
_DEEP_MODES: Final = frozenset({"I", "I;16", "I;16B", "I;16L", "I;16N"})


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageLimits:
    """What is decoded."""

    bytes_max: int = IMAGE_BYTES_MAX
    pixels_max: int = IMAGE_PIXELS_MAX
    #: The longer side in shorter ones.
    aspect_max: int = IMAGE_ASPECT_MAX


def decoded(content: bytes, limits: ImageLimits) -> Image.Image:
    """Return the picture upright and in RGB: the first frame of an animation, transparency on white.

    Raises:
        RequestRefusedError: It is none of the formats, too large, or damaged; the caller knows which field.
    """
    kind = _checked_format(content, limits)
    if kind == "WEBP":
        # Its decoder allocates the canvas when it is opened, so the header is read here.
        _check_size(*_webp_size(content), limits)
    try:
        with Image.open(io.BytesIO(content), formats=(kind,)) as image:
            _check_size(*image.size, limits)
            image.load()
            return _rgb(_upright(image))
    except RequestRefusedError:
        raise
    except UnidentifiedImageError as error:
        raise _damaged("its header cannot be read") from error
    except Exception as error:
        raise _damaged("it is cut off or damaged") from error


def too_many_bytes(limits: ImageLimits) -> RequestRefusedError:
    """Return the refusal of a picture whose file is too large."""
    return RequestRefusedError(
        f"This image has more than {limits.bytes_max:,} bytes.", code="image_file_too_large", status_code=400
    )


def _checked_format(content: bytes, limits: ImageLimits) -> str:
    if not content:
        raise RequestRefusedError("This image is empty.", code="empty_image_file")
    if len(content) > limits.bytes_max:
        raise too_many_bytes(limits)
    for magic, kind in _MAGICS:
        if content.startswith(magic):
            return kind
    if content[:4] == _RIFF and content[8:12] == _WEBP:
        return "WEBP"
    raise RequestRefusedError(f"This is no {FORMATS} image.", code="invalid_image_format")


def _check_size(width: int, height: int, limits: ImageLimits) -> None:
    if width < 1 or height < 1:
        raise _damaged("it has no pixels")
    if width * height > limits.pixels_max:
        raise RequestRefusedError(
            f"This image has {width} by {height} pixels; {limits.pixels_max:,} are the most.", code="image_too_large"
        )
    if max(width, height) > limits.aspect_max * min(width, height):
        raise RequestRefusedError(
            f"This image has {width} by {height} pixels; "
            f"the longer side may have {limits.aspect_max} times the shorter one's.",
            code="invalid_image",
        )


def _webp_size(content: bytes) -> tuple[int, int]:
    """Return the width and height that a WebP file's first chunk names (RFC 9649, section 2)."""
    chunk, data = content[12:16], content[20:30]
    try:
        if chunk == b"VP8X":
            return 1 + int.from_bytes(data[4:7], "little"), 1 + int.from_bytes(data[7:10], "little")
        if chunk == b"VP8L" and data[0] == 0x2F:  # noqa: PLR2004 -- the signature of a lossless stream
            bits = int.from_bytes(data[1:5], "little")
            return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
        if chunk == b"VP8 ":
            width, height = struct.unpack_from("<HH", data, 6)
            return width & 0x3FFF, height & 0x3FFF
    except (IndexError, struct.error) as error:
        raise _damaged("its header cannot be read") from error
    raise _damaged("its header cannot be read")


def _upright(image: Image.Image) -> Image.Image:
    try:
        return ImageOps.exif_transpose(image)
    except Exception:  # noqa: BLE001 -- damaged notes of a camera; the picture itself is whole
        return image


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode == "RGB":
        return image
    if image.mode in _DEEP_MODES:
        # Pillow would cut at 255 what counts to 65,535.
        samples = np.clip(np.asarray(image).astype(np.int64) >> 8, 0, 255)
        return Image.fromarray(samples.astype(np.uint8)).convert("RGB")
    if image.mode in {"RGBA", "LA", "PA", "La", "RGBa"} or "transparency" in image.info:
        seen = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", seen.size, _WHITE), seen).convert("RGB")
    return image.convert("RGB")


def _damaged(why: str) -> RequestRefusedError:
    return RequestRefusedError(f"This image cannot be decoded: {why}.", code="image_parse_error")
