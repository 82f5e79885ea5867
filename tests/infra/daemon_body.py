"""A background supervisor as `nightrate up` starts one; run as a program by the tests."""

from __future__ import annotations

import sys
from pathlib import Path

from infra.embedded.daemon import stop_on_signals
from infra.embedded.folder import DataFolder
from infra.embedded.postgres import NOT_DURABLE
from infra.embedded.supervisor import Supervisor
from infra.processes import ProcessSpec

WAIT = "import threading; threading.Event().wait()"

if __name__ == "__main__":
    commands = [ProcessSpec(name="worker", command=[sys.executable, "-c", WAIT])]
    folder = DataFolder(Path(sys.argv[1]))
    Supervisor(folder, commands, postgres_settings=NOT_DURABLE).run_until(stop_on_signals())
