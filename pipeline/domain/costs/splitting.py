"""Splitting amounts over accounts with nothing lost, in each column by itself, and below zero too."""

from __future__ import annotations

from collections.abc import Sequence

from pipeline.domain.costs.amounts import Amounts
from pipeline.domain.money import split_by_weight


def split_signed(micros: int, weights: Sequence[int]) -> list[int]:
    """Split by largest remainder what may be owed or given back; weights that sum to zero or less share evenly."""
    usable = [max(weight, 0) for weight in weights]
    parts = split_by_weight(abs(micros), usable)
    return parts if micros >= 0 else [-part for part in parts]


def split_amounts(total: Amounts, shares: Sequence[Amounts]) -> list[Amounts]:
    """Split each column by what that column of the shares is, or where it is nothing, by the effective ones.

    What the shares sum to is split into the shares themselves.
    """
    if len(shares) == 1:
        return [total]
    effective = [share.effective_micros for share in shares]
    columns = []
    for micros, weights in zip(total.each(), zip(*(share.each() for share in shares), strict=True), strict=True):
        columns.append(split_signed(micros, weights if any(weights) else effective) if micros else [0] * len(shares))
    return [Amounts.of(each) for each in zip(*columns, strict=True)]
