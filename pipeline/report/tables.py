"""Tables of any columns as CSV, JSON lines or Parquet: streamed, part by part. No figure becomes a binary fraction."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import date, datetime
from decimal import Decimal
from enum import StrEnum
from typing import Any, Final

import orjson

from pipeline.report.columns import ParquetMissingError
from pipeline.report.drained import Drained

_NUMERIC: Final = re.compile(r"numeric\((\d+),(\d+)\)")
_SECOND: Final = "%Y-%m-%dT%H:%M:%SZ"


class TableFormat(StrEnum):
    """How a table is written."""

    CSV = "csv"
    #: A document a line.
    JSON = "json"
    PARQUET = "parquet"


#: Rows of a table, some at a time.
Parts = Iterable[Sequence[Sequence[Any]]]


def written(form: TableFormat, types: Mapping[str, str], parts: Parts) -> Iterator[bytes]:
    """Yield the bytes of a table whose columns have these types, in Postgres's words; one part is held at a time.

    Raises `ParquetMissingError`, before anything is yielded.
    """
    match form:
        case TableFormat.CSV:
            return _csv(types, parts)
        case TableFormat.JSON:
            return _json(types, parts)
        case TableFormat.PARQUET:
            return _parquet(types, parts)


def _csv(types: Mapping[str, str], parts: Parts) -> Iterator[bytes]:
    yield _csv_lines([list(types)])
    for part in parts:
        yield _csv_lines([[_text(value) for value in row] for row in part])


def _csv_lines(rows: Iterable[Sequence[object]]) -> bytes:
    held = io.StringIO()
    csv.writer(held, lineterminator="\n").writerows(rows)
    return held.getvalue().encode()


def _json(types: Mapping[str, str], parts: Parts) -> Iterator[bytes]:
    names = list(types)
    for part in parts:
        yield b"".join(
            orjson.dumps(
                {name: _plain(value) for name, value in zip(names, row, strict=True)},
                default=_text,
                option=orjson.OPT_APPEND_NEWLINE | orjson.OPT_UTC_Z,
            )
            for row in part
        )


def _parquet(types: Mapping[str, str], parts: Parts) -> Iterator[bytes]:
    try:
        import pyarrow as pa
        from pyarrow import parquet as pq
    except ImportError:
        raise ParquetMissingError("Parquet is not installed here", hint="pip install 'nightrate[parquet]'") from None
    schema = pa.schema([(name, _arrow(pa, kind)) for name, kind in types.items()])
    return _parquet_bytes(pa, pq, schema, parts)


def _parquet_bytes(pa: Any, pq: Any, schema: Any, parts: Parts) -> Iterator[bytes]:  # noqa: ANN401 -- pyarrow is untyped
    held = Drained()
    with pq.ParquetWriter(held, schema, compression="zstd") as writer:
        for part in parts:
            columns = zip(*part, strict=True)
            arrays = [
                pa.array([_plain(value) for value in values], type=field.type)
                for field, values in zip(schema, columns, strict=True)
            ]
            writer.write_table(pa.Table.from_arrays(arrays, schema=schema))
            yield held.drain()
    yield held.drain()


def _arrow(pa: Any, kind: str) -> Any:  # noqa: ANN401 -- pyarrow is untyped
    if numeric := _NUMERIC.fullmatch(kind):
        return pa.decimal128(int(numeric[1]), int(numeric[2]))
    simple = {
        "bigint": pa.int64(),
        "date": pa.date32(),
        "timestamp with time zone": pa.timestamp("us", tz="UTC"),
        "boolean": pa.bool_(),
        # Amounts that a view computes without saying how wide they are.
        "numeric": pa.decimal128(38, 6),
    }
    return simple.get(kind, pa.string())


def _plain(value: object) -> object:
    """Return a value as its column holds it; objects are written as text."""
    if isinstance(value, dict | list):
        return orjson.dumps(value, option=orjson.OPT_SORT_KEYS).decode()
    return value


def _text(value: object) -> str:  # noqa: PLR0911 -- one for each type
    match value:
        case None:
            return ""
        case bool():
            return "true" if value else "false"
        case datetime():
            return value.strftime(_SECOND) if not value.microsecond else value.isoformat().replace("+00:00", "Z")
        case date():
            return value.isoformat()
        case Decimal():
            return f"{value:f}"
        case dict() | list():
            return str(_plain(value))
        case _:
            return str(value)
