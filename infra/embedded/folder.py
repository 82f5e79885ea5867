"""The private data folder: who may read it, who holds it, and what runs in it."""

from __future__ import annotations

import fcntl
import json
import os
import pwd
import secrets
import tempfile
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Final

from infra.embedded.binaries import anyone_can_enter
from infra.launch import ProcessIdentity, RunAs
from pipeline.domain.errors import ConflictError, ServiceStartError

#: A look at the lock holds it for an instant; taking it outlasts many such looks.
_LOCK_TRIES_MAX: Final = 20
_LOCK_PAUSE_SECONDS: Final = 0.025


class Phase(StrEnum):
    """How far a supervisor has come."""

    STARTING = "starting"
    READY = "ready"
    STOPPING = "stopping"


@dataclass(frozen=True, slots=True, kw_only=True)
class Credentials:
    """Passwords of the embedded servers, made once per folder."""

    postgres_password: str
    redis_password: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceUrls:
    """Where the servers are, embedded or given from outside; passwords included."""

    database_url: str
    redis_url: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ServicesState:
    """What `services.json` says.

    Attributes:
        phase: how far the supervisor has come.
        supervisor: the process that holds the folder.
        urls: where the servers are; None until they run.
        pids: process numbers by service name, for people; nothing acts on them.
    """

    phase: Phase
    supervisor: ProcessIdentity
    urls: ServiceUrls | None = None
    pids: Mapping[str, int] = field(default_factory=dict)


class FolderLockedError(ConflictError):
    """Another supervisor holds the data folder."""

    code = "folder_locked"


class FolderLock:
    """A lock that dies with its holder, so that no stale file can ever stand for it."""

    def __init__(self, path: Path) -> None:
        """Name the lock file; nothing is locked yet."""
        self._path = path
        self._descriptor: int | None = None

    def acquire(self) -> None:
        """Take the lock.

        Raises:
            FolderLockedError: someone else has it.
        """
        assert self._descriptor is None
        descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        for _ in range(_LOCK_TRIES_MAX):
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                time.sleep(_LOCK_PAUSE_SECONDS)
            else:
                self._descriptor = descriptor
                return
        os.close(descriptor)
        raise FolderLockedError(f"another nightrate runs in {self._path.parent}")

    def release(self) -> None:
        """Give the lock back, if held."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def is_held(self) -> bool:
        """Whether anyone, we included, holds the lock now."""
        try:
            descriptor = os.open(self._path, os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:
            return False
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(descriptor)
        return False


class DataFolder:
    """A folder with everything the embedded servers keep; only its owner can read it."""

    def __init__(self, path: Path | None = None) -> None:
        """Name the folder (default: NIGHTRATE_HOME, else `~/.local/share/nightrate`); `create` makes it."""
        self.path = (path or default_folder()).absolute()
        self.lock = FolderLock(self.path / "lock")

    @property
    def logs(self) -> Path:
        """Where each server and process writes its log."""
        return self.path / "logs"

    def create(self) -> None:
        """Make the folder, private; as root, open just enough for servers that run as an ordinary user.

        Raises:
            ServiceStartError: it cannot be made, or belongs to someone else.
        """
        try:
            self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
            if self.path.stat().st_uid != os.geteuid():
                raise ServiceStartError(
                    f"{self.path} belongs to another user", hint="set NIGHTRATE_HOME to a folder of your own"
                )
            # Others may pass through but not look around; all that lies inside is closed to them.
            is_passage = server_user() is not None and anyone_can_enter(self.path.parent)
            self.path.chmod(0o711 if is_passage else 0o700)
            self.logs.mkdir(mode=0o700, exist_ok=True)
        except OSError as error:
            raise ServiceStartError(f"the data folder {self.path} cannot be made: {error}") from error

    def server_folder(self, name: str) -> Path:
        """Make and return a server's own folder, owned by the user the server runs as."""
        folder = self.path / name
        folder.mkdir(mode=0o700, exist_ok=True)
        give_to_server(folder)
        return folder

    def credentials(self) -> Credentials:
        """Return the folder's passwords; the first call makes them."""
        path = self.path / "credentials.json"
        try:
            return Credentials(**json.loads(path.read_text()))
        except FileNotFoundError:
            pass
        except (ValueError, TypeError) as error:
            raise ServiceStartError(f"{path} is damaged: {error}") from error
        # Hexadecimal: the same in a URL, in SQL and in a Valkey configuration, whatever their quoting.
        made = Credentials(postgres_password=secrets.token_hex(24), redis_password=secrets.token_hex(24))
        write_private(path, json.dumps(asdict(made)))
        return made

    def write_state(self, state: ServicesState) -> None:
        """Publish what runs here, all at once."""
        write_private(self._state_path, json.dumps(asdict(state), indent=2))

    def remove_state(self) -> None:
        """Say that nothing runs here any more."""
        self._state_path.unlink(missing_ok=True)

    def read_state(self) -> ServicesState | None:
        """Return what runs here; None when nothing does, whatever a killed supervisor left written."""
        try:
            fields = json.loads(self._state_path.read_text())
            state = ServicesState(
                phase=Phase(fields["phase"]),
                supervisor=ProcessIdentity(**fields["supervisor"]),
                urls=ServiceUrls(**fields["urls"]) if fields["urls"] else None,
                pids=fields["pids"],
            )
        except FileNotFoundError:
            return None
        except (ValueError, TypeError, KeyError) as error:
            raise ServiceStartError(f"{self._state_path} is damaged: {error}", hint="delete it") from error
        return state if state.supervisor.is_running else None

    @property
    def _state_path(self) -> Path:
        return self.path / "services.json"


def default_folder() -> Path:
    """Return NIGHTRATE_HOME, else the place the desktop standard gives to a program's data."""
    given = os.environ.get("NIGHTRATE_HOME")
    return Path(given).expanduser() if given else Path.home() / ".local" / "share" / "nightrate"


def server_user() -> RunAs | None:
    """Return the user servers run as: ourselves (None), but `nobody` for root, as Postgres refuses root."""
    if os.geteuid() != 0:
        return None
    try:
        nobody = pwd.getpwnam("nobody")
    except KeyError as error:
        raise ServiceStartError(
            "as root the servers run as the user nobody, and there is none", hint="run as an ordinary user"
        ) from error
    return RunAs(uid=nobody.pw_uid, gid=nobody.pw_gid)


def give_to_server(path: Path) -> None:
    """Make the user servers run as the owner of one file or folder."""
    user = server_user()
    if user is None:
        return
    try:
        os.chown(path, user.uid, user.gid, follow_symlinks=False)
    except OSError as error:
        raise ServiceStartError(f"{path} cannot be given to the user nobody: {error}") from error


def write_private(path: Path, text: str) -> None:
    """Write a file only we can read; a reader sees the old content or the new, never a part."""
    descriptor, draft = tempfile.mkstemp(prefix=f".{path.name}-", dir=path.parent)
    try:
        with os.fdopen(descriptor, "w") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        Path(draft).replace(path)
    except BaseException:
        Path(draft).unlink(missing_ok=True)
        raise
