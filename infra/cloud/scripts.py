"""Machines of any other kind, by commands: one that starts, one that stops, and one that lists, if there is one.

What a launch says is a JSON document on the command's standard input, secrets included; nothing of it is on its command
line, which everybody on this machine can read.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from infra.cloud.marks import deployment_of, objection
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

#: Exit statuses with a meaning, of sysexits.h: what else is not 0 is for a person to look at.
EXIT_KINDS: Final[Mapping[int, RefusalKind]] = {
    os.EX_TEMPFAIL: RefusalKind.THROTTLED,
    os.EX_UNAVAILABLE: RefusalKind.CAPACITY,
    os.EX_NOPERM: RefusalKind.QUOTA,
}
_AT_ONCE: Final = 4
_MESSAGE_CHARS_MAX: Final = 1000
_NAME_CHARS_MAX: Final = 63


@dataclass(frozen=True, slots=True, kw_only=True)
class ScriptTerms:
    """The commands, each a program and its arguments, run without a shell.

    Attributes:
        deployment: told to each, so that machines of several installations are told apart.
        start: reads a launch, prints `{"provider_id": …}`; the same launch again must find the same machine.
        stop: reads `{"provider_ids": […]}`; those that are gone already are no failure.
        list: prints an array of `{"provider_id", "state", "worker_id", "launched_at"}`; None: what was started and not
            stopped is remembered in `memory` until its time is up.
        memory: a folder, needed without `list`.
        timeout_seconds: of one run; then it is killed, with its children.
        environment: what the commands have beside what we have.
    """

    deployment: str
    start: tuple[str, ...]
    stop: tuple[str, ...]
    list: tuple[str, ...] | None = None
    memory: Path | None = None
    timeout_seconds: float = 120.0
    environment: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Refuse terms that cannot work."""
        deployment_of(self.deployment)
        if not self.start or not self.stop:
            raise UsageError("machines by commands need one that starts and one that stops")
        if not self.list and self.memory is None:
            raise UsageError(
                "without a command that lists machines, what was started must be remembered", hint="name a folder"
            )


class _Answer(BaseModel):
    """What `start` prints."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    provider_id: str = Field(min_length=1, max_length=512)
    zone: str | None = None
    launched_at: datetime | None = None


class _Listed(BaseModel):
    """An entry that `list` prints."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    provider_id: str = Field(min_length=1, max_length=512)
    state: MachineState = MachineState.RUNNING
    worker_id: WorkerId | None = None
    launched_at: datetime | None = None


class _Remembered(_Answer):
    """A machine that was started, without a command that lists it."""

    worker_id: WorkerId
    ends_by: datetime


_LISTED: Final = TypeAdapter(list[_Listed])


@dataclass(frozen=True, slots=True, kw_only=True)
class _Ran:
    """How a command ended."""

    #: None: it did not in time.
    status: int | None
    stdout: bytes
    message: str


class ExecProvider:
    """A `MachineProvider` by commands."""

    def __init__(
        self, terms: ScriptTerms, *, name: str = "exec", now: Callable[[], datetime] = lambda: datetime.now(UTC)
    ) -> None:
        """Run nothing yet."""
        self._terms = terms
        self._name = name
        self._now = now

    @property
    def name(self) -> str:
        """What settings and tables call it."""
        return self._name

    def start(self, launches: Sequence[Launch]) -> list[Launched | Refused]:
        """Run the command for each launch, a few at once; see the port."""
        if not launches:
            return []
        with ThreadPoolExecutor(max_workers=min(_AT_ONCE, len(launches))) as threads:
            return list(threads.map(self._start, launches))

    def stop(self, provider_ids: Sequence[str]) -> None:
        """Run the command once for all of them."""
        if not provider_ids:
            return
        document = {"deployment": self._terms.deployment, "provider_ids": list(provider_ids)}
        self._checked(self._terms.stop, document)
        for path, held in self._memories():
            if held.provider_id in set(provider_ids):
                path.unlink(missing_ok=True)

    def machines(self) -> list[Machine]:
        """Return what the command lists, or what is remembered."""
        if not self._terms.list:
            return self._remembered()
        output = self._checked(self._terms.list, {"deployment": self._terms.deployment})
        try:
            listed = _LISTED.validate_json(output)
        except ValidationError as error:
            raise ProviderUnavailableError(f"{self._terms.list[0]} printed no list: {_first(error)}") from error
        return [
            Machine(
                provider_id=each.provider_id,
                state=each.state,
                worker_id=each.worker_id,
                launched_at=_in_utc(each.launched_at),
            )
            for each in listed
        ]

    def _start(self, launch: Launch) -> Launched | Refused:
        problem = objection(launch)
        if problem is not None:
            return Refused(worker_id=launch.worker_id, kind=RefusalKind.REJECTED, message=problem)
        try:
            ran = self._run(self._terms.start, self._document(launch))
        except OSError as error:
            message = f"{self._terms.start[0]} cannot be run: {error.strerror}"
            return Refused(worker_id=launch.worker_id, kind=RefusalKind.REJECTED, message=message)
        if ran.status is None:
            # Nobody knows what it did: the same again finds out.
            return Refused(worker_id=launch.worker_id, kind=RefusalKind.THROTTLED, message=ran.message)
        if ran.status != 0:
            kind = EXIT_KINDS.get(ran.status, RefusalKind.REJECTED)
            return Refused(worker_id=launch.worker_id, kind=kind, message=ran.message)
        try:
            answer = _Answer.model_validate_json(ran.stdout)
        except ValidationError as error:
            message = f"{self._terms.start[0]} printed no provider_id: {_first(error)}"
            return Refused(worker_id=launch.worker_id, kind=RefusalKind.REJECTED, message=message)
        launched = Launched(
            worker_id=launch.worker_id,
            provider_id=answer.provider_id,
            launched_at=_in_utc(answer.launched_at) or self._now(),
            zone=answer.zone or launch.zone,
        )
        self._remember(launch, launched)
        return launched

    def _document(self, launch: Launch) -> dict[str, object]:
        return {
            "deployment": self._terms.deployment,
            "worker_id": launch.worker_id,
            # What most systems take for a name.
            "name": launch.worker_id.lower().replace("_", "-")[:_NAME_CHARS_MAX],
            "pool": launch.pool,
            "offer": launch.offer,
            "market": launch.market,
            "instance_type": launch.instance_type,
            "region": launch.region,
            "zone": launch.zone,
            "ends_by": launch.ends_by.astimezone(UTC).isoformat(),
            "lifetime_seconds": max(60, int((launch.ends_by - self._now()).total_seconds())),
            "environment": dict(launch.environment),
        }

    def _checked(self, command: tuple[str, ...], document: Mapping[str, object]) -> bytes:
        try:
            ran = self._run(command, document)
        except OSError as error:
            raise ProviderUnavailableError(f"{command[0]} cannot be run: {error.strerror}") from error
        if ran.status != 0:
            raise ProviderUnavailableError(f"{command[0]} failed: {ran.message}")
        return ran.stdout

    def _run(self, command: tuple[str, ...], document: Mapping[str, object]) -> _Ran:
        child = subprocess.Popen(  # noqa: S603 - a list, no shell; the settings chose the program
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={**os.environ, **self._terms.environment},
            start_new_session=True,
        )
        with child:
            try:
                stdout, stderr = child.communicate(json.dumps(document).encode(), self._terms.timeout_seconds)
            except subprocess.TimeoutExpired:
                os.killpg(child.pid, signal.SIGKILL)
                child.communicate()
                message = f"{command[0]} did not end within {self._terms.timeout_seconds:g} s"
                return _Ran(status=None, stdout=b"", message=message)
        message = stderr.decode(errors="replace").strip()[-_MESSAGE_CHARS_MAX:]
        return _Ran(
            status=child.returncode, stdout=stdout, message=message or f"{command[0]} ended with {child.returncode}"
        )

    def _remember(self, launch: Launch, launched: Launched) -> None:
        folder = self._terms.memory
        if self._terms.list or folder is None:
            return
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        held = _Remembered(
            provider_id=launched.provider_id,
            zone=launched.zone,
            launched_at=launched.launched_at,
            worker_id=launch.worker_id,
            ends_by=launch.ends_by,
        )
        draft = folder / f".{launch.worker_id}.{os.getpid()}"
        draft.write_text(held.model_dump_json())
        draft.replace(folder / f"{launch.worker_id}.json")

    def _memories(self) -> list[tuple[Path, _Remembered]]:
        if self._terms.list or self._terms.memory is None:
            return []
        return [
            (path, _Remembered.model_validate_json(path.read_bytes()))
            for path in sorted(self._terms.memory.glob("*.json"))
        ]

    def _remembered(self) -> list[Machine]:
        found = []
        for path, held in self._memories():
            if held.ends_by <= self._now():
                path.unlink(missing_ok=True)
                continue
            found.append(
                Machine(
                    provider_id=held.provider_id,
                    state=MachineState.RUNNING,
                    worker_id=held.worker_id,
                    launched_at=held.launched_at,
                )
            )
        return found


def _first(error: ValidationError) -> str:
    problem = error.errors()[0]
    where = ".".join(str(step) for step in problem["loc"])
    return f"{where}: {problem['msg']}" if where else problem["msg"]


def _in_utc(at: datetime | None) -> datetime | None:
    if at is None:
        return None
    return at.replace(tzinfo=UTC) if at.tzinfo is None else at.astimezone(UTC)
