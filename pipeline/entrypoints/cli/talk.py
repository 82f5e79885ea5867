"""Data goes to stdout, talk to stderr: the few ways a command says anything."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:  # rich costs a tenth of a second that most commands need not pay
    from rich.console import Console

#: Width of tables where stdout has none of its own; wide enough that no id is ever cut.
_WIDTH_WITHOUT_TERMINAL: Final = 200


def say(text: str) -> None:
    """Tell the person something; never data."""
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()


def print_line(text: str) -> None:
    """Write one line of data."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def print_document(document: Mapping[str, object] | Sequence[object]) -> None:
    """Write one JSON document, indented: people read it too, and programs do not mind."""
    print_line(json.dumps(document, indent=2, ensure_ascii=False))


def print_json_line(document: Mapping[str, object]) -> None:
    """Write one JSON document on one line."""
    print_line(json.dumps(document, ensure_ascii=False))


def print_table(heads: Sequence[str], rows: Sequence[Sequence[str]], *, right: Sequence[str] = ()) -> None:
    """Write a table of data; columns named in `right` are numbers."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    table = Table(box=SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for head in heads:
        table.add_column(head, justify="right" if head in right else "left", no_wrap=head == "ID")
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    out_console().print(table)


def print_facts(facts: Mapping[str, str]) -> None:
    """Write names and values, aligned."""
    width = max(map(len, facts), default=0)
    for name, value in facts.items():
        print_line(f"{name.ljust(width)}  {value}")


def out_console() -> Console:
    """Return rich's view of stdout."""
    from rich.console import Console

    return Console(width=None if sys.stdout.isatty() else _WIDTH_WITHOUT_TERMINAL, highlight=False, soft_wrap=False)
