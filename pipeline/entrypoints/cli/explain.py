"""`explain`: why a batch, a pack or a pool stands where it stands, since when, and what would change it."""

from __future__ import annotations

from typing import Annotated

import typer

from pipeline.entrypoints.cli.counter import Counter, at_counter
from pipeline.entrypoints.cli.exits import ExitCode
from pipeline.entrypoints.cli.options import AsJson
from pipeline.entrypoints.cli.talk import print_document


@at_counter
def explain(
    counter: Counter,
    subject: Annotated[
        str | None,
        typer.Argument(metavar="[ID]", help="A batch (batch_…), a pack (pack_…) or a pool by its name. Default: all."),
    ] = None,
    *,
    history: Annotated[
        bool, typer.Option("--history", help="Every reason a batch had and every attempt of a pack, and how long.")
    ] = False,
    limit: Annotated[
        int | None, typer.Option("--limit", min=1, max=1000, help="Batches in the overview. Default: 20.")
    ] = None,
    as_json: AsJson = False,
) -> int:
    """Say why something runs, waits or stopped, since when, and what would change it."""
    from pipeline.app.explaining import subject_of
    from pipeline.domain.errors import UsageError
    from pipeline.entrypoints.cli.explain_views import (
        explained_document,
        overview_document,
        print_explained,
        print_overview,
    )

    if subject is None:
        if history:
            raise UsageError("--history of what?", hint="`nightrate explain batch_… --history`")
        with counter.desk() as desk:
            overview = desk.overview(limit=limit or 20)
        if as_json:
            print_document(overview_document(overview))
        else:
            print_overview(overview)
        return ExitCode.OK
    if limit is not None:
        raise UsageError("--limit is of the overview alone", hint="`nightrate explain --limit 50`")
    subject_of(subject)
    with counter.desk() as desk:
        explained = desk.explain(subject, with_history=history)
    if as_json:
        print_document(explained_document(explained))
    else:
        print_explained(explained)
    return ExitCode.OK
