"""Where the tests' own servers keep their data."""

from __future__ import annotations

import os
from pathlib import Path

from tests.services import quick_folder


def _folders(memory: Path) -> set[Path]:
    return {path for path in memory.iterdir() if path.is_dir()}


def test_a_folder_in_memory_is_gone_afterwards(tmp_path: Path) -> None:
    with quick_folder(tmp_path / "elsewhere", memory=tmp_path, bytes_min=0) as folder:
        (folder / "home").mkdir()

        assert _folders(tmp_path) == {folder}
    assert not _folders(tmp_path)


def test_what_a_killed_run_left_goes_and_what_is_in_use_stays(tmp_path: Path) -> None:
    left = tmp_path / f"nightrate-tests-{os.getuid()}-left"
    (left / "home").mkdir(parents=True)

    with (
        quick_folder(tmp_path / "elsewhere", memory=tmp_path, bytes_min=0) as first,
        quick_folder(tmp_path / "elsewhere", memory=tmp_path, bytes_min=0) as second,
    ):
        assert _folders(tmp_path) == {first, second}


def test_without_room_in_memory_the_folder_is_elsewhere(tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    for memory, bytes_min in ((tmp_path, 2**63), (tmp_path / "missing", 0)):
        with quick_folder(elsewhere, memory=memory, bytes_min=bytes_min) as folder:
            assert folder == elsewhere
    assert not _folders(tmp_path)
