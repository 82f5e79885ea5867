from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from infra.embedded.folder import DataFolder, FolderLockedError, Phase, ServicesState, ServiceUrls
from infra.launch import ProcessIdentity, identify
from pipeline.domain.errors import ServiceStartError

HOLD = """
import sys
from pathlib import Path
from infra.embedded.folder import DataFolder
folder = DataFolder(Path(sys.argv[1]))
folder.lock.acquire()
print("held", flush=True)
sys.stdin.read()
"""


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.fixture
def folder(tmp_path: Path) -> DataFolder:
    folder = DataFolder(tmp_path / "home")
    folder.create()
    return folder


def ourselves() -> ProcessIdentity:
    identity = identify(os.getpid())
    assert identity is not None
    return identity


def test_the_folder_follows_the_setting(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("NIGHTRATE_HOME", str(tmp_path / "given"))
    assert DataFolder().path == tmp_path / "given"

    monkeypatch.delenv("NIGHTRATE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert DataFolder().path == tmp_path / ".local/share/nightrate"


def test_nobody_else_can_look_into_the_folder(folder: DataFolder) -> None:
    folder.credentials()

    assert mode(folder.path) & 0o066 == 0
    assert mode(folder.logs) == 0o700
    assert mode(folder.path / "credentials.json") == 0o600


@pytest.mark.skipif(os.geteuid() != 0, reason="only root runs servers as another user")
def test_root_keeps_the_folder_closed_where_the_way_to_it_is_closed(tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    folder = DataFolder(tmp_path / "home")

    folder.create()

    assert mode(folder.path) == 0o700
    assert mode(tmp_path) == 0o700
    assert mode(folder.server_folder("postgres")) == 0o700
    assert folder.server_folder("postgres").stat().st_uid != 0


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder away")
def test_a_folder_of_someone_else_is_refused(tmp_path: Path) -> None:
    os.chown(tmp_path, 12345, 12345)

    with pytest.raises(ServiceStartError, match="belongs to another user"):
        DataFolder(tmp_path).create()


def test_credentials_are_made_once(folder: DataFolder) -> None:
    first = folder.credentials()

    assert DataFolder(folder.path).credentials() == first
    assert first.postgres_password != first.redis_password
    assert len(first.postgres_password) == 48


def test_damaged_credentials_are_reported_and_kept(folder: DataFolder) -> None:
    path = folder.path / "credentials.json"
    path.write_text("{")

    with pytest.raises(ServiceStartError, match="damaged"):
        folder.credentials()
    assert path.read_text() == "{"


def test_only_one_can_hold_the_folder(folder: DataFolder) -> None:
    other = DataFolder(folder.path)
    folder.lock.acquire()

    assert other.lock.is_held()
    with pytest.raises(FolderLockedError):
        other.lock.acquire()

    folder.lock.release()
    assert not other.lock.is_held()
    other.lock.acquire()
    other.lock.release()


def test_the_lock_dies_with_its_holder(folder: DataFolder) -> None:
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(folder.path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    with holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        assert folder.lock.is_held()

        holder.send_signal(signal.SIGKILL)
        holder.wait()

    assert (folder.path / "lock").exists()
    folder.lock.acquire()
    folder.lock.release()


def test_what_runs_can_be_read_back(folder: DataFolder) -> None:
    state = ServicesState(
        phase=Phase.READY,
        supervisor=ourselves(),
        urls=ServiceUrls(database_url="postgresql://x", redis_url="redis://x"),
        pids={"postgres": 7},
    )

    folder.write_state(state)

    assert folder.read_state() == state
    assert mode(folder.path / "services.json") == 0o600
    folder.remove_state()
    assert folder.read_state() is None


def test_what_a_killed_supervisor_wrote_counts_for_nothing(folder: DataFolder) -> None:
    reused = ProcessIdentity(pid=os.getpid(), started="an earlier boot:1")
    folder.write_state(ServicesState(phase=Phase.READY, supervisor=reused))

    assert folder.read_state() is None
