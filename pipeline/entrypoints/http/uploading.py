"""Uploads: a multipart body as it streams in, its file onto the disk, its fields into memory."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Final

from anyio import to_thread
from python_multipart import MultipartParser
from python_multipart.exceptions import MultipartParseError
from python_multipart.multipart import parse_options_header

from pipeline.entrypoints.http.errors import ApiError

if TYPE_CHECKING:  # it exists for type checkers only
    from python_multipart.multipart import MultipartCallbacks

_BLOCK_BYTES: Final = 1024 * 1024
_FIELD_BYTES_MAX: Final = 16 * 1024
_FIELDS_MAX: Final = 32
#: Of a part of the form, and of one of its headers.
_HEADERS_MAX: Final = 16
_HEADER_BYTES_MAX: Final = 8 * 1024
#: RFC 2046 allows 70.
_BOUNDARY_BYTES_MAX: Final = 256
_FILENAME_CHARS_MAX: Final = 255
_UNPRINTABLE: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")


@dataclass(slots=True)
class Upload:
    """What a multipart body held."""

    #: None: there was no file.
    filename: str | None = None
    size_bytes: int = 0
    fields: dict[str, str] = field(default_factory=dict)


async def receive_upload(
    content_type: str, body: AsyncIterator[bytes], path: Path, *, bytes_max: int, file_field: str = "file"
) -> Upload:
    """Write the part named `file_field` to `path`, up to `bytes_max` of it, and return the fields; memory is bounded.

    Raises `ApiError` where the body is no multipart form, or is one of a shape that nobody sends.
    """
    kind, options = parse_options_header(content_type)
    boundary = options.get(b"boundary")
    if kind != b"multipart/form-data" or not boundary or len(boundary) > _BOUNDARY_BYTES_MAX:
        raise ApiError(
            415, "A file is uploaded as multipart/form-data, with a boundary.", code="unsupported_content_type"
        )
    with path.open("xb") as file:
        reader = _Reader(file, bytes_max, file_field)
        parser = MultipartParser(
            boundary, reader.callbacks(), max_header_count=_HEADERS_MAX, max_header_size=_HEADER_BYTES_MAX
        )
        try:
            async for chunk in body:
                parser.write(chunk)
                if reader.pending_bytes >= _BLOCK_BYTES:
                    await to_thread.run_sync(reader.flush)
            parser.finalize()
        except MultipartParseError as error:
            raise ApiError(400, f"The body is no multipart form: {error}.") from None
        if not reader.is_ended:
            raise ApiError(400, "The body broke off before its last boundary.")
        await to_thread.run_sync(reader.flush)
    return reader.upload


class _Reader:
    """Takes what the parser finds."""

    def __init__(self, file: BinaryIO, bytes_max: int, file_field: str) -> None:
        self._file_field = file_field
        self._bytes_max = bytes_max
        self.upload = Upload()
        self.is_ended = False
        self._file = file
        self._pending = bytearray()
        self._headers: dict[bytes, bytes] = {}
        self._header_name = b""
        self._header_value = b""
        #: Of the part at hand; None: the file.
        self._name: str | None = None
        self._value = b""
        self._is_file = False

    def callbacks(self) -> MultipartCallbacks:
        return {
            "on_part_begin": self._on_part_begin,
            "on_header_field": self._on_header_field,
            "on_header_value": self._on_header_value,
            "on_header_end": self._on_header_end,
            "on_headers_finished": self._on_headers_finished,
            "on_part_data": self._on_part_data,
            "on_part_end": self._on_part_end,
            "on_end": self._on_end,
        }

    @property
    def pending_bytes(self) -> int:
        return len(self._pending)

    def flush(self) -> None:
        self._file.write(self._pending)
        self._pending.clear()

    def _on_part_begin(self) -> None:
        self._headers = {}
        self._value = b""

    def _on_header_field(self, data: bytes, start: int, end: int) -> None:
        self._header_name += data[start:end]

    def _on_header_value(self, data: bytes, start: int, end: int) -> None:
        self._header_value += data[start:end]

    def _on_header_end(self) -> None:
        self._headers[self._header_name.lower()] = self._header_value
        self._header_name = self._header_value = b""

    def _on_headers_finished(self) -> None:
        _, options = parse_options_header(self._headers.get(b"content-disposition", b""))
        name = options.get(b"name")
        if name is None:
            raise ApiError(400, "A part of the form has no name.")
        self._name = _text(name, "name")
        self._is_file = self._name == self._file_field and b"filename" in options
        if self._is_file:
            if self.upload.filename is not None:
                raise ApiError(400, "The form has more than one file.", param=self._file_field)
            self.upload.filename = _filename(_text(options[b"filename"], "filename"))
        elif self._name in self.upload.fields:
            raise ApiError(400, f"The form has the field '{_shown(self._name)}' twice.", param=_shown(self._name))
        elif len(self.upload.fields) == _FIELDS_MAX:
            raise ApiError(400, "The form has too many fields.")

    def _on_part_data(self, data: bytes, start: int, end: int) -> None:
        if self._is_file:
            # Bytes, not pieces: whoever sends them one by one is not to fill our memory with what surrounds them.
            self._pending += memoryview(data)[start:end]
            self.upload.size_bytes += end - start
            if self.upload.size_bytes > self._bytes_max:
                raise ApiError(
                    413,
                    f"The file is larger than {self._bytes_max} bytes.",
                    code="file_too_large",
                    param=self._file_field,
                )
            return
        self._value += data[start:end]
        if len(self._value) > _FIELD_BYTES_MAX:
            raise ApiError(400, f"The field '{_shown(self._name)}' is too long.", param=_shown(self._name))

    def _on_part_end(self) -> None:
        if not self._is_file and self._name is not None:
            self.upload.fields[self._name] = _text(self._value, self._name)

    def _on_end(self) -> None:
        self.is_ended = True


def _text(written: bytes, name: str) -> str:
    try:
        text = written.decode()
    except UnicodeDecodeError:
        raise ApiError(400, f"The form's '{_shown(name)}' is not UTF-8.", param=_shown(name)) from None
    if "\x00" in text:
        raise ApiError(400, f"The form's '{_shown(name)}' holds a NUL character.", param=_shown(name))
    return text


def _shown(name: str | None) -> str:
    return _UNPRINTABLE.sub("?", name or "")[:64]


def _filename(written: str) -> str:
    """Return a name to show and to download by; no path is ever made of it."""
    name = _UNPRINTABLE.sub("_", written.replace("\\", "/").rpartition("/")[2])
    return name[-_FILENAME_CHARS_MAX:] or "file"
