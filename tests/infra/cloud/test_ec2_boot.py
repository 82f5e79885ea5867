"""What a machine runs when it starts, run here with programs that only say what they were told."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from infra.cloud.ec2_boot import user_data
from infra.cloud.ec2_terms import Ec2Terms
from pipeline.domain.costs.prices import Market
from pipeline.domain.ids import WorkerId
from pipeline.ports.fleet import Launch

TERMS = Ec2Terms(
    deployment="prod",
    region="us-east-1",
    image_id="ami-1",
    subnets={"us-east-1a": "subnet-1"},
    command=("run-worker", "--name", "it's", "{environment}"),
    lifetime_seconds_max=7200,
)
NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)
#: What a launch may say that a shell could trip over.
ODD = "a 'b' \"c\" $HOME `id` \\ %s\nnightrate-worker\nend"

CURL = """#!/bin/sh
for word; do last=$word; done
case "$last" in
  */api/token) echo token ;;
  */instance-id) echo i-0123 ;;
  */nightrate:ends-by) [ -f "$PLACE/no-tags" ] || echo "$ENDS" ;;
  */nightrate:worker) [ -f "$PLACE/no-tags" ] || echo wrk_1 ;;
  *) exit 22 ;;
esac
"""
DATE = f"""#!/bin/sh
echo {int(NOW.timestamp())}
"""
SAYS = """#!/bin/sh
echo "${0##*/} $*" >>"$PLACE/said"
"""
#: Runs what it is given, as systemd would.
SYSTEMD_RUN = """#!/bin/sh
echo "systemd-run" >>"$PLACE/said"
while [ "$1" != /bin/sh ]; do shift; done
exec "$@"
"""
RUN_WORKER = """#!{python} -IS
import json, os, pathlib, sys
told = {{"argv": sys.argv[1:], "environment": dict(os.environ)}}
(pathlib.Path(os.environ["PLACE"]) / "worker").write_text(json.dumps(told))
"""


@pytest.fixture
def place(tmp_path: Path) -> Path:
    programs = {
        "date": DATE,
        "curl": CURL,
        "shutdown": SAYS,
        "systemd-run": SYSTEMD_RUN,
        "run-worker": RUN_WORKER.format(python=sys.executable),
    }
    (tmp_path / "bin").mkdir()
    for name, text in programs.items():
        (tmp_path / "bin" / name).write_text(text)
        (tmp_path / "bin" / name).chmod(0o755)
    return tmp_path


def launch(**environment: str) -> Launch:
    return Launch(
        worker_id=WorkerId("wrk_1"),
        pool="large",
        offer="aws/spot",
        market=Market.SPOT,
        ends_by=NOW + timedelta(hours=1),
        environment=environment,
    )


def boot(place: Path, script: str, *, ends_at: datetime) -> list[str]:
    """Run it; return what was said to the system."""
    environment = {
        "PATH": f"{place / 'bin'}{os.pathsep}/usr/bin{os.pathsep}/bin",
        "PLACE": str(place),
        "ENDS": str(int(ends_at.timestamp())),
    }
    shell = shutil.which("dash") or "/bin/sh"
    done = subprocess.run([shell], input=script, text=True, env=environment, capture_output=True, check=False)
    (place / "stderr").write_text(done.stderr)
    return (place / "said").read_text().splitlines()


def told(place: Path) -> dict[str, dict[str, str]]:
    import json

    return json.loads((place / "worker").read_text())


def test_a_machine_sets_its_end_before_it_starts_its_worker_and_goes_after_it(place: Path) -> None:
    said = boot(place, user_data(TERMS, launch(), root=str(place)), ends_at=NOW + timedelta(minutes=60, seconds=59))

    assert said == ["shutdown -h +120", "shutdown -h +60", "systemd-run", "shutdown -h now"]
    assert told(place)["argv"] == ["--name", "it's", "--env", "NIGHTRATE_INSTANCE_ID"]


def test_a_machine_that_starts_again_sets_its_end_again(place: Path) -> None:
    ends_at = NOW + timedelta(seconds=1)
    boot(place, user_data(TERMS, launch(), root=str(place)), ends_at=ends_at)
    (place / "said").unlink()

    again = (place / "var/lib/cloud/scripts/per-boot/nightrate-end").read_text()

    assert str(int(ends_at.timestamp())) in again
    assert boot(place, again, ends_at=ends_at) == ["shutdown -h +0"]


def test_a_worker_has_what_its_launch_says_to_the_letter(place: Path) -> None:
    asked = launch(NIGHTRATE_POOL="large", ODD=ODD, NIGHTRATE_WORKER_ID="wrk_1")

    boot(place, user_data(TERMS, asked, root=str(place)), ends_at=asked.ends_by)

    environment = told(place)["environment"]
    assert environment["ODD"] == ODD
    assert environment["NIGHTRATE_WORKER_ID"] == "wrk_1"
    assert environment["NIGHTRATE_INSTANCE_ID"] == "i-0123"
    assert (place / "run/nightrate/environment").stat().st_mode & 0o077 == 0


def test_what_is_withheld_is_not_sent_and_can_be_fetched_by_the_machine(place: Path) -> None:
    terms = replace(
        TERMS,
        withheld=frozenset({"NIGHTRATE_DATABASE_URL"}),
        boot_script="""echo "export NIGHTRATE_DATABASE_URL='fetched'" >>"$ENVIRONMENT\"""",
    )
    script = user_data(terms, launch(NIGHTRATE_DATABASE_URL="postgresql://of:secret@host/db"), root=str(place))

    boot(place, script, ends_at=NOW + timedelta(hours=1))

    assert "of:secret" not in script
    assert told(place)["environment"]["NIGHTRATE_DATABASE_URL"] == "fetched"
    assert "NIGHTRATE_DATABASE_URL" in told(place)["argv"]


def test_workers_of_the_same_settings_have_the_same_script() -> None:
    one = user_data(TERMS, launch(A="1", NIGHTRATE_WORKER_ID="wrk_1"))
    other = user_data(TERMS, replace(launch(A="1", NIGHTRATE_WORKER_ID="wrk_2"), worker_id=WorkerId("wrk_2")))

    assert one == other
    assert "wrk_1" not in one


def test_a_machine_that_does_not_know_which_worker_it_is_ends(place: Path) -> None:
    (place / "no-tags").touch()

    said = boot(place, user_data(TERMS, launch(), root=str(place)), ends_at=NOW)

    assert said == ["shutdown -h +120", "shutdown -h now"]
    assert not (place / "worker").exists()
