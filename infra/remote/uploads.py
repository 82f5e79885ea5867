"""Files to a server: in one request, or in parts where they are large."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Final

from infra.remote.bodies import FormBody
from infra.remote.reading import text_in
from infra.remote.transport import Transport
from pipeline.domain.errors import NightrateError, NotFoundError

#: Past it a connection that breaks costs too much again.
PARTS_FROM_BYTES: Final = 512 * 1024 * 1024
#: OpenAI's bound for one part.
PART_BYTES: Final = 64 * 1024 * 1024
_SUFFIX: Final = ".jsonl"
_NAME_CHARS_MAX: Final = 200

Sent = Callable[[int, int], None]


def upload(
    transport: Transport, path: Path, *, on_sent: Sent | None = None, parts_from_bytes: int = PARTS_FROM_BYTES
) -> str:
    """Upload a file of requests and return its id; `on_sent` hears how many of how many bytes are on their way."""
    size_bytes = path.stat().st_size
    name = _name_of(path)
    if size_bytes >= parts_from_bytes:
        try:
            return _in_parts(transport, path, name, size_bytes, on_sent)
        except NotFoundError:
            # A server that takes no parts; it says itself what is too large for it.
            pass
    # A key that is refused is better told of before a gigabyte is sent.
    transport.ask("GET", "/v1/models")
    answer = transport.send(
        "/v1/files",
        lambda: FormBody(
            path,
            field="file",
            filename=name,
            fields={"purpose": "batch"},
            span=(0, size_bytes),
            on_sent=None if on_sent is None else lambda sent: on_sent(sent, size_bytes),
        ),
    )
    return text_in(answer, "id")


def _in_parts(transport: Transport, path: Path, name: str, size_bytes: int, on_sent: Sent | None) -> str:
    asked = {"filename": name, "purpose": "batch", "bytes": size_bytes, "mime_type": "application/jsonl"}
    upload_id = text_in(transport.ask("POST", "/v1/uploads", asked), "id")
    try:
        part_ids = [
            _part(transport, path, upload_id, (start, min(start + PART_BYTES, size_bytes)), size_bytes, on_sent)
            for start in range(0, size_bytes, PART_BYTES)
        ]
        done = transport.ask("POST", f"/v1/uploads/{upload_id}/complete", {"part_ids": part_ids})
    except NotFoundError as error:
        # Not that there are no uploads: this one is gone.
        raise NightrateError(f"the upload of {name} is gone: {error.message}") from error
    return text_in(done.get("file"), "id")


def _part(
    transport: Transport, path: Path, upload_id: str, span: tuple[int, int], size_bytes: int, on_sent: Sent | None
) -> str:
    answer = transport.send(
        f"/v1/uploads/{upload_id}/parts",
        lambda: FormBody(
            path,
            field="data",
            filename="part",
            fields={},
            span=span,
            on_sent=None if on_sent is None else lambda sent: on_sent(span[0] + sent, size_bytes),
        ),
    )
    return text_in(answer, "id")


def _name_of(path: Path) -> str:
    """Return the file's name as servers take it: of files of requests only those that end so."""
    stem = path.name.removesuffix(_SUFFIX)[-_NAME_CHARS_MAX:].encode(errors="replace").decode()
    return f"{''.join(sign if sign.isprintable() else '_' for sign in stem)}{_SUFFIX}"
