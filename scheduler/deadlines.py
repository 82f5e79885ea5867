"""Deadlines: when a batch's window has ended."""

from __future__ import annotations


def is_overdue(deadline_at_us: int, *, now_us: int) -> bool:
    """Say whether a deadline has been reached; both are microseconds since the Unix epoch."""
    return now_us >= deadline_at_us
