"""Files on their way to a server: a multipart form around a part of a file, read as it is sent."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from pipeline.domain.errors import RefusedError

#: What a name in a form must not have as it is; browsers write it so, too.
_ESCAPED: Final = str.maketrans({'"': "%22", "\r": "%0D", "\n": "%0A", "\x00": "_"})


class FormBody:
    """A form with one file, or a part of it; memory is bounded by what is read at once."""

    def __init__(
        self,
        path: Path,
        *,
        field: str,
        filename: str,
        fields: Mapping[str, str],
        span: tuple[int, int],
        on_sent: Callable[[int], None] | None = None,
    ) -> None:
        """Send the bytes of `path` from `span[0]` up to `span[1]`; `on_sent` hears how many of them were read."""
        boundary = secrets.token_hex(16)
        self.content_type = f"multipart/form-data; boundary={boundary}"
        texts = "".join(
            f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'
            for name, value in fields.items()
        )
        shown = filename.encode(errors="replace").decode().translate(_ESCAPED)
        disposition = f'Content-Disposition: form-data; name="{field}"; filename="{shown}"'
        self._pending = f"{texts}--{boundary}\r\n{disposition}\r\n\r\n".encode()
        self._tail = f"\r\n--{boundary}--\r\n".encode()
        self._left = span[1] - span[0]
        self.size_bytes = len(self._pending) + self._left + len(self._tail)
        self._name = path.name
        self._source = path.open("rb")
        self._source.seek(span[0])
        self._sent = 0
        self._on_sent = on_sent

    def read(self, size: int = -1, /) -> bytes:
        """Return up to `size` of the next bytes."""
        if not self._pending and self._left:
            self._pending = self._source.read(self._left if size < 0 else min(size, self._left))
            if not self._pending:
                raise RefusedError(f"{self._name} became shorter while it was sent")
            self._left -= len(self._pending)
            self._sent += len(self._pending)
            if self._on_sent is not None:
                self._on_sent(self._sent)
        if not self._left and self._tail:
            self._pending, self._tail = self._pending + self._tail, b""
        cut = len(self._pending) if size < 0 else size
        block, self._pending = self._pending[:cut], self._pending[cut:]
        return block

    def close(self) -> None:
        """Close the file."""
        self._source.close()
