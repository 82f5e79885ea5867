"""The strikes: each fault of a plan, done to a stand, with what must be seen right then."""

from __future__ import annotations

import json
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import redis
from sqlalchemy import TextClause, text

from pipeline.domain.errors import LeaseLostError
from pipeline.domain.ids import BatchId, PackId, WorkerId, new_part_id
from pipeline.domain.lifecycle import AttemptOutcome
from pipeline.ports.packs import PartDraft, ShardRows, WorkCommit
from storage.packs import PackRepository
from tests.faults.entry import DIE_AT
from tests.faults.inputs import SIDE_ROWS, write_input
from tests.faults.plan import Event, Fault
from tests.faults.stand import Stand, command_of, strike, within

#: How long a victim may take to come to work, and a consequence to show.
_SETTLE_SECONDS = 20.0
_SUBMIT_SECONDS = 90.0
_COMMITTED_SECONDS = 0.5
_Seen = TypeVar("_Seen")

_HELD = text("""
    SELECT packs.id AS pack_id, lease_token, packs.failures, workers.pid, workers.id AS worker_id,
           (SELECT sum(upper(one) - lower(one)) FROM pack_slices, unnest(pack_slices.rows) AS one
             WHERE pack_slices.pack_id = packs.id)
           - coalesce((SELECT sum(rows_succeeded + rows_errored) FROM parts WHERE parts.pack_id = packs.id), 0)
           AS rows_left
      FROM packs JOIN workers ON workers.id = packs.lease_worker_id
     WHERE packs.state = 'leased' AND lease_expires_at > clock_timestamp()
     ORDER BY leased_at DESC
""")
_PACK = text("""
    SELECT packs.state, lease_token, workers.pid FROM packs LEFT JOIN workers ON workers.id = lease_worker_id
     WHERE packs.id = :pack_id
""")


@dataclass(frozen=True, slots=True)
class Held:
    """A pack and the live worker that holds it."""

    pack_id: str
    lease_token: int
    pid: int
    worker_id: str
    failures: int
    rows_left: int


@dataclass(kw_only=True)
class Striker:
    """Strikes, and counts what it did and saw."""

    stand: Stand
    lease_seconds: float
    seed: int
    #: Back to this after a strike that needed the engines to wait.
    pace_seconds: float
    kills: Counter[str] = field(default_factory=Counter)
    sometimes: Counter[str] = field(default_factory=Counter)
    problems: list[str] = field(default_factory=list)
    #: Small batches submitted during the run: their ids, and their custom ids in order.
    side_batches: dict[str, list[str]] = field(default_factory=dict)
    #: Keys of batches whose submitter never came back: the scheduler has to take them in.
    orphans: dict[str, list[str]] = field(default_factory=dict)

    def strike(self, event: Event) -> None:
        match event.fault:
            case Fault.WORKER:
                self._kill_worker(event)
            case Fault.SCHEDULER:
                self._kill_scheduler(event)
            case Fault.REDIS | Fault.REDIS_FLUSHED:
                self._kill_redis(is_flushed=event.fault is Fault.REDIS_FLUSHED)
            case Fault.POSTGRES:
                self._kill("postgres")
            case Fault.SUBMITTER:
                self._kill_side_submitter(event)
            case Fault.WORKER_PAUSED:
                self._pause_worker(event)
            case Fault.WORKER_TWICE:
                self._kill_two_holders()

    def submit(self, source: Path, key: str, *, points: tuple[str, ...]) -> str:
        """Submit a file, dying at each point in turn before getting through; return the batch's id."""
        for point in points:
            self._die_submitting(source, key, point)
        done = self._run_submitter(source, key, "")
        if done.returncode != 0:
            raise AssertionError(f"the submitter failed: {done.stderr[-2000:]}")
        answer = json.loads(done.stdout)
        self.sometimes["resubmits"] += bool(answer["was_there"])
        return str(answer["batch_id"])

    # --- one each ------------------------------------------------------------------------------

    def _kill(self, name: str) -> None:
        for _ in within(_SETTLE_SECONDS):
            pid = self.stand.pid(name)
            if pid is not None and strike(pid):
                self.kills[name.partition("-")[0]] += 1
                return
        self.problems.append(f"{name} did not come back to be killed")

    def _kill_worker(self, event: Event) -> None:
        names = self.stand.worker_names()
        name = names[event.choice % len(names)]
        if event.is_settled:
            self._await(lambda: any(held.pid == self.stand.pid(name) for held in self._held()))
        self._kill(name)

    def _kill_scheduler(self, event: Event) -> None:
        if event.is_settled:
            self._await(lambda: self._leader_pid() == self.stand.pid("scheduler"))
        self._kill("scheduler")

    def _kill_redis(self, *, is_flushed: bool) -> None:
        if is_flushed:
            client = redis.Redis.from_url(self.stand.urls.redis_url, socket_timeout=5, socket_connect_timeout=2)
            try:
                self._await(lambda: _answers(client))
                client.flushall()
                self.sometimes["redis_flushes"] += 1
            except redis.RedisError as error:
                self.problems.append(f"Redis could not be flushed: {error}")
            finally:
                client.close()
        self._kill("valkey")

    def _kill_side_submitter(self, event: Event) -> None:
        number = len(self.side_batches) + len(self.orphans)
        key = f"side-{number}"
        source = self.stand.home / f"{key}.jsonl"
        custom_ids = write_input(source, rows=SIDE_ROWS, seed=self.seed + number, prefix=key)
        is_recorded = event.point in {"submitted", "put:2", "put:3"}
        if is_recorded and event.choice % 2:
            self._die_submitting(source, key, event.point)
            self.orphans[key] = custom_ids
        else:
            self.side_batches[self.submit(source, key, points=(event.point,))] = custom_ids

    def _pause_worker(self, event: Event) -> None:
        """Stop a worker until its lease is another's, try its token, and let it go on."""
        victims = self._await(self._held)
        if not victims:
            self.problems.append("no worker held a pack to be paused with")
            return
        victim = victims[event.choice % len(victims)]
        if not strike(victim.pid, signal.SIGSTOP):
            return
        try:
            has_moved = self._await(lambda: self._has_moved(victim), seconds=4 * self.lease_seconds + _SETTLE_SECONDS)
            if not has_moved:
                self.problems.append(f"the lease of stopped worker {victim.worker_id} was not rescued")
            self.sometimes["worker_paused_past_its_lease"] += bool(has_moved)
            self._commit_late(victim)
        finally:
            strike(victim.pid, signal.SIGCONT)

    def _kill_two_holders(self) -> None:
        """Kill the holder of a pack, and then the holder of one that has failed before: its second failure bisects it."""
        self._hold_all()
        try:
            victims = self._await(lambda: [held for held in self._held() if held.rows_left > 1])
            if not victims:
                self.problems.append("no pack of several rows was held")
                return
            self.kills["worker"] += strike(victims[0].pid)
            # A pack that has failed is leased by a worker that holds no other, so they must go on until one does.
            self.stand.set_pace(self.pace_seconds)
            again = self._await(self._hold_failed, seconds=4 * self.lease_seconds + _SETTLE_SECONDS)
            if not again:
                self.problems.append("no pack of the dead worker was leased again")
                return
            self.kills["worker"] += strike(again[0].pid)
            pack_id = again[0].pack_id
            if not self._await(lambda: self._state_of(pack_id) == "discarded", seconds=4 * self.lease_seconds + 10):
                self.problems.append(f"{pack_id} was not bisected after two deaths")
        finally:
            self.stand.set_pace(self.pace_seconds)

    def _hold_all(self) -> None:
        self.stand.set_pace(None)
        # What was under way when the order to wait came is finished and committed first.
        time.sleep(self.pace_seconds + _COMMITTED_SECONDS)

    def _hold_failed(self) -> list[Held]:
        """Stop them all over a pack of several rows that has failed before, or return nothing while none is held."""

        def failed() -> list[Held]:
            return [held for held in self._held() if held.failures > 0 and held.rows_left > 1]

        if not failed():
            return []
        self._hold_all()
        found = failed()
        if not found:
            self.stand.set_pace(self.pace_seconds)
        return found

    # --- looking -------------------------------------------------------------------------------

    def _held(self) -> list[Held]:
        live = {self.stand.pid(name) for name in self.stand.worker_names()}
        return [held for row in self._rows(_HELD) if (held := Held(**row)).pid in live]

    def _has_moved(self, held: Held) -> bool:
        (now,) = self._rows(_PACK, {"pack_id": held.pack_id})
        return bool(now["state"] != "leased" or now["lease_token"] != held.lease_token)

    def _state_of(self, pack_id: str) -> str:
        return str(self._rows(_PACK, {"pack_id": pack_id})[0]["state"])

    def _leader_pid(self) -> int | None:
        rows = self._rows(text("SELECT holder FROM leadership"))
        return int(str(rows[0]["holder"]).rpartition(":")[2]) if rows else None

    def _rows(self, statement: TextClause, arguments: Mapping[str, object] | None = None) -> list[dict[str, Any]]:
        return self.stand.stack.database.run(
            lambda connection: [dict(row._mapping) for row in connection.execute(statement, dict(arguments or {}))]
        )

    @staticmethod
    def _await(condition: Callable[[], _Seen], *, seconds: float = _SETTLE_SECONDS) -> _Seen:
        """Return what `condition` sees once that is something, or what it saw last."""
        seen = condition()
        for _ in within(seconds):
            seen = condition()
            if seen:
                break
        return seen

    # --- acting --------------------------------------------------------------------------------

    def _commit_late(self, held: Held) -> None:
        """Try to commit and to finish with the token of a lease that is over: both must be refused."""
        packs = PackRepository(self.stand.stack.database, lease_for=self.stand.lease_for)
        slices = text("SELECT batch_id, shard_id, lower(rows) AS row FROM pack_slices WHERE pack_id = :id LIMIT 1")
        found = self._rows(slices, {"id": held.pack_id})
        if found:
            row = found[0]["row"]
            part = PartDraft(
                part_id=new_part_id(),
                batch_id=BatchId(str(found[0]["batch_id"])),
                object_key=f"late/{held.pack_id}",
                sha256="0" * 64,
                size_bytes=1,
                shards=(
                    ShardRows(
                        shard_id=found[0]["shard_id"], ranges=((row, row + 1),), rows_succeeded=1, rows_errored=0
                    ),
                ),
                input_tokens=1,
                output_tokens=1,
            )
            late = WorkCommit(pack_id=PackId(held.pack_id), lease_token=held.lease_token, parts=(part,), interval=None)
            self._must_be_refused(lambda: packs.commit(WorkerId(held.worker_id), late), "commit")
        pack_id = PackId(held.pack_id)
        self._must_be_refused(lambda: packs.finish(pack_id, held.lease_token, AttemptOutcome.SUCCEEDED), "finish")

    def _must_be_refused(self, late: Callable[[], object], what: str) -> None:
        try:
            late()
        except LeaseLostError:
            self.sometimes["late_commits_refused"] += 1
        else:
            self.problems.append(f"a late {what} was accepted")

    def _die_submitting(self, source: Path, key: str, point: str) -> None:
        done = self._run_submitter(source, key, point)
        if done.returncode == -signal.SIGKILL:
            self.kills["submitter"] += 1
        else:
            self.problems.append(f"the submitter did not die at {point}: {done.returncode} {done.stderr[-500:]}")

    def _run_submitter(self, source: Path, key: str, point: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command_of("submit", str(source), key),
            env={**self.stand.env, DIE_AT: point},
            capture_output=True,
            text=True,
            timeout=_SUBMIT_SECONDS,
            check=False,
        )


def _answers(client: redis.Redis) -> bool:
    try:
        return bool(client.ping())
    except redis.RedisError:
        return False
