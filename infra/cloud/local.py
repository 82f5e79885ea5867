"""Workers as processes of this machine, which outlive whoever started them and are found again by their records."""

from __future__ import annotations

import json
import os
import secrets
import signal
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from pydantic import BaseModel, ConfigDict, ValidationError

from infra import leash
from infra.cloud.marks import objection
from infra.launch import ProcessIdentity, identify, launch_detached, signal_process
from pipeline.domain.errors import UsageError
from pipeline.domain.ids import WorkerId
from pipeline.ports.fleet import (
    Launch,
    Launched,
    Machine,
    MachineState,
    ProviderUnavailableError,
    RefusalKind,
    Refused,
)

#: A worker that drains hands its rows back within this; then it is killed.
GRACE_SECONDS: Final = 30.0
#: How long the record of a process that ended stays, so that a late repetition of its launch starts nothing.
_KEPT: Final = timedelta(days=1)
_PREFIX: Final = "local-"


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalTerms:
    """How workers are started here.

    Attributes:
        command: starts a worker, without a shell; it ends within `grace_seconds` of a SIGTERM.
        folder: private to us; records of processes, and their logs, by worker.
        workers_max: at once; None: no limit.
        environment: what workers have beside what we have.
        working_folder: of the workers; ours, unless given.
    """

    command: tuple[str, ...]
    folder: Path
    workers_max: int | None = None
    grace_seconds: float = GRACE_SECONDS
    environment: Mapping[str, str] = field(default_factory=dict)
    working_folder: Path = field(default_factory=Path.cwd)

    def __post_init__(self) -> None:
        """Refuse terms that nothing could be started on."""
        if not self.command:
            raise UsageError("local workers need a command that starts one")


class _Record(BaseModel):
    """A process that was started for a worker."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    worker_id: WorkerId
    pid: int
    #: Boot and tick at which it started: a number that came round again is another process.
    started: str
    launched_at: datetime
    is_stopping: bool = False

    @property
    def identity(self) -> ProcessIdentity:
        """Who it is."""
        return ProcessIdentity(pid=self.pid, started=self.started)


class LocalProvider:
    """A `MachineProvider` of this machine's processes."""

    def __init__(
        self, terms: LocalTerms, *, name: str = "local", now: Callable[[], datetime] = lambda: datetime.now(UTC)
    ) -> None:
        """Start nothing yet."""
        self._terms = terms
        self._name = name
        self._now = now

    @property
    def name(self) -> str:
        """What settings and tables call it."""
        return self._name

    def start(self, launches: Sequence[Launch]) -> list[Launched | Refused]:
        """Start processes; see the port."""
        with self._folder_errors("start"):
            self._terms.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            return [self._start(each) for each in launches]

    def stop(self, provider_ids: Sequence[str]) -> None:
        """Ask processes to leave, and return at once; what has not left after its grace is killed."""
        with self._folder_errors("stop"):
            for provider_id in provider_ids:
                path = self._path(provider_id.removeprefix(_PREFIX))
                record = _read(path) if path is not None and provider_id.startswith(_PREFIX) else None
                if record is None or path is None:
                    continue
                if signal_process(record.identity, signal.SIGTERM) and not record.is_stopping:
                    _replace(path, record.model_copy(update={"is_stopping": True}))

    def machines(self) -> list[Machine]:
        """Return the processes that run, whoever started them; forgets those that ended long ago."""
        with self._folder_errors("list"):
            found = []
            for path, record in self._records():
                if record.identity.is_running:
                    found.append(_machine(record))
                elif self._now().timestamp() - path.stat().st_mtime > _KEPT.total_seconds():
                    path.unlink(missing_ok=True)
                    self._log(record.worker_id).unlink(missing_ok=True)
            return found

    def _start(self, asked: Launch) -> Launched | Refused:
        problem = objection(asked)
        path = self._path(asked.worker_id)
        if problem is not None or path is None:
            message = problem or f"{asked.worker_id!r} cannot name a file"
            return Refused(worker_id=asked.worker_id, kind=RefusalKind.REJECTED, message=message)
        record = _read(path)
        if record is None:
            limit = self._terms.workers_max
            if limit is not None and len(self.machines()) >= limit:
                message = f"this machine runs at most {limit} workers"
                return Refused(worker_id=asked.worker_id, kind=RefusalKind.QUOTA, message=message)
            record = self._run(asked, path)
        if record is None:
            message = f"{self._terms.command[0]} left at once; see {self._log(asked.worker_id)}"
            return Refused(worker_id=asked.worker_id, kind=RefusalKind.REJECTED, message=message)
        return Launched(
            worker_id=asked.worker_id, provider_id=f"{_PREFIX}{asked.worker_id}", launched_at=record.launched_at
        )

    def _run(self, asked: Launch, path: Path) -> _Record | None:
        grace = str(self._terms.grace_seconds)
        command = [
            *(sys.executable, "-I", "-S", str(Path(leash.__file__).resolve())),
            *(str(path), str(self._terms.working_folder), str(asked.ends_by.timestamp()), grace, *self._terms.command),
        ]
        environment = {**os.environ, **self._terms.environment, **asked.environment}
        pid = launch_detached(command, env=environment, log_path=self._log(asked.worker_id))
        identity = identify(pid)
        if identity is None:
            return None
        record = _Record(worker_id=asked.worker_id, pid=identity.pid, started=identity.started, launched_at=self._now())
        if _create(path, record):
            return record
        # Another process was quicker; ours sees a record that is not its own, and leaves.
        return _read(path)

    def _path(self, worker_id: str) -> Path | None:
        is_name = worker_id and not worker_id.startswith(".") and Path(worker_id).name == worker_id
        return self._terms.folder / f"{worker_id}.json" if is_name else None

    def _log(self, worker_id: WorkerId) -> Path:
        return self._terms.folder / f"{worker_id}.log"

    def _records(self) -> Iterator[tuple[Path, _Record]]:
        for path in sorted(self._terms.folder.glob("*.json")):
            record = _read(path)
            if record is not None:
                yield path, record

    def _folder_errors(self, what: str) -> _FolderErrors:
        return _FolderErrors(f"cannot {what} workers in {self._terms.folder}")


@dataclass(frozen=True, slots=True)
class _FolderErrors:
    """What the system says, as ours."""

    what: str

    def __enter__(self) -> None:
        return None

    def __exit__(self, _kind: object, error: BaseException | None, _trace: object) -> None:
        if isinstance(error, OSError):
            raise ProviderUnavailableError(f"{self.what}: {error}") from error


def _machine(record: _Record) -> Machine:
    return Machine(
        provider_id=f"{_PREFIX}{record.worker_id}",
        state=MachineState.STOPPING if record.is_stopping else MachineState.RUNNING,
        worker_id=record.worker_id,
        launched_at=record.launched_at,
    )


def _read(path: Path) -> _Record | None:
    try:
        return _Record.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        return None
    except ValidationError as error:
        raise ProviderUnavailableError(f"{path} is no record of a worker's process", hint="remove it") from error


def _create(path: Path, record: _Record) -> bool:
    """Write a record as a whole, unless there is one."""
    draft = _draft(path, record)
    try:
        os.link(draft, path)
    except FileExistsError:
        return False
    finally:
        draft.unlink()
    return True


def _replace(path: Path, record: _Record) -> None:
    with suppress(FileNotFoundError):
        _draft(path, record).replace(path)


def _draft(path: Path, record: _Record) -> Path:
    draft = path.with_name(f".{path.stem}.{secrets.token_hex(8)}")
    draft.write_text(json.dumps(record.model_dump(mode="json")))
    return draft
