"""Exports: a view, or FOCUS, as a stream of bytes; and the views of each day that is over, in the object store."""

from __future__ import annotations

import importlib.util
import logging
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from hashlib import sha256
from itertools import chain
from pathlib import Path
from typing import Any, Final

import orjson

from pipeline.app.stack import Stack
from pipeline.domain.errors import NotFoundError
from pipeline.domain.objects.keys import cost_day_prefix, cost_manifest_key, cost_part_key
from pipeline.ports.cost_reports import Period
from pipeline.report.columns import ParquetMissingError
from pipeline.report.focus.columns import COLUMNS, DECIMALS_MAX, FocusKind, FocusVersion
from pipeline.report.focus.rows import focus_row
from pipeline.report.tables import TableFormat, written
from storage.cost_exports import VIEWS, CostExports, DayVersion, Moment
from storage.cost_sums import CostSums

_LOG = logging.getLogger(__name__)

SUM_EVERY_SECONDS: Final = 10.0
EXPORT_EVERY_SECONDS: Final = 600.0
#: What is under way at midnight is committed within minutes; a day is looked at no sooner.
_SETTLES_WITHIN: Final = timedelta(hours=1)
#: A day that goes on changing is exported again no sooner.
_AGAIN_AFTER: Final = timedelta(hours=1)
_DAYS_AT_ONCE: Final = 10
_ROWS_A_PART: Final = 2_000
_TYPES: Final = {
    FocusKind.TEXT: "text",
    FocusKind.DECIMAL: f"numeric(38,{DECIMALS_MAX})",
    FocusKind.TIME: "timestamp with time zone",
    FocusKind.JSON: "text",
}


def view_export(moment: Moment, view: str, period: Period, form: TableFormat) -> Iterator[bytes]:
    """Yield a view's rows of some days as a file; raises `NotFoundError` for a view that there is not."""
    if view not in VIEWS:
        raise NotFoundError(f"there is no view {view!r} to export", hint=", ".join(VIEWS))
    types = {column.name: column.type for column in moment.columns(view)}
    return written(form, types, moment.rows(view, period))


def focus_export(
    moment: Moment, version: FocusVersion, period: Period, form: TableFormat, *, account: str = "nightrate"
) -> Iterator[bytes]:
    """Yield some days as a file of FOCUS."""
    types = {name: _TYPES[kind] for name, kind in COLUMNS[version].items()}
    rows = (tuple(focus_row(hour, version, account=account).values()) for hour in moment.hours(period))
    return written(form, types, _parts(rows))


def _parts(rows: Iterable[tuple[Any, ...]]) -> Iterator[Sequence[tuple[Any, ...]]]:
    part: list[tuple[Any, ...]] = []
    for row in rows:
        part.append(row)
        if len(part) == _ROWS_A_PART:
            yield part
            part = []
    if part:
        yield part


@dataclass(slots=True)
class CostKeeper:
    """Keeps the sums, and the exports of days that are over; one thread calls each of its two duties."""

    stack: Stack
    now: Callable[[], datetime]
    _sum_at: float = float("-inf")
    _export_at: float = float("-inf")

    def sum_up(self) -> bool:
        """Sum up what was posted; True when there is more."""
        # The alarm, which rings for every commit, is none for this.
        if time.monotonic() < self._sum_at:
            return False
        more = CostSums(self.stack.database).sum_up()
        if not more:
            self._sum_at = time.monotonic() + SUM_EVERY_SECONDS
        return more

    def export_days(self) -> bool:
        """Export days that are over; True when there are more."""
        if time.monotonic() < self._export_at:
            return False
        found = DayExporter(self.stack).run(self.now()) if _has_parquet() else []
        more = len(found) == _DAYS_AT_ONCE
        if not more:
            self._export_at = time.monotonic() + EXPORT_EVERY_SECONDS
        return more


def check_parquet() -> None:
    """Raise `ParquetMissingError` where Parquet cannot be written."""
    if not _has_parquet():
        raise ParquetMissingError("Parquet is not installed here", hint="pip install 'nightrate[parquet]'")


def _has_parquet() -> bool:
    # An extra: an installation without it has its views in the database alone.
    return importlib.util.find_spec("pyarrow") is not None


class DayExporter:
    """Writes the views of a day to the object store, each version under names of its own.

    Whatever it was interrupted at, it can do again: files are named by what is in them, a day counts as exported only when
    all of them are there and those of other versions are gone.
    """

    def __init__(self, stack: Stack) -> None:
        """Export from and to `stack`."""
        self._stack = stack
        self._exports = CostExports(stack.database)

    def run(self, now: datetime, *, at_once: bool = False, limit: int = _DAYS_AT_ONCE) -> list[DayVersion]:
        """Export the oldest days that are over and not exported as they stand; nothing where another does it already.

        `at_once`: those too that were exported, or ended, just now.
        """
        before = (now if at_once else now - _SETTLES_WITHIN).date()
        again_before = None if at_once else now - _AGAIN_AFTER
        with self._exports.alone() as is_alone:
            if not is_alone:
                return []
            return [
                self._export(due.day)
                for due in self._exports.due(before=before, again_before=again_before, limit=limit)
            ]

    def _export(self, day: date) -> DayVersion:
        period = Period(first=day, until=day + timedelta(days=1))
        with tempfile.TemporaryDirectory(dir=self._stack.spool_folder) as folder:
            with self._exports.moment() as moment:
                version = moment.version(day)
                assert version is not None, f"{day} is due and has no version"
                files = {view: _spooled(moment, view, period, Path(folder) / view) for view in VIEWS}
            keys = {view: self._put(view, day, version, file) for view, file in files.items() if file is not None}
        self._put_manifest(day, version, keys)
        self._clear(day, {str(each["key"]) for each in keys.values()})
        exported = DayVersion(day=day, version=version)
        self._exports.exported(exported)
        _LOG.info("costs_exported", extra={"day": day.isoformat(), "version": version, "files": len(keys)})
        return exported

    def _put(self, view: str, day: date, version: int, file: _Spooled) -> dict[str, object]:
        key = cost_part_key(view, day, version, file.sha256)
        stored = self._stack.objects.put(key, file.path)
        return {"key": key, "rows": file.rows, "size_bytes": stored.size_bytes, "sha256": stored.sha256}

    def _put_manifest(self, day: date, version: int, keys: Mapping[str, Mapping[str, object]]) -> None:
        content = orjson.dumps(
            {"day": day.isoformat(), "version": version, "files": keys},
            option=orjson.OPT_SORT_KEYS | orjson.OPT_INDENT_2,
        )
        self._stack.objects.put(cost_manifest_key(day, version, sha256(content).hexdigest()), content)

    def _clear(self, day: date, kept: set[str]) -> None:
        """Remove the files of other versions, and of tries that were broken off."""
        prefixes = [cost_day_prefix(view, day) for view in VIEWS]
        for key in chain.from_iterable(list(self._stack.objects.list(prefix)) for prefix in prefixes):
            if key not in kept:
                self._stack.objects.delete(key)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Spooled:
    path: Path
    rows: int
    sha256: str


def _spooled(moment: Moment, view: str, period: Period, path: Path) -> _Spooled | None:
    """Write a view's day to a local file; None: it has no rows."""
    rows, digest = 0, sha256()

    def counted() -> Iterator[Sequence[tuple[Any, ...]]]:
        nonlocal rows
        for part in moment.rows(view, period):
            rows += len(part)
            yield part

    types = {column.name: column.type for column in moment.columns(view) if column.name != "day"}
    # The day is in the folder's name, as Hive has it, and not in the file again.
    place = [column.name for column in moment.columns(view)].index("day")
    parts = ([row[:place] + row[place + 1 :] for row in part] for part in counted())
    with path.open("wb") as file:
        for content in written(TableFormat.PARQUET, types, parts):
            digest.update(content)
            file.write(content)
    return _Spooled(path=path, rows=rows, sha256=digest.hexdigest()) if rows else None
