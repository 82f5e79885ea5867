"""Writes docs/state_machines.md anew from the tables of edges: `python -m tests.domain.draw_state_machines`."""

from __future__ import annotations

from pathlib import Path

from pipeline.domain.lifecycle import BATCH_EDGES, PACK_EDGES, RENTAL_EDGES, WORKER_EDGES, to_mermaid

DOCUMENT = Path(__file__).parents[2] / "docs" / "state_machines.md"

_TEXT = """\
# State machines

Four things have states: a batch, a pack, a worker and a rental. The states and the edges between them are data, in
`pipeline/domain/lifecycle.py`, and nowhere else. An edge is labelled with its cause. No edge leaves a terminal
state.

A state says where a thing is. Why it is there is its reason (`pipeline/domain/reasons.py`), and since when is a
timestamp of its own. Every write that moves a thing names the state it moves from, and a token where several
processes may hold the thing: a write that changes no row comes too late.

## Batch

OpenAI's eight statuses.

```mermaid
{batch}```

## Pack

What the scheduler builds and one worker at a time leases. The token of a lease grows with every lease of the pack.

```mermaid
{pack}```

## Worker

A worker enters the record when it registers, in `booting`; or in `requested`, from when on its machine is paid, where the
fleet started that.

```mermaid
{worker}```

## Rental

A machine that the fleet asked for. It is written before its provider is asked, so that nothing runs that is not known here.

```mermaid
{rental}```

## How this page is kept true

It is written by `python -m tests.domain.draw_state_machines`. `tests/domain/test_lifecycle.py` fails while it differs
from the edges, while a state cannot be reached, or while a terminal state is not one we chose.
`tests/storage/test_migrations.py` fails while the database's CHECK constraints list other states.
"""


def render() -> str:
    """Return the document as the edges have it."""
    return _TEXT.format(
        batch=to_mermaid(BATCH_EDGES),
        pack=to_mermaid(PACK_EDGES),
        worker=to_mermaid(WORKER_EDGES),
        rental=to_mermaid(RENTAL_EDGES),
    )


if __name__ == "__main__":
    DOCUMENT.write_text(render(), encoding="utf-8")
