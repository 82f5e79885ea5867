"""`doctor`: whether this machine can run Nightrate, and what to do where it cannot."""

from __future__ import annotations

from pipeline.entrypoints.cli.exits import ExitCode
from pipeline.entrypoints.cli.options import AsJson
from pipeline.entrypoints.cli.talk import print_document, print_line, say


def doctor(*, as_json: AsJson = False) -> int:
    """Check this machine and the stack; every problem comes with what to do."""
    from pipeline.config import load_settings
    from pipeline.entrypoints.cli.checks import SIGNS, Outcome, run_checks

    checks = run_checks(load_settings())
    failed = [check for check in checks if check.outcome is Outcome.FAILED]
    if as_json:
        listed = [
            {"name": check.name, "outcome": str(check.outcome), "detail": check.detail, "hint": check.hint}
            for check in checks
        ]
        print_document({"ok": not failed, "checks": listed})
        return ExitCode.FAILED if failed else ExitCode.OK
    width = max(len(check.name) for check in checks)
    for check in checks:
        print_line(f"{SIGNS[check.outcome]} {check.name.ljust(width)}  {check.detail}")
        if check.hint and check.outcome is not Outcome.OK:
            print_line(f"  {' ' * width}  {check.hint}")
    say("All that is needed is there." if not failed else f"{len(failed)} of {len(checks)} checks failed.")
    return ExitCode.FAILED if failed else ExitCode.OK
