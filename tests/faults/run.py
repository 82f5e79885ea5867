"""A run under fire: `python -m tests.faults.run --seed 1 --rows 20000 --kills 10 --json`."""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
from pathlib import Path

from tests.faults.chaos import Report, Run, run
from tests.faults.plan import make_plan


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=1, help="decides what is killed and when")
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--kills", type=int, default=10, help="of each kind of process, at least")
    parser.add_argument("--postgres-kills", type=int, default=2)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--quiet-seconds", type=float, default=75.0, help="what the batch takes with nobody killed")
    parser.add_argument("--seconds-max", type=float, default=600.0, help="the run must have ended by itself by then")
    parser.add_argument("--keep", action="store_true", help="keep the data folder of a good run, too")
    parser.add_argument("--json", action="store_true", help="print one line of JSON")
    options = parser.parse_args(arguments)
    folder = Path(tempfile.mkdtemp(prefix="nightrate-faults-"))
    # The servers' own user has to come through to their data.
    folder.chmod(0o711)
    chaos = Run(
        seed=options.seed,
        rows=options.rows,
        plan=make_plan(options.seed, kills=options.kills, postgres_kills=options.postgres_kills),
        home=folder / "home",
        workers=options.workers,
        quiet_seconds=options.quiet_seconds,
        seconds_max=options.seconds_max,
    )
    try:
        report = run(chaos)
    except BaseException:
        sys.stderr.write(f"seed {options.seed} failed; its data is in {folder}\n")
        raise
    _tell(report, folder, indent=None if options.json else 2)
    if report.is_good and not options.keep:
        shutil.rmtree(folder)
    return 0 if report.is_good else 1


def _tell(report: Report, folder: Path, *, indent: int | None) -> None:
    document = report.as_document()
    if not report.is_good:
        document["data_folder"] = str(folder)
        sys.stderr.write(f"seed {report.seed} failed; its data is in {folder}\n")
    sys.stdout.write(json.dumps(document, indent=indent) + "\n")


if __name__ == "__main__":
    sys.exit(main())
