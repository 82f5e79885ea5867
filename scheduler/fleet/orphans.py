"""Nothing runs that the database does not know, and nothing is known that does not run.

Pure: what a provider lists is compared with what the database knows, and what was seen before is handed in and out.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from pipeline.domain.ids import WorkerId
from pipeline.domain.lifecycle import WorkerState
from pipeline.ports.fleet import Machine, MachineState


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownWorker:
    """What the database knows of a worker that was asked for."""

    worker_id: WorkerId
    state: WorkerState
    #: Whom it was asked of; its machine is looked for there and nowhere else.
    provider: str
    #: None: no answer was recorded yet.
    provider_id: str | None = None
    launched_at: datetime | None = None
    #: Its last sign of life.
    heard_at: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Memory:
    """What sweeps remember from one to the next; what is lost of it costs a grace."""

    #: Since when machines were listed that do not say when they were launched.
    seen_since: Mapping[str, datetime] = field(default_factory=dict)
    #: Since when workers' machines were not listed.
    missing_since: Mapping[WorkerId, datetime] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Sweep:
    """What one comparison comes to."""

    #: Machines to stop, by their provider's ids.
    stops: tuple[str, ...]
    #: Workers to declare lost.
    lost: tuple[WorkerId, ...]
    memory: Memory


def sweep(
    machines: Sequence[Machine],
    known: Iterable[KnownWorker],
    *,
    provider: str,
    now: datetime,
    grace: timedelta,
    memory: Memory | None = None,
) -> Sweep:
    """Compare what a provider lists with what the database knows.

    A machine is stopped when its worker is unknown or has ended, or when another is its worker's machine; never
    before it is older than `grace`. A worker is lost when it was launched and not heard of for longer than `grace`, and
    its machine was not listed for as long.

    Args:
        machines: all that the provider lists; a list that could not be read to its end must not be swept.
        known: workers of all providers, read *after* the machines were listed: a worker is recorded before its
            launch, so no machine of a worker on its way is unknown. Those that ended may be left out.
        provider: who listed the machines.
        now: aware, in UTC.
        grace: longer than a launch takes to be listed and recorded.
        memory: that of the sweep before; None: this is the first.
    """
    held = memory or Memory()
    workers = {worker.worker_id: worker for worker in known if not worker.state.is_terminal}
    seen_since = {machine.provider_id: held.seen_since.get(machine.provider_id, now) for machine in machines}
    kept = _kept(machines, workers, seen_since)
    stops = tuple(
        machine.provider_id
        for machine in machines
        if machine.provider_id not in kept
        and machine.state is not MachineState.STOPPING
        and now - _since(machine, seen_since) > grace
    )
    listed = {machine.provider_id for machine in machines}
    missing_since = {
        worker.worker_id: held.missing_since.get(worker.worker_id, now)
        for worker in workers.values()
        if worker.provider == provider and worker.provider_id is not None and worker.provider_id not in listed
    }
    lost = tuple(
        worker_id for worker_id, since in missing_since.items() if _is_lost(workers[worker_id], since, now, grace)
    )
    return Sweep(stops=stops, lost=lost, memory=Memory(seen_since=seen_since, missing_since=missing_since))


def _kept(
    machines: Sequence[Machine], workers: Mapping[WorkerId, KnownWorker], seen_since: Mapping[str, datetime]
) -> set[str]:
    """Return the machines of live workers: the recorded one, or where none is recorded yet, the oldest."""
    kept = {worker.provider_id for worker in workers.values() if worker.provider_id is not None}
    awaited: dict[WorkerId, Machine] = {}
    for machine in sorted(machines, key=lambda each: (_since(each, seen_since), each.provider_id)):
        worker = workers.get(machine.worker_id) if machine.worker_id is not None else None
        if worker is not None and worker.provider_id is None:
            awaited.setdefault(worker.worker_id, machine)
    return kept | {machine.provider_id for machine in awaited.values()}


def _since(machine: Machine, seen_since: Mapping[str, datetime]) -> datetime:
    return machine.launched_at or seen_since[machine.provider_id]


def _is_lost(worker: KnownWorker, missing_since: datetime, now: datetime, grace: timedelta) -> bool:
    signs = [at for at in (worker.launched_at, worker.heard_at, missing_since) if at is not None]
    return now - max(signs) > grace
