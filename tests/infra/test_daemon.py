from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from infra.embedded.daemon import DownOutcome, bring_up, spawn_daemon, take_down
from infra.embedded.folder import DataFolder, Phase, ServicesState
from infra.launch import ProcessIdentity, identify
from pipeline.domain.errors import ServiceStartError
from tests.services import connect, eventually

ROOT = Path(__file__).parents[2]
BODY = str(Path(__file__).with_name("daemon_body.py"))
UP = """
import os, sys
from pathlib import Path
from infra.embedded.daemon import bring_up
from infra.embedded.folder import DataFolder
home = Path(sys.argv[1])
sys.stdin.readline()
state = bring_up(DataFolder(home), [sys.executable, sys.argv[2], str(home)], home.with_suffix(".log"))
print(state.supervisor.pid)
"""


@pytest.fixture(autouse=True)
def _importable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[DataFolder]:
    folder = DataFolder(tmp_path / "home")
    yield folder
    take_down(folder)


def up(folder: DataFolder) -> ServicesState:
    command = [sys.executable, BODY, str(folder.path)]
    return bring_up(folder, command, folder.path.with_suffix(".log"))


def test_up_and_down(folder: DataFolder) -> None:
    state = up(folder)

    assert state.phase is Phase.READY
    assert state.urls is not None
    connect(state.urls.database_url).close()
    assert os.getsid(state.supervisor.pid) != os.getsid(0)
    assert os.getsid(state.supervisor.pid) != state.supervisor.pid
    assert up(folder).supervisor == state.supervisor

    assert take_down(folder) is DownOutcome.STOPPED

    assert [identify(pid) for pid in state.pids.values()] == [None] * 3
    assert take_down(folder) is DownOutcome.NOT_RUNNING


def test_down_in_a_folder_that_never_was_is_no_error(folder: DataFolder) -> None:
    assert take_down(folder) is DownOutcome.NOT_RUNNING
    assert not folder.path.exists()


def test_of_many_ups_at_once_one_supervisor_comes_out(folder: DataFolder) -> None:
    uppers = [
        subprocess.Popen(
            [sys.executable, "-c", UP, str(folder.path), BODY], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        for _ in range(3)
    ]
    for upper in uppers:
        assert upper.stdin is not None
        upper.stdin.write("go\n")
        upper.stdin.flush()

    answers = {upper.communicate()[0].strip() for upper in uppers}

    state = folder.read_state()
    assert state is not None
    assert [upper.returncode for upper in uppers] == [0] * 3
    assert answers == {str(state.supervisor.pid)}


def test_a_killed_supervisor_leaves_no_orphans_and_no_obstacle(folder: DataFolder) -> None:
    first = up(folder)

    os.kill(first.supervisor.pid, signal.SIGKILL)
    eventually(lambda: all(identify(pid) is None for pid in first.pids.values()))

    assert take_down(folder) is DownOutcome.NOT_RUNNING
    assert up(folder).supervisor != first.supervisor


def test_a_daemon_that_dies_is_reported_with_its_log(folder: DataFolder) -> None:
    command = [sys.executable, "-c", "raise SystemExit('no such model')"]

    with pytest.raises(ServiceStartError, match="no such model"):
        spawn_daemon(command, folder.path.with_suffix(".log"), folder=folder)


def test_a_daemon_that_is_never_ready_is_given_up(folder: DataFolder) -> None:
    with pytest.raises(ServiceStartError, match="not ready after 0 s"):
        spawn_daemon([sys.executable, "-c", ""], folder.path.with_suffix(".log"), folder=folder, seconds_max=0.0)


def test_down_never_signals_a_process_that_reused_the_number(folder: DataFolder) -> None:
    folder.create()
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as bystander:
        reused = ProcessIdentity(pid=bystander.pid, started="an earlier boot:1")
        folder.write_state(ServicesState(phase=Phase.READY, supervisor=reused))

        assert take_down(folder) is DownOutcome.NOT_RUNNING
        assert bystander.poll() is None
        bystander.communicate(b"\n")
        assert bystander.returncode == 0


def test_down_never_signals_a_process_that_does_not_hold_the_folder(folder: DataFolder) -> None:
    folder.create()
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as bystander:
        identity = identify(bystander.pid)
        assert identity is not None
        folder.write_state(ServicesState(phase=Phase.READY, supervisor=identity))

        assert take_down(folder) is DownOutcome.NOT_RUNNING
        bystander.communicate(b"\n")
        assert bystander.returncode == 0
