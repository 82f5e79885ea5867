"""Epochs: what a scheduler writes, it writes as the leader, or not at all."""

from __future__ import annotations

from sqlalchemy import Connection, text

from pipeline.domain.errors import NotLeaderError


def guard_epoch(connection: Connection, epoch: int) -> None:
    """Keep this transaction's scheduler the leader until it ends, or raise `NotLeaderError`."""
    leads = text("SELECT 1 FROM leadership WHERE epoch = :epoch FOR SHARE")
    if connection.execute(leads, {"epoch": epoch}).one_or_none() is None:
        raise NotLeaderError(f"epoch {epoch} is over")
