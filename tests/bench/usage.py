"""What a benchmark's processes use while it runs: memory at its peak, and processor time."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path


@dataclass
class Usage:
    """What each of our processes used, looked up while they run: memory at its peak, and processor time."""

    peaks_mib: dict[str, float] = field(default_factory=dict)
    cpu_seconds: dict[str, float] = field(default_factory=dict)

    def look(self) -> None:
        children: dict[int, list[int]] = {}
        for entry in Path("/proc").glob("[0-9]*"):
            fields = _status(entry)
            if fields:
                children.setdefault(int(fields["PPid"]), []).append(int(entry.name))
        waiting = [os.getpid()]
        while waiting:
            pid = waiting.pop()
            waiting += children.get(pid, [])
            self._note(pid)

    def _note(self, pid: int) -> None:
        entry = Path("/proc", str(pid))
        fields = _status(entry)
        if "VmHWM" not in fields:
            return
        name = f"{_kind(entry, pid)} {pid}"
        peak = round(int(fields["VmHWM"].split()[0]) / 1024, 1)
        self.peaks_mib[name] = max(peak, self.peaks_mib.get(name, 0.0))
        self.cpu_seconds[name] = max(_cpu_seconds(entry), self.cpu_seconds.get(name, 0.0))

    def peaks_by_kind(self) -> dict[str, float]:
        """Return the largest peak of each kind of process."""
        return {kind: max(values) for kind, values in _by_kind(self.peaks_mib).items()}

    def cpu_by_kind(self) -> dict[str, float]:
        """Return the processor time of each kind of process, all of them together; it compares on a shared machine."""
        return {kind: round(sum(values), 1) for kind, values in _by_kind(self.cpu_seconds).items()}


def _by_kind(figures: Mapping[str, float]) -> dict[str, list[float]]:
    found: dict[str, list[float]] = {}
    for name, figure in sorted(figures.items()):
        found.setdefault(name.rpartition(" ")[0], []).append(figure)
    return found


def _cpu_seconds(entry: Path) -> float:
    try:
        fields = entry.joinpath("stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    # User and system time, counted from the state behind the name.
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _status(entry: Path) -> dict[str, str]:
    try:
        content = entry.joinpath("status").read_text()
    except OSError:
        return {}
    return {name: value.strip() for name, _, value in (line.partition(":") for line in content.splitlines())}


def _kind(entry: Path, pid: int) -> str:
    if pid == os.getpid():
        return "submitter"
    try:
        command = entry.joinpath("cmdline").read_bytes().split(b"\0")
    except OSError:
        return "gone"
    name = Path(command[0].decode(errors="replace")).name
    for server in ("postgres", "valkey", "initdb"):
        if name.startswith(server):
            return server
    return next((word.decode() for word in reversed(command) if word in {b"worker", b"scheduler"}), name)


@contextmanager
def watched_usage(*, every_seconds: float = 0.25) -> Iterator[Usage]:
    """Look at what our processes use until the block ends; a look takes some 30 ms of processor time."""
    usage, ended = Usage(), threading.Event()

    def watch() -> None:
        while not ended.wait(every_seconds):
            usage.look()

    watcher = threading.Thread(target=watch, name="usage", daemon=True)
    watcher.start()
    try:
        yield usage
    finally:
        ended.set()
        watcher.join()
