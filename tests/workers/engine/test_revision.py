from __future__ import annotations

import os
from pathlib import Path

import pytest

from workers.engine import revision
from workers.engine.models import content_hash
from workers.engine.revision import revision_of


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    model = tmp_path / "model"
    model.mkdir()
    (model / "model.safetensors").write_bytes(b"weights")
    (model / "config.json").write_text("{}")
    return model


@pytest.fixture
def hashed(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Folders that were read to the last byte."""
    read: list[Path] = []

    def counted(folder: Path) -> str:
        read.append(folder)
        return content_hash(folder)

    monkeypatch.setattr(revision, "content_hash", counted)
    return read


def test_weights_are_hashed_once_while_nothing_changes(folder: Path, tmp_path: Path, hashed: list[Path]) -> None:
    first = revision_of(folder, cache_dir=tmp_path / "cache")
    second = revision_of(folder, cache_dir=tmp_path / "cache")

    assert first == second == content_hash(folder)
    assert len(hashed) == 1


def test_a_file_of_the_same_size_that_changed_is_hashed_again(folder: Path, tmp_path: Path, hashed: list[Path]) -> None:
    before = revision_of(folder, cache_dir=tmp_path / "cache")
    (folder / "model.safetensors").write_bytes(b"WEIGHTS")
    os.utime(folder / "model.safetensors", ns=(1, 1))

    assert revision_of(folder, cache_dir=tmp_path / "cache") != before
    assert len(hashed) == 2


def test_a_damaged_note_costs_a_reading_and_no_error(folder: Path, tmp_path: Path, hashed: list[Path]) -> None:
    known = revision_of(folder, cache_dir=tmp_path / "cache")
    (note,) = (tmp_path / "cache" / "revisions").iterdir()

    for content in ("", "[]", '{"files": []}'):
        note.write_text(content)
        assert revision_of(folder, cache_dir=tmp_path / "cache") == known

    assert len(hashed) == 4


def test_a_cache_that_cannot_be_written_to_leaves_the_hash_to_be_made_again(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file where the folder would be")

    assert revision_of(folder, cache_dir=tmp_path / "cache") == content_hash(folder)
