"""Tables in files, row by row: CSV, CSV in gzip, Parquet. No more than a few thousand rows are held at once."""

from __future__ import annotations

import csv
import gzip
import hashlib
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from pipeline.domain.costs.invoices import InvoiceFormatError
from pipeline.domain.errors import UsageError

_ROWS_AT_ONCE: Final = 4096
_BYTES_AT_ONCE: Final = 1 << 20
_FIELD_BYTES_MAX: Final = 1 << 24


def sha256_of(path: Path) -> str:
    """Return the digest of a file, in hexadecimal."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_BYTES_AT_ONCE):
            digest.update(block)
    return digest.hexdigest()


def columns_and_rows(path: Path) -> tuple[frozenset[str], Iterator[Mapping[str, Any]]]:
    """Return the names of a table's columns, and its rows.

    Raises:
        UsageError: It is no kind of file that can be read here.
        InvoiceFormatError: It is broken; also while rows are read.
    """
    name = path.name.lower()
    if name.endswith((".csv", ".csv.gz")):
        return _csv(path, is_packed=name.endswith(".gz"))
    if name.endswith(".parquet"):
        return _parquet(path)
    raise UsageError(
        f"{path.name} is no file that an invoice can be read from", hint="FILE.csv, FILE.csv.gz or FILE.parquet"
    )


def _csv(path: Path, *, is_packed: bool) -> tuple[frozenset[str], Iterator[Mapping[str, Any]]]:
    csv.field_size_limit(_FIELD_BYTES_MAX)

    def rows() -> Iterator[Mapping[str, Any]]:
        try:
            with (
                gzip.open(path, "rt", encoding="utf-8-sig", newline="")
                if is_packed
                else path.open(encoding="utf-8-sig", newline="")
            ) as file:
                reader = csv.DictReader(file, strict=True)
                yield dict.fromkeys(reader.fieldnames or (), "")
                for row in reader:
                    if None in row or None in row.values():
                        raise InvoiceFormatError(
                            f"{path.name}: line {reader.line_num} has another number of fields than the header"
                        )
                    yield row
        except (csv.Error, UnicodeDecodeError, EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise InvoiceFormatError(f"{path.name} is broken: {error}") from error

    found = rows()
    # The header comes first, so that a file without one is refused before anything is done.
    return frozenset(next(found)), found


def _parquet(path: Path) -> tuple[frozenset[str], Iterator[Mapping[str, Any]]]:
    try:
        import pyarrow as pa
        from pyarrow import parquet
    except ImportError:
        raise UsageError(
            "Parquet cannot be read here", hint="pip install 'nightrate[parquet]', or export CSV"
        ) from None
    try:
        file = parquet.ParquetFile(path)
    except pa.ArrowException as error:
        raise InvoiceFormatError(f"{path.name} is no Parquet file: {error}") from error

    def rows() -> Iterator[Mapping[str, Any]]:
        try:
            for batch in file.iter_batches(batch_size=_ROWS_AT_ONCE):
                yield from batch.to_pylist()
        except pa.ArrowException as error:
            raise InvoiceFormatError(f"{path.name} is broken: {error}") from error

    return frozenset(file.schema_arrow.names), rows()
