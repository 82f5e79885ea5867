"""The shapes that results are handed out in."""

from __future__ import annotations

from enum import StrEnum


class ResultFormat(StrEnum):
    """What one row of the results looks like."""

    #: As in the output and error files, both together.
    JSONL = "jsonl"
    #: The input's line with its response beside it.
    MERGED = "merged"
    #: A table, with the columns of the batch's endpoint.
    PARQUET = "parquet"

    @property
    def suffix(self) -> str:
        """Return what files of the format end with."""
        return ".parquet" if self is ResultFormat.PARQUET else ".jsonl"
