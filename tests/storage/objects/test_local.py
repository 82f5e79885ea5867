"""What only the folder store promises."""

from __future__ import annotations

import errno
import hashlib
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.domain.errors import NightrateError, ObjectMissingError, StoreUnavailableError, UsageError
from storage.objects.local import LocalStore

WAIT_SECONDS_MAX = 20.0
REPOSITORY = Path(__file__).parents[3]
PUT_SCRIPT = """
import sys
from pathlib import Path
from storage.objects.local import LocalStore
LocalStore(Path(sys.argv[1])).put("batch/torn", Path(sys.argv[2]))
"""
#: Stops for good between the complete temporary file and its link.
PUT_SCRIPT_STOPPED_BEFORE_LINK = f"import os, time\nos.link = lambda *_: time.sleep(600)\n{PUT_SCRIPT}"


def test_a_put_killed_while_copying_leaves_nothing_visible(tmp_path: Path) -> None:
    # Sparse: takes no disk space, yet far more time to copy than it takes to kill.
    source = tmp_path / "source"
    source.touch()
    os.truncate(source, 8 * 1024**3)

    kill_during_put(PUT_SCRIPT, tmp_path, source, until=lambda size: size > 4 * 1024 * 1024)

    assert_nothing_visible_and_recoverable(tmp_path / "objects")


def test_a_put_killed_before_its_link_leaves_nothing_visible(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.write_bytes(b"x" * 1000)

    kill_during_put(PUT_SCRIPT_STOPPED_BEFORE_LINK, tmp_path, source, until=lambda size: size == 1000)

    assert_nothing_visible_and_recoverable(tmp_path / "objects")


def test_a_sweep_spares_the_living(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = LocalStore(tmp_path)
    swept: list[int] = []
    link = os.link

    def link_after_sweep(source: Path, target: Path) -> None:
        swept.append(LocalStore(tmp_path).sweep())
        link(source, target)

    monkeypatch.setattr(os, "link", link_after_sweep)
    store.put("key", b"content")

    assert swept == [0]
    assert store.read("key") == b"content"
    assert temporary_files(tmp_path) == []


def test_a_draft_swept_before_its_lock_is_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = LocalStore(tmp_path)
    fstat = os.fstat
    sweeps: list[Path] = []

    def fstat_after_one_sweep(descriptor: int) -> os.stat_result:
        drafts = temporary_files(tmp_path)
        if drafts and not sweeps:
            sweeps.extend(drafts)
            drafts[0].unlink()
        return fstat(descriptor)

    monkeypatch.setattr(os, "fstat", fstat_after_one_sweep)
    store.put("key", b"content")

    assert len(sweeps) == 1
    assert store.read("key") == b"content"
    assert temporary_files(tmp_path) == []


def test_the_bytes_are_on_disk_before_the_name_and_the_name_before_the_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps = recorded_steps(monkeypatch)

    LocalStore(tmp_path).put("a/b/key", b"content")

    # The folder of the object, then those in which `b` and `a` were created.
    assert steps == ["fsync file", "link", "fsync folder", "fsync folder", "fsync folder"]


def test_the_same_content_again_waits_for_the_name_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = LocalStore(tmp_path)
    store.put("a/key", b"content")
    steps = recorded_steps(monkeypatch)

    store.put("a/key", b"content")

    assert steps == ["fsync file", "link", "fsync folder"]


def test_without_fsync_nothing_waits_for_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    steps = recorded_steps(monkeypatch)

    LocalStore(tmp_path, fsync=False).put("a/b/key", b"content")

    assert steps == ["link"]


def test_without_a_recorded_hash_the_file_is_read(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    (tmp_path / "input.jsonl").write_bytes(b"put there by hand")

    described = store.head("input.jsonl")

    assert described.sha256 == hashlib.sha256(b"put there by hand").hexdigest()
    assert store.put("input.jsonl", b"put there by hand") == described


def test_a_key_cannot_be_the_parent_of_another(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    store.put("a/b", b"x")

    with pytest.raises(UsageError, match="parent of other keys"):
        store.put("a", b"x")
    with pytest.raises(UsageError, match="an object itself"):
        store.put("a/b/c/d", b"x")

    assert list(store.list("")) == ["a/b"]
    assert temporary_files(tmp_path) == []


def test_only_objects_are_listed(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    store.put("a/key", b"x")
    (tmp_path / ".hidden").touch()
    (tmp_path / "a" / "with space").touch()
    (tmp_path / "empty").mkdir()

    assert list(store.list("")) == ["a/key"]


def test_the_last_delete_removes_the_folders_but_not_the_root(tmp_path: Path) -> None:
    store = LocalStore(tmp_path / "objects")
    store.put("a/b/c", b"x")

    store.delete("a/b/c")

    assert (tmp_path / "objects").is_dir()
    assert not (tmp_path / "objects" / "a").exists()


def test_fetch_lends_the_stores_own_file(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    store.put("a/key", b"x")

    with store.fetch("a/key") as path:
        assert path == tmp_path / "a" / "key"
    assert path.exists()


def test_a_root_that_is_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    with pytest.raises(UsageError, match="not a folder"):
        LocalStore(tmp_path / "file")


@pytest.mark.parametrize(
    ("number", "expected"),
    [
        (errno.ENOSPC, StoreUnavailableError),
        (errno.EIO, StoreUnavailableError),
        (errno.EPERM, UsageError),
        (errno.EROFS, UsageError),
        (errno.EXDEV, UsageError),
    ],
)
def test_the_disks_errors_become_ours_and_leave_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, expected: type[NightrateError]
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    store = LocalStore(tmp_path)
    monkeypatch.setattr(os, "link", refuse)

    with pytest.raises(expected, match=os.strerror(number)):
        store.put("a/key", b"x")

    assert list(store.list("")) == []
    assert temporary_files(tmp_path) == []


def kill_during_put(script: str, folder: Path, source: Path, *, until: Callable[[int], bool]) -> None:
    """Run `script` in a process of its own; SIGKILL it once its temporary file's size satisfies `until`."""
    root = folder / "objects"
    process = subprocess.Popen([sys.executable, "-c", script, str(root), str(source)], cwd=REPOSITORY)
    try:
        deadline = time.monotonic() + WAIT_SECONDS_MAX
        while not any(until(path.stat().st_size) for path in temporary_files(root)):
            assert process.poll() is None, "the put ended by itself"
            assert time.monotonic() < deadline, "the put never came this far"
            time.sleep(0.002)
    finally:
        process.kill()
        process.wait()


def assert_nothing_visible_and_recoverable(root: Path) -> None:
    assert len(temporary_files(root)) == 1

    store = LocalStore(root)

    assert temporary_files(root) == []
    assert list(store.list("")) == []
    with pytest.raises(ObjectMissingError):
        store.head("batch/torn")
    store.put("batch/torn", b"whole")
    assert store.read("batch/torn") == b"whole"


def temporary_files(root: Path) -> list[Path]:
    return list((root / ".tmp").glob("*"))


def recorded_steps(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Record every `os.fsync` and `os.link` from now on, in order."""
    steps: list[str] = []
    fsync, link = os.fsync, os.link

    def recording_fsync(descriptor: int) -> None:
        is_folder = Path(f"/proc/self/fd/{descriptor}").is_dir()
        steps.append("fsync folder" if is_folder else "fsync file")
        fsync(descriptor)

    def recording_link(source: Path, target: Path) -> None:
        steps.append("link")
        link(source, target)

    monkeypatch.setattr(os, "fsync", recording_fsync)
    monkeypatch.setattr(os, "link", recording_link)
    return steps
