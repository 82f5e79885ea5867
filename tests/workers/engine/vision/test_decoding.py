"""Pictures of every kind, and bytes made to hurt."""

from __future__ import annotations

import contextlib
import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from pipeline.domain.errors import RequestRefusedError
from tests.workers.engine.vision.pictures import picture, stored
from workers.engine.vision.decoding import ImageLimits, decoded

LIMITS = ImageLimits()


def refused(content: bytes, limits: ImageLimits = LIMITS) -> str:
    with pytest.raises(RequestRefusedError) as caught:
        decoded(content, limits)
    return caught.value.row_code


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width: int, height: int, content: bytes = b"") -> bytes:
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(content)) + chunk(b"IEND", b"")


def webp(chunk_name: bytes, data: bytes) -> bytes:
    body = b"WEBP" + chunk_name + struct.pack("<I", len(data)) + data
    return b"RIFF" + struct.pack("<I", len(body)) + body


@pytest.mark.parametrize(("kind", "options"), [("PNG", {}), ("WEBP", {"lossless": True})])
def test_pictures_without_loss_come_back_as_they_were(kind: str, options: dict[str, bool]) -> None:
    image = picture(1)

    found = decoded(stored(image, kind, **options), LIMITS)

    assert found.mode == "RGB"
    assert np.array_equal(np.asarray(found), np.asarray(image))


@pytest.mark.parametrize("kind", ["JPEG", "WEBP"])
def test_pictures_with_loss_come_back_nearly(kind: str) -> None:
    image = picture(1)

    found = decoded(stored(image, kind, quality=95), LIMITS)

    assert np.abs(np.asarray(found).astype(int) - np.asarray(image)).mean() < 8


def test_an_animation_is_its_first_frame() -> None:
    frames = [Image.new("RGB", (9, 7), colour) for colour in ("red", "blue")]

    for kind in ("GIF", "WEBP", "PNG"):
        content = stored(frames[0], kind, save_all=True, append_images=frames[1:])
        red, green, blue = decoded(content, LIMITS).getpixel((4, 3))  # type: ignore[misc] # a colour, as the mode is RGB
        assert red > 200
        assert max(green, blue) < 60


def test_transparency_is_seen_on_white() -> None:
    clear = Image.new("RGBA", (4, 4), (255, 0, 0, 0))
    palette = Image.new("P", (4, 4), 0)
    palette.putpalette([0, 0, 255] * 256)
    grey = Image.new("LA", (4, 4), (0, 0))

    for content in (stored(clear), stored(palette, transparency=0), stored(grey), stored(clear, "WEBP", exact=True)):
        assert decoded(content, LIMITS).getpixel((1, 1)) == (255, 255, 255)


def test_sixteen_bits_a_sample_are_scaled_and_not_cut() -> None:
    ramp = np.linspace(0, 65535, 256).astype(np.uint16).reshape(16, 16)

    found = np.asarray(decoded(stored(Image.fromarray(ramp)), LIMITS))

    assert np.array_equal(found[..., 0], (ramp >> 8).astype(np.uint8))


@pytest.mark.parametrize(("mode", "kind"), [("L", "PNG"), ("1", "PNG"), ("P", "GIF"), ("CMYK", "JPEG"), ("L", "JPEG")])
def test_other_modes_become_rgb(mode: str, kind: str) -> None:
    image = picture(2).convert(mode)

    found = decoded(stored(image, kind), LIMITS)

    assert found.mode == "RGB"
    wanted = np.asarray(image.convert("RGB")).astype(int)
    assert np.abs(np.asarray(found).astype(int) - wanted).mean() < 12


@pytest.mark.parametrize("turned", range(1, 9))
def test_pictures_are_turned_as_the_camera_says(turned: int) -> None:
    image = picture(3)
    exif = image.getexif()
    exif[0x0112] = turned

    found = decoded(stored(image, "PNG", exif=exif), LIMITS)

    assert found.size == (image.size if turned < 5 else image.size[::-1])


def test_notes_of_a_camera_that_make_no_sense_do_not_spoil_the_picture() -> None:
    image = picture(3)

    found = decoded(stored(image, "PNG", exif=b"Exif\x00\x00MM\x00*\xff\xff\xff\xff"), LIMITS)

    assert found.size == image.size


@pytest.mark.parametrize(
    ("content", "code"),
    [
        (b"", "empty_image_file"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'><script/></svg>", "invalid_image_format"),
        (b"<!doctype html><html>", "invalid_image_format"),
        (b"%PDF-1.7", "invalid_image_format"),
        (b"GIF", "invalid_image_format"),
        (b"RIFF\x00\x00\x00\x00WAVE", "invalid_image_format"),
        (stored(picture(0), "BMP"), "invalid_image_format"),
        (stored(picture(0), "TIFF"), "invalid_image_format"),
        (b"%!PS-Adobe-3.0 EPSF-3.0", "invalid_image_format"),
        (b"\x89PNG\r\n\x1a\n", "image_parse_error"),
        (b"\xff\xd8\xff\xe0\x00", "image_parse_error"),
        (b"GIF89a\x00", "image_parse_error"),
        (b"GIF89a" + b"\xff" * 40, "image_parse_error"),
        (webp(b"VP8X", b"\x00" * 4), "image_parse_error"),
        (webp(b"JUNK", b"\x00" * 40), "image_parse_error"),
        (png(0, 5), "image_parse_error"),
        (png(30, 30, b"\x00" * 10), "image_parse_error"),
    ],
)
def test_what_is_no_picture_is_refused_by_what_it_is(content: bytes, code: str) -> None:
    assert refused(content) == code


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "GIF"])
def test_files_cut_off_anywhere_are_errors(kind: str) -> None:
    content = stored(picture(1, (200, 150)), kind)

    for share in (0.2, 0.5, 0.9):
        assert refused(content[: int(len(content) * share)]) == "image_parse_error"


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "GIF"])
def test_bytes_changed_by_chance_never_raise_anything_else(kind: str) -> None:
    content = stored(picture(1), kind)
    rng = np.random.default_rng(7)
    limits = ImageLimits(pixels_max=100_000)

    for _ in range(60):
        damaged = bytearray(content)
        for place in rng.integers(0, len(content), 4):
            damaged[place] = rng.integers(0, 256)
        with contextlib.suppress(RequestRefusedError):
            assert decoded(bytes(damaged), limits).mode == "RGB"


BOMBS = {
    "png": png(50_000, 50_000),
    "png that says four billion squared": png(2**31 - 1, 2**31 - 1),
    "jpeg": stored(picture(0), "JPEG").replace(struct.pack(">HH", 60, 40), struct.pack(">HH", 65_000, 65_000), 1),
    "gif": b"GIF89a"
    + struct.pack("<HH", 65_535, 65_535)
    + b"\x00\x00\x00"
    + b",\x00\x00\x00\x00\xff\xff\xff\xff\x00\x02\x00;",
    "webp, extended": webp(b"VP8X", b"\x00" * 4 + (16_382).to_bytes(3, "little") * 2 + b"\x00" * 8),
    "webp, lossless": webp(b"VP8L", b"\x2f" + (16_382 | 16_382 << 14).to_bytes(4, "little") + b"\x00" * 8),
    "webp, lossy": webp(b"VP8 ", b"\x00\x00\x00\x9d\x01\x2a" + struct.pack("<HH", 16_383, 16_383) + b"\x00" * 8),
}


@pytest.mark.parametrize("name", BOMBS)
def test_a_small_file_that_unfolds_into_a_huge_picture_is_refused_before_it_does(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def load(_image: Image.Image) -> None:
        pytest.fail("it was decoded")

    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", load)
    if name == "jpeg":
        assert b"\xfd\xe8\xfd\xe8" in BOMBS[name], "the header was changed"

    assert refused(BOMBS[name]) == "image_too_large"


def test_the_bounds_are_inclusive() -> None:
    content = stored(picture(0, (40, 20)))

    assert decoded(content, ImageLimits(pixels_max=800, bytes_max=len(content), aspect_max=2)).size == (40, 20)
    assert refused(content, ImageLimits(pixels_max=799)) == "image_too_large"
    assert refused(content, ImageLimits(bytes_max=len(content) - 1)) == "image_file_too_large"
    assert refused(content, ImageLimits(aspect_max=1)) == "invalid_image"


def test_a_thread_of_pixels_is_refused_before_a_model_makes_a_sheet_of_it() -> None:
    content = io.BytesIO()
    Image.new("RGB", (1, 101)).save(content, "PNG")

    assert refused(content.getvalue()) == "invalid_image"
