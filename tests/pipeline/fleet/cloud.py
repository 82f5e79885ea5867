"""A provider of machines in memory, that refuses, loses and forgets as it is told."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

from pipeline.ports.fleet import (
    Launch,
    Launched,
    Machine,
    MachineState,
    ProviderUnavailableError,
    RefusalKind,
    Refused,
)


@dataclass(slots=True)
class Cloud:
    """Starts whatever it is asked for, unless told otherwise."""

    name: str = "cloud"
    #: What it says to launches from now on; None: it starts them.
    refuses: RefusalKind | None = None
    is_away: bool = False
    #: The answer to the next start is lost on its way, though the machines run.
    loses_answer: bool = False
    asked: list[Launch] = field(default_factory=list)
    running: dict[str, Machine] = field(default_factory=dict)
    stopped: list[str] = field(default_factory=list)

    def start(self, launches: Sequence[Launch]) -> list[Launched | Refused]:
        self._answer()
        self.asked += launches
        answers = [self._start(launch) for launch in launches]
        if self.loses_answer:
            self.loses_answer = False
            raise ProviderUnavailableError("the answer was lost")
        return answers

    def _start(self, launch: Launch) -> Launched | Refused:
        if self.refuses is not None:
            return Refused(worker_id=launch.worker_id, kind=self.refuses, message="none left")
        provider_id = f"m-{launch.worker_id[-12:]}"
        launched_at = datetime.now(UTC)
        self.running.setdefault(
            provider_id,
            Machine(
                provider_id=provider_id,
                state=MachineState.RUNNING,
                worker_id=launch.worker_id,
                launched_at=launched_at,
            ),
        )
        return Launched(worker_id=launch.worker_id, provider_id=provider_id, launched_at=launched_at)

    def stop(self, provider_ids: Sequence[str]) -> None:
        self._answer()
        self.stopped += provider_ids
        for provider_id in provider_ids:
            self.running.pop(provider_id, None)

    def machines(self) -> list[Machine]:
        self._answer()
        return list(self.running.values())

    def _answer(self) -> None:
        if self.is_away:
            raise ProviderUnavailableError("nobody answers")
