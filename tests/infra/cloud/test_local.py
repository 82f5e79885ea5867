"""Workers as processes here: started once, found again, gone when they should be."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psutil
import pytest

from infra.cloud.local import LocalProvider, LocalTerms
from pipeline.domain.costs.prices import Market
from pipeline.domain.errors import UsageError
from pipeline.domain.ids import WorkerId
from pipeline.ports.fleet import Launch, Launched, MachineState, ProviderUnavailableError, RefusalKind, Refused
from tests.services import eventually

#: Says that it is there, and what it was given; leaves when asked to.
WORKER = """
import os, pathlib, signal, sys, time
place = pathlib.Path(os.environ["PLACE"])
signal.signal(signal.SIGTERM, lambda *_: ((place / "asked").touch(), sys.exit(0)))
(place / f"up.{os.getpid()}").write_text(os.environ["GREETING"] + " from " + os.getcwd())
while True: time.sleep(0.05)
"""
STUBBORN = WORKER.replace("sys.exit(0)", "None")


@pytest.fixture
def terms(tmp_path: Path) -> Iterator[LocalTerms]:
    terms = LocalTerms(
        command=(sys.executable, "-I", "-c", WORKER), folder=tmp_path / "fleet", environment={"PLACE": str(tmp_path)}
    )
    yield terms
    for path in terms.folder.glob("*.json"):
        _kill(json.loads(path.read_text()).get("pid"))


def _kill(pid: int | None) -> None:
    with suppress(psutil.Error):
        process = psutil.Process(pid)
        if "leash.py" in " ".join(process.cmdline()):
            process.kill()


def launch(number: int = 1, *, seconds: float = 3600.0, **environment: str) -> Launch:
    return Launch(
        worker_id=WorkerId(f"wrk_{number:032x}"),
        pool="cpu",
        offer="local",
        market=Market.ON_DEMAND,
        ends_by=datetime.now(UTC) + timedelta(seconds=seconds),
        environment={"GREETING": "good morning", **environment},
    )


def ups(terms: LocalTerms) -> list[Path]:
    return list(Path(terms.environment["PLACE"]).glob("up.*"))


def up(terms: LocalTerms, count: int = 1) -> None:
    eventually(lambda: len(ups(terms)) == count)


def test_a_worker_runs_with_what_its_launch_says(terms: LocalTerms) -> None:
    provider = LocalProvider(terms)

    (answer,) = provider.start([launch()])

    assert isinstance(answer, Launched)
    up(terms)
    eventually(lambda: ups(terms)[0].read_text() == f"good morning from {Path.cwd()}")
    (machine,) = provider.machines()
    assert (machine.provider_id, machine.worker_id) == (answer.provider_id, launch().worker_id)
    assert machine.state is MachineState.RUNNING
    assert machine.launched_at == answer.launched_at


def test_nothing_of_a_launch_is_written_down_but_who_it_is(terms: LocalTerms) -> None:
    LocalProvider(terms).start([launch(OF_THE_HOUSE="tell nobody")])
    up(terms)

    assert all("tell nobody" not in path.read_text() for path in terms.folder.iterdir())
    assert terms.folder.stat().st_mode & 0o077 == 0


def test_another_scheduler_finds_what_was_started_and_starts_none_of_it_again(terms: LocalTerms) -> None:
    first = LocalProvider(terms).start([launch(1), launch(2)])
    up(terms, 2)

    again = LocalProvider(terms).start([launch(2), launch(1)])

    assert again == [first[1], first[0]]
    assert len(LocalProvider(terms).machines()) == 2
    assert len(ups(terms)) == 2


def test_of_two_schedulers_that_start_the_same_worker_at_once_one_does(terms: LocalTerms) -> None:
    with ThreadPoolExecutor(4) as threads:
        answers = list(threads.map(lambda _: LocalProvider(terms).start([launch()]), range(4)))

    assert answers == [answers[0]] * 4
    up(terms)
    # The others have seen that they are not the one.
    eventually(lambda: _leashes(terms) == 1)
    assert len(ups(terms)) == 1


def _leashes(terms: LocalTerms) -> int:
    lines = [process.info["cmdline"] or [] for process in psutil.process_iter(["cmdline"])]
    return sum(any(str(terms.folder) in word for word in line) for line in lines)


def test_a_worker_that_is_stopped_leaves_in_its_own_time(terms: LocalTerms, tmp_path: Path) -> None:
    provider = LocalProvider(terms)
    (answer,) = provider.start([launch()])
    assert isinstance(answer, Launched)
    up(terms)

    provider.stop([answer.provider_id, "local-wrk_unknown", "local-../x", "i-0123"])
    provider.stop([answer.provider_id])

    eventually(lambda: provider.machines() == [])
    assert (tmp_path / "asked").exists()
    assert provider.start([launch()]) == [answer]
    assert provider.machines() == []


def test_a_worker_that_does_not_listen_is_killed_with_its_children_after_its_grace(
    terms: LocalTerms, tmp_path: Path
) -> None:
    child = f"import subprocess; subprocess.Popen([sys.executable, '-I', '-c', {STUBBORN!r}])\n"
    code = STUBBORN.replace("while True", f"import sys; {child}while True")
    provider = LocalProvider(replace(terms, command=(sys.executable, "-I", "-c", code), grace_seconds=0.2))
    (answer,) = provider.start([launch()])
    assert isinstance(answer, Launched)
    up(terms, 2)
    pids = [int(path.suffix[1:]) for path in ups(terms)]

    provider.stop([answer.provider_id])

    assert [machine.state for machine in provider.machines()] in ([MachineState.STOPPING], [])
    eventually(lambda: provider.machines() == [])
    eventually(lambda: all(not _runs(pid) for pid in pids))
    assert (tmp_path / "asked").exists()


def _runs(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def test_a_worker_ends_when_its_time_is_up_whoever_is_left_to_ask(terms: LocalTerms, tmp_path: Path) -> None:
    provider = LocalProvider(replace(terms, grace_seconds=0.1))

    provider.start([launch(seconds=3.0)])

    up(terms)
    eventually(lambda: provider.machines() == [])
    assert (tmp_path / "asked").exists()


def test_a_worker_goes_with_what_holds_it(terms: LocalTerms) -> None:
    provider = LocalProvider(terms)
    provider.start([launch()])
    up(terms)
    (path,) = terms.folder.glob("*.json")

    os.kill(json.loads(path.read_text())["pid"], signal.SIGKILL)

    eventually(lambda: not _runs(int(ups(terms)[0].suffix[1:])))
    assert provider.machines() == []


def test_a_process_that_has_the_number_of_ours_is_not_ours(terms: LocalTerms) -> None:
    provider = LocalProvider(terms)
    (answer,) = provider.start([launch()])
    assert isinstance(answer, Launched)
    up(terms)
    (path,) = terms.folder.glob("*.json")
    record = json.loads(path.read_text())
    path.write_text(json.dumps({**record, "started": "another boot:1"}))

    provider.stop([answer.provider_id])

    assert provider.machines() == []
    assert _runs(record["pid"])
    path.write_text(json.dumps(record))
    assert provider.machines()[0].state is MachineState.RUNNING


def test_a_process_without_a_record_starts_no_worker(terms: LocalTerms) -> None:
    terms.folder.mkdir(parents=True)
    record = terms.folder / f"{launch().worker_id}.json"
    record.write_text(json.dumps({"pid": 1}))

    from infra import leash

    assert leash.main([str(record), "/", "0", "1", *terms.command]) == leash.EXIT_UNKNOWN
    record.unlink()
    signal.signal(signal.SIGTERM, signal.SIG_DFL)


def test_more_workers_than_may_run_here_are_refused(terms: LocalTerms) -> None:
    provider = LocalProvider(replace(terms, workers_max=1))

    first, second = provider.start([launch(1), launch(2)])

    assert isinstance(first, Launched)
    assert isinstance(second, Refused)
    assert second.kind is RefusalKind.QUOTA
    assert provider.start([launch(1)]) == [first]


def test_names_that_are_no_names_are_rejected(terms: LocalTerms) -> None:
    (answer,) = LocalProvider(terms).start([replace(launch(), worker_id=WorkerId("../../etc/x"))])

    assert isinstance(answer, Refused)
    assert answer.kind is RefusalKind.REJECTED


def test_records_of_processes_that_ended_long_ago_are_forgotten(terms: LocalTerms) -> None:
    provider = LocalProvider(terms)
    (answer,) = provider.start([launch()])
    assert isinstance(answer, Launched)
    up(terms)
    provider.stop([answer.provider_id])
    eventually(lambda: provider.machines() == [])

    LocalProvider(terms, now=lambda: datetime.now(UTC) + timedelta(days=2)).machines()

    assert not list(terms.folder.iterdir())


def test_a_folder_that_cannot_be_used_is_told(terms: LocalTerms, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ProviderUnavailableError, match="cannot start workers in"):
        LocalProvider(replace(terms, folder=tmp_path / "file")).start([launch()])
    terms.folder.mkdir()
    (terms.folder / "wrk_x.json").write_text("{}")
    with pytest.raises(ProviderUnavailableError, match="no record of a worker's process"):
        LocalProvider(terms).machines()
    with pytest.raises(UsageError, match="need a command"):
        replace(terms, command=())
