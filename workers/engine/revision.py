"""Which weights a model folder holds: the hash of its content, computed once while the files stay as they are."""

from __future__ import annotations

import hashlib
import json
import tempfile
from pathlib import Path

from workers.engine.models import content_hash


def revision_of(folder: Path, *, cache_dir: Path) -> str:
    """Return the content hash of a model folder.

    Hashing reads every byte of the weights, so the hash is kept in `cache_dir` beside the names, sizes and
    times of change of the files it was made from; files that say otherwise are read again.
    """
    files = _files(folder)
    note = cache_dir / "revisions" / f"{hashlib.sha256(str(folder.resolve()).encode()).hexdigest()[:32]}.json"
    known = _known(note)
    if known is not None and known["files"] == files:
        return str(known["revision"])
    revision = content_hash(folder)
    # What changed while it was read is not remembered.
    if _files(folder) == files:
        _keep(note, {"files": files, "revision": revision})
    return revision


def _files(folder: Path) -> list[list[object]]:
    found: list[list[object]] = []
    for path in sorted(folder.iterdir()):
        if path.is_file():
            stat = path.stat()
            found.append([path.name, stat.st_size, stat.st_mtime_ns])
    return found


def _known(note: Path) -> dict[str, object] | None:
    try:
        known = json.loads(note.read_text())
    except (OSError, ValueError):
        return None
    return known if isinstance(known, dict) and known.keys() == {"files", "revision"} else None


def _keep(note: Path, known: dict[str, object]) -> None:
    try:
        note.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile("w", dir=note.parent, delete=False) as file:
            json.dump(known, file)
        Path(file.name).replace(note)
    except OSError:
        # A folder that cannot be written to costs the next load its time, nothing else.
        return
