"""The command line, run in this process, in a folder and a home of its own."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from pipeline.entrypoints.cli.main import main


def at_home(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, database_url: str | None = None, prefixes: tuple[str, ...] = ()
) -> None:
    """Have commands find only these settings: no variable NIGHTRATE_*, nor any with one of these prefixes."""
    for name in [name for name in os.environ if name.startswith(("NIGHTRATE_", *prefixes))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("NIGHTRATE_HOME", str(tmp_path / "home"))
    if database_url is not None:
        monkeypatch.setenv("NIGHTRATE_DATABASE_URL", database_url)
    monkeypatch.chdir(tmp_path)


def run(*arguments: str) -> int:
    """Run one command; return its exit code."""
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert isinstance(ended.value.code, int)
    return ended.value.code


class Line:
    """The commands of a group, and what the last one said."""

    def __init__(self, capsys: pytest.CaptureFixture[str], *group: str) -> None:
        """Begin every command with `group`."""
        self._capsys = capsys
        self._group = group
        self.out = self.err = ""

    def run(self, *arguments: str) -> int:
        """Run one; return its exit code."""
        code = run(*self._group, *arguments)
        self.out, self.err = self._capsys.readouterr()
        assert "Traceback" not in self.err
        return code

    def document(self, *arguments: str) -> Any:  # noqa: ANN401 -- whatever was printed
        """Run one that must succeed, and return what it printed as JSON."""
        assert self.run(*arguments, "--json") == 0, self.err
        return json.loads(self.out)
