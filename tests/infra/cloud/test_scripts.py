"""Machines by commands: what they are told, what their ends mean, and the examples, run with clouds that are not there."""

from __future__ import annotations

import json
import os
import sys
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psutil
import pytest

from infra.cloud.scripts import ExecProvider, ScriptTerms
from pipeline.domain.costs.prices import Market
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
from tests.services import eventually

EXAMPLES = Path(__file__).resolve().parents[3] / "examples" / "fleet"
NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)


def python(code: str) -> tuple[str, ...]:
    return (sys.executable, "-I", "-S", "-c", code)


def launch(number: int = 1, **changes: object) -> Launch:
    base = Launch(
        worker_id=WorkerId(f"wrk_{number:032x}"),
        pool="large",
        offer="gcp/spot",
        market=Market.SPOT,
        ends_by=NOW + timedelta(hours=1),
        instance_type="a2-highgpu-1g",
        region="us-central1",
        zone="us-central1-a",
        environment={"NIGHTRATE_DATABASE_URL": "postgresql://of:se'cret@host/db"},
    )
    return replace(base, **changes)  # type: ignore[arg-type]


def provider(start: str = "", stop: str = "", listing: str | None = "print('[]')", **changes: object) -> ExecProvider:
    terms = ScriptTerms(
        deployment="prod",
        start=python(start),
        stop=python(stop),
        list=None if listing is None else python(listing),
        **changes,  # type: ignore[arg-type]
    )
    return ExecProvider(terms, now=lambda: NOW)


def refused(answers: list[Launched | Refused]) -> Refused:
    (answer,) = answers
    assert isinstance(answer, Refused), answer
    return answer


def test_a_launch_is_told_on_standard_input(tmp_path: Path) -> None:
    told = tmp_path / "told"
    code = f"import sys; open({str(told)!r}, 'w').write(sys.stdin.read()); print('{{\"provider_id\": \"m-1\"}}')"

    answers = provider(code).start([launch()])

    assert answers == [Launched(worker_id=launch().worker_id, provider_id="m-1", launched_at=NOW, zone="us-central1-a")]
    assert json.loads(told.read_text()) == {
        "deployment": "prod",
        "worker_id": launch().worker_id,
        "name": f"wrk-{1:032x}",
        "pool": "large",
        "offer": "gcp/spot",
        "market": "spot",
        "instance_type": "a2-highgpu-1g",
        "region": "us-central1",
        "zone": "us-central1-a",
        "ends_by": "2026-11-22T13:00:00+00:00",
        "lifetime_seconds": 3600,
        "environment": {"NIGHTRATE_DATABASE_URL": "postgresql://of:se'cret@host/db"},
    }


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (75, RefusalKind.THROTTLED),
        (69, RefusalKind.CAPACITY),
        (77, RefusalKind.QUOTA),
        (1, RefusalKind.REJECTED),
        (127, RefusalKind.REJECTED),
    ],
)
def test_an_exit_status_says_why_there_is_no_machine(status: int, kind: RefusalKind) -> None:
    answer = refused(provider(f"import sys; sys.stderr.write('none left\\n'); sys.exit({status})").start([launch()]))

    assert (answer.kind, answer.message) == (kind, "none left")


def test_answers_come_in_the_order_of_the_launches() -> None:
    code = (
        "import json, sys; told = json.load(sys.stdin); number = int(told['worker_id'][-1]);"
        "sys.exit(69) if number % 2 else print(json.dumps({'provider_id': told['name']}))"
    )

    answers = provider(code).start([launch(number) for number in range(6)])

    assert [answer.worker_id for answer in answers] == [launch(number).worker_id for number in range(6)]
    assert [isinstance(answer, Launched) for answer in answers] == [True, False] * 3


def test_what_is_no_answer_is_rejected() -> None:
    assert "printed no provider_id" in refused(provider("print('done')").start([launch()])).message
    assert "provider_id" in refused(provider("print('{}')").start([launch()])).message
    terms = ScriptTerms(deployment="prod", start=("/no/such/program",), stop=("/none",), list=("/none",))
    missing = refused(ExecProvider(terms).start([launch()]))
    assert (missing.kind, "cannot be run" in missing.message) == (RefusalKind.REJECTED, True)


def test_a_command_that_hangs_is_killed_with_its_children(tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    hanging = ("/bin/sh", "-c", f"sleep 600 & echo $! >{pids}; wait")
    terms = ScriptTerms(deployment="prod", start=hanging, stop=hanging, list=hanging, timeout_seconds=1.0)

    answer = refused(ExecProvider(terms).start([launch()]))

    assert answer.kind is RefusalKind.THROTTLED
    assert "did not end within 1 s" in answer.message
    pid = int(pids.read_text())
    eventually(lambda: not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE)


def test_machines_are_stopped_by_one_run(tmp_path: Path) -> None:
    told = tmp_path / "told"
    stopping = provider(stop=f"import sys; open({str(told)!r}, 'a').write(sys.stdin.read())")

    stopping.stop(["m-1", "m-2"])
    stopping.stop([])

    assert json.loads(told.read_text()) == {"deployment": "prod", "provider_ids": ["m-1", "m-2"]}
    with pytest.raises(ProviderUnavailableError, match="failed: not today"):
        provider(stop="import sys; sys.exit('not today')").stop(["m-1"])


def test_machines_are_listed() -> None:
    entries = [
        {"provider_id": "m-1", "state": "pending", "worker_id": "wrk_1", "launched_at": "2026-11-22T12:00:00+00:00"},
        {"provider_id": "m-2"},
    ]

    assert provider(listing=f"print({json.dumps(entries)!r})").machines() == [
        Machine(provider_id="m-1", state=MachineState.PENDING, worker_id=WorkerId("wrk_1"), launched_at=NOW),
        Machine(provider_id="m-2", state=MachineState.RUNNING, worker_id=None),
    ]
    with pytest.raises(ProviderUnavailableError, match="printed no list"):
        provider(listing="print('none')").machines()


def test_without_a_command_that_lists_what_was_started_is_remembered_until_its_time_is_up(tmp_path: Path) -> None:
    code = "import json, sys; print(json.dumps({'provider_id': json.load(sys.stdin)['name']}))"
    two = provider(code, "", None, memory=tmp_path / "memory")
    two.start([launch(1), launch(2), launch(3, ends_by=NOW - timedelta(seconds=1))])

    assert [machine.worker_id for machine in two.machines()] == [launch(1).worker_id, launch(2).worker_id]
    two.stop([f"wrk-{1:032x}"])
    assert [machine.worker_id for machine in two.machines()] == [launch(2).worker_id]
    assert "cret" not in "".join(path.read_text() for path in (tmp_path / "memory").iterdir())


def test_terms_that_cannot_work_are_refused() -> None:
    with pytest.raises(UsageError, match="one that starts and one that stops"):
        ScriptTerms(deployment="prod", start=(), stop=("x",), list=("x",))
    with pytest.raises(UsageError, match="must be remembered"):
        ScriptTerms(deployment="prod", start=("x",), stop=("x",))


# --- the examples ---------------------------------------------------------------------------------

#: A program that says what it was told, and what its reply file says.
FAKE = """#!{python}
import json, os, pathlib, sys
place = pathlib.Path({place!r})
name = pathlib.Path(sys.argv[0]).name
files = {{}}
for word in sys.argv:
    if word.startswith("--metadata-from-file="):
        for pair in word.partition("=")[2].split(","):
            key, _, path = pair.partition("=")
            files[key] = pathlib.Path(path).read_text()
asked = {{
    "argv": [name, *sys.argv[1:]],
    "stdin": "" if name in ("gcloud", "squeue", "scancel") else sys.stdin.read(),
    "files": files,
    "database": os.environ.get("NIGHTRATE_DATABASE_URL"),
}}
with open(place / "asked", "a") as log:
    log.write(json.dumps(asked) + chr(10))
replies = json.loads((place / "replies").read_text())
for words, status, output in replies:
    if all(word in asked["argv"] for word in words):
        (sys.stderr if status else sys.stdout).write(output)
        sys.exit(0 if status < 0 else status)
sys.exit("nobody expected " + " ".join(asked["argv"]))
"""


class Cloud:
    """Programs on the path that stand for a cloud."""

    def __init__(self, place: Path) -> None:
        self.place = place
        (place / "bin").mkdir()
        for name in ("gcloud", "sbatch", "scancel", "squeue"):
            program = place / "bin" / name
            program.write_text(FAKE.format(python=f"{sys.executable} -IS", place=str(place)))
            program.chmod(0o755)

    def replies(self, *replies: tuple[list[str], int, str]) -> None:
        (self.place / "replies").write_text(json.dumps(replies))
        (self.place / "asked").write_text("")

    def asked(self) -> list[dict[str, object]]:
        return [json.loads(line) for line in (self.place / "asked").read_text().splitlines()]

    def provider(self, family: str) -> ExecProvider:
        # The example's own interpreter is found on the path, too.
        path = os.pathsep.join([str(self.place / "bin"), str(Path(sys.executable).parent), os.environ["PATH"]])
        terms = ScriptTerms(
            deployment="prod",
            start=(str(EXAMPLES / f"{family}-start"),),
            stop=(str(EXAMPLES / f"{family}-stop"),),
            list=(str(EXAMPLES / f"{family}-list"),),
            environment={
                "PATH": path,
                "NIGHTRATE_GCP_PROJECT": "night",
                "NIGHTRATE_GCP_IMAGE_FAMILY": "worker",
                "NIGHTRATE_GCP_SERVICE_ACCOUNT": "worker@night",
                "NIGHTRATE_SLURM_COMMAND": "nightrate worker",
                "NIGHTRATE_SLURM_OPTIONS": "--gres=gpu:1",
            },
        )
        return ExecProvider(terms, now=lambda: NOW)


@pytest.fixture
def cloud(tmp_path: Path) -> Cloud:
    return Cloud(tmp_path)


MADE = json.dumps([{"name": f"wrk-{1:032x}", "creationTimestamp": "2026-11-22T04:00:00.000-08:00"}])


def test_a_second_cloud_starts_a_spot_machine_that_ends_by_itself(cloud: Cloud) -> None:
    cloud.replies((["create"], 0, MADE))

    (answer,) = cloud.provider("gcloud").start([launch()])

    assert answer == Launched(
        worker_id=launch().worker_id,
        provider_id=f"us-central1-a/wrk-{1:032x}",
        launched_at=NOW,
        zone="us-central1-a",
    )
    (asked,) = cloud.asked()
    argv = asked["argv"]
    assert isinstance(argv, list)
    assert {"--provisioning-model=SPOT", "--max-run-duration=3600s", "--instance-termination-action=DELETE"} <= set(
        argv
    )
    assert not [word for word in argv if "cret" in word]
    assert isinstance(asked["files"], dict)
    assert asked["files"]["nightrate-environment"].startswith("export NIGHTRATE_DATABASE_URL='postgresql://of:se'")


def test_a_second_cloud_knows_a_machine_that_it_started_before(cloud: Cloud) -> None:
    one = json.dumps(json.loads(MADE)[0])
    cloud.replies((["create"], 1, "The resource already exists"), (["describe"], 0, one))

    (answer,) = cloud.provider("gcloud").start([launch()])

    assert isinstance(answer, Launched)


@pytest.mark.parametrize(
    ("message", "kind"),
    [
        ("code: ZONE_RESOURCE_POOL_EXHAUSTED_WITH_DETAILS", RefusalKind.CAPACITY),
        ("Quota 'PREEMPTIBLE_NVIDIA_A100_GPUS' exceeded", RefusalKind.QUOTA),
        ("HTTPError 503: backend error", RefusalKind.THROTTLED),
        ("Required 'compute.instances.create' permission", RefusalKind.REJECTED),
    ],
)
def test_a_second_cloud_says_why_it_has_no_machine(cloud: Cloud, message: str, kind: RefusalKind) -> None:
    cloud.replies((["create"], 1, message))

    assert refused(cloud.provider("gcloud").start([launch()])).kind is kind


def test_a_second_cloud_lists_and_deletes(cloud: Cloud) -> None:
    entry = {
        "name": "wrk-1",
        "zone": "https://www.googleapis.com/compute/v1/projects/night/zones/us-central1-a",
        "status": "STAGING",
        "labels": {"nightrate-worker": "wrk_1"},
        "creationTimestamp": "2026-11-22T04:00:00.000-08:00",
    }
    cloud.replies(
        (["list"], 0, json.dumps([entry])), (["gone"], 1, "The resource 'gone' was not found"), (["delete"], 0, "")
    )
    provider = cloud.provider("gcloud")

    assert provider.machines() == [
        Machine(
            provider_id="us-central1-a/wrk-1", state=MachineState.PENDING, worker_id=WorkerId("wrk_1"), launched_at=NOW
        )
    ]
    provider.stop(["us-central1-a/gone", "us-central1-a/wrk-1"])

    assert len(cloud.asked()) == 3


def test_half_a_list_is_no_list(cloud: Cloud) -> None:
    cloud.replies((["list"], -1, "WARNING: Some requests did not succeed: us-central1-b"))

    with pytest.raises(ProviderUnavailableError, match="did not succeed"):
        cloud.provider("gcloud").machines()


def test_slurm_gets_a_job_with_the_workers_settings_in_its_environment(cloud: Cloud) -> None:
    cloud.replies((["squeue"], 0, ""), (["sbatch"], 0, "4711;cluster\n"))

    (answer,) = cloud.provider("slurm").start([launch(region=None, instance_type="gpu")])

    assert isinstance(answer, Launched)
    assert answer.provider_id == "4711"
    asked = cloud.asked()[1]
    argv = asked["argv"]
    assert isinstance(argv, list)
    assert {"--time=60", "--partition=gpu", "--gres=gpu:1", "--no-requeue"} <= set(argv)
    assert asked["database"] == "postgresql://of:se'cret@host/db"
    assert asked["stdin"] == "#!/bin/sh\nexec srun nightrate worker\n"
    assert not [word for word in argv if "cret" in word]


def test_slurm_is_not_given_the_same_job_twice(cloud: Cloud) -> None:
    cloud.replies((["squeue"], 0, "4711\n"))

    (answer,) = cloud.provider("slurm").start([launch()])

    assert isinstance(answer, Launched)
    assert len(cloud.asked()) == 1


def test_slurm_says_why_it_takes_no_job(cloud: Cloud) -> None:
    cloud.replies((["squeue"], 0, ""), (["sbatch"], 1, "Job violates accounting/QOS policy"))
    assert refused(cloud.provider("slurm").start([launch()])).kind is RefusalKind.QUOTA
    cloud.replies((["squeue"], 1, "slurm_load_jobs error: Unable to contact slurm controller"))
    assert refused(cloud.provider("slurm").start([launch()])).kind is RefusalKind.THROTTLED


def test_slurms_jobs_are_listed_and_cancelled(cloud: Cloud) -> None:
    jobs = "1 PENDING nightrate.prod.wrk_1\n2 RUNNING nightrate.other.wrk_2\n3 RUNNING somebody's\n"
    cloud.replies((["squeue"], 0, jobs), (["scancel", "9"], 1, "Invalid job id 9"), (["scancel"], 0, ""))
    provider = cloud.provider("slurm")

    assert provider.machines() == [Machine(provider_id="1", state=MachineState.PENDING, worker_id=WorkerId("wrk_1"))]
    provider.stop(["9", "1"])

    assert len(cloud.asked()) == 3
