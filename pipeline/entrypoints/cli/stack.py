"""`up`, `down`, `status`, and the body of the daemon that `up` starts."""

from __future__ import annotations

from typing import Annotated

import typer

from pipeline.entrypoints.cli.exits import ExitCode
from pipeline.entrypoints.cli.options import AsJson, WorkersOption
from pipeline.entrypoints.cli.talk import print_document, print_facts, say


def up(
    *,
    workers: WorkersOption = None,
    foreground: Annotated[bool, typer.Option("--foreground", help="Stay, and log to stderr.")] = False,
    as_json: AsJson = False,
) -> int:
    """Start everything this machine needs, in the background; a second `up` changes nothing."""
    import os

    from infra.embedded.daemon import bring_up
    from infra.embedded.folder import DataFolder
    from pipeline.app.children import child_environment, command_of
    from pipeline.config import load_settings

    settings = load_settings()
    count = settings.workers if workers is None else workers
    if foreground:
        return supervise(workers=count)
    folder = DataFolder(settings.home_folder)
    was_up = folder.read_state() is not None
    state = bring_up(
        folder,
        command_of("supervise", "--workers", str(count)),
        folder.logs / "supervisor.log",
        env={**os.environ, **child_environment(settings, with_servers=True)},
    )
    say(f"Nightrate {'was already up' if was_up else 'is up'}; data and logs are in {folder.path}")
    if was_up and workers is not None:
        say("It keeps the workers it has; `nightrate down`, then `up --workers N`, changes them.")
    pids = dict(state.pids)
    if as_json:
        print_document({"was_up": was_up, "home": str(folder.path), "pids": pids})
    else:
        print_facts({name: f"process {pid}" for name, pid in pids.items()})
        if "api" in pids:
            say(
                f"OPENAI_BASE_URL=http://{settings.api_host}:{settings.api_port}/v1; `nightrate keys create NAME` makes a key."
            )
    return ExitCode.OK


def down(*, as_json: AsJson = False) -> int:
    """Stop what `up` started; batches stay and go on at the next `up`."""
    from infra.embedded.daemon import DownOutcome, take_down
    from infra.embedded.folder import DataFolder
    from pipeline.config import load_settings

    folder = DataFolder(load_settings().home_folder)
    outcome = take_down(folder)
    sentences = {
        DownOutcome.STOPPED: "Nightrate is down; batches stay and go on at the next `nightrate up`.",
        DownOutcome.NOT_RUNNING: f"Nothing runs in {folder.path}.",
        DownOutcome.STILL_STOPPING: f"Nightrate is still stopping; its log is in {folder.logs}.",
    }
    say(sentences[outcome])
    if as_json:
        print_document({"outcome": str(outcome), "home": str(folder.path)})
    return ExitCode.FAILED if outcome is DownOutcome.STILL_STOPPING else ExitCode.OK


def status(*, as_json: AsJson = False) -> int:
    """Show what runs: servers, processes, workers, queue, batches, and what was spent."""
    from pipeline.entrypoints.cli.standing import show_status

    return show_status(as_json=as_json)


def supervise(*, workers: WorkersOption = None) -> int:
    """Hold the data folder and keep its servers and processes alive until told to stop."""
    from infra.embedded.daemon import stop_on_signals
    from infra.logs import log_to_stderr
    from pipeline.config import load_settings
    from pipeline.entrypoints.cli.local_stack import supervisor_of
    from pipeline.entrypoints.cli.processes import has_api

    must_stop = stop_on_signals()
    log_to_stderr()
    settings = load_settings()
    supervisor_of(settings, workers=settings.workers if workers is None else workers, with_api=has_api()).run_until(
        must_stop
    )
    return ExitCode.OK
