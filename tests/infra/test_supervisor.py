from __future__ import annotations

import os
import signal
import sys
import threading
from pathlib import Path

import psycopg
import pytest

from infra.embedded.folder import DataFolder, FolderLockedError, Phase, ServiceUrls
from infra.embedded.supervisor import Supervisor
from infra.launch import identify
from infra.processes import Backoff, ProcessSpec
from pipeline.domain.errors import ServiceStartError
from tests.services import connect, eventually

SETTINGS = {"fsync": "off"}
QUICK = Backoff(seconds_first=0.01, seconds_max=0.1)
SAY_WHERE = "import os, threading; print(os.environ['{}'], flush=True); threading.Event().wait()"


@pytest.fixture
def folder(tmp_path: Path) -> DataFolder:
    return DataFolder(tmp_path / "home")


def process(name: str, code: str) -> ProcessSpec:
    return ProcessSpec(name=name, command=[sys.executable, "-c", code])


def can_connect(url: str) -> bool:
    try:
        connect(url).close()
    except psycopg.OperationalError:
        return False
    return True


def test_a_block_has_servers_and_processes_and_leaves_nothing(folder: DataFolder) -> None:
    seen: list[ServiceUrls] = []
    commands = [process("scheduler", SAY_WHERE.format("NIGHTRATE_DATABASE_URL"))]
    supervisor = Supervisor(folder, commands, on_services_up=seen.append, postgres_settings=SETTINGS)

    with supervisor as urls:
        state = folder.read_state()
        pids = dict(supervisor.pids)
        log = folder.logs / "scheduler.log"
        eventually(lambda: log.read_text() == urls.database_url + "\n")

    assert seen == [urls]
    assert state is not None
    assert state.phase is Phase.READY
    assert state.urls == urls
    assert state.pids == pids
    assert set(pids) == {"postgres", "valkey", "scheduler"}
    assert [identify(pid) for pid in pids.values()] == [None, None, None]
    assert folder.read_state() is None
    assert not folder.lock.is_held()


def test_killed_servers_and_processes_come_back_where_they_were(folder: DataFolder) -> None:
    commands = [process("worker", SAY_WHERE.format("NIGHTRATE_REDIS_URL"))]
    supervisor = Supervisor(folder, commands, backoff=QUICK, postgres_settings=SETTINGS)

    with supervisor as urls:
        with connect(urls.database_url) as connection:
            connection.execute("CREATE TABLE kept AS SELECT 42 AS n")
        before = dict(supervisor.pids)
        for pid in before.values():
            os.kill(pid, signal.SIGKILL)
        eventually(
            lambda: set(supervisor.pids) == set(before) and not set(supervisor.pids.values()) & {*before.values()}
        )
        eventually(lambda: can_connect(urls.database_url))

        with connect(urls.database_url) as connection:
            assert connection.execute("SELECT n FROM kept").fetchone() == (42,)
        eventually(lambda: (state := folder.read_state()) is not None and state.pids == dict(supervisor.pids))


def test_a_given_server_is_not_started(folder: DataFolder) -> None:
    given = ServiceUrls(database_url="postgresql+psycopg://elsewhere/db", redis_url="redis://elsewhere/0")
    supervisor = Supervisor(folder, database_url=given.database_url, redis_url=given.redis_url)

    with supervisor as urls:
        assert urls == given
        assert supervisor.pids == {}


def test_only_the_missing_server_is_started(folder: DataFolder) -> None:
    supervisor = Supervisor(folder, database_url="postgresql+psycopg://elsewhere/db")

    with supervisor as urls:
        assert set(supervisor.pids) == {"valkey"}
        assert urls.redis_url.startswith("redis://:")


def test_a_failed_migration_stops_what_had_started(folder: DataFolder) -> None:
    class BrokenMigrationError(Exception):
        pass

    pids: dict[str, int] = {}

    def migrate(_urls: ServiceUrls) -> None:
        pids.update(supervisor.pids)
        raise BrokenMigrationError

    supervisor = Supervisor(folder, on_services_up=migrate, postgres_settings=SETTINGS)

    with pytest.raises(BrokenMigrationError), supervisor:
        pytest.fail("the block must not run")

    assert set(pids) == {"postgres", "valkey"}
    assert [identify(pid) for pid in pids.values()] == [None, None]
    assert not folder.lock.is_held()


def test_a_server_that_does_not_start_takes_the_other_with_it(folder: DataFolder) -> None:
    supervisor = Supervisor(folder, postgres_settings={**SETTINGS, "shared_buffers": "x"})

    with pytest.raises(ServiceStartError, match="shared_buffers"), supervisor:
        pytest.fail("the block must not run")

    assert supervisor.pids == {}
    assert folder.read_state() is None


def test_a_second_supervisor_of_a_folder_is_refused_and_harms_nothing(folder: DataFolder) -> None:
    given = "redis://elsewhere/0"
    with Supervisor(folder, database_url="postgresql://x/y", redis_url=given):
        second = Supervisor(DataFolder(folder.path), database_url="postgresql://x/y", redis_url=given)
        with pytest.raises(FolderLockedError):
            second.run_until(threading.Event())

        state = folder.read_state()
        assert state is not None
        assert state.phase is Phase.READY
