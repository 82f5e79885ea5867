"""Rows of a shard, between Python's ranges and Postgres's int4multirange."""

from __future__ import annotations

from typing import Any

from pipeline.domain.ranges import Ranges


def to_literal(ranges: Ranges) -> str:
    """Return the multirange literal for half-open ranges: `{[0,5),[7,9)}`."""
    return "{" + ",".join(f"[{start},{stop})" for start, stop in ranges) + "}"


def from_value(value: Any) -> Ranges:  # noqa: ANN401 -- psycopg's Multirange is generic over a type SQLAlchemy erases
    """Return the half-open ranges of what the driver gave for a multirange column."""
    return tuple((part.lower, part.upper) for part in value or ())
