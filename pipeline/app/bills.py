"""Who knows what providers bill: the one place that connects settlements to prices and rules."""

from __future__ import annotations

from datetime import datetime

from pipeline.app.stack import Stack
from pipeline.domain.costs.bills import BillSource, FlatBills
from pipeline.domain.costs.keeping import ObjectPrices


def bills_of(stack: Stack) -> BillSource:
    """Return the bills of this installation's workers."""
    del stack
    return FlatBills()


def object_prices_at(stack: Stack, at: datetime) -> ObjectPrices:
    """Return what the object store bills at that moment: nothing, as long as no rate card says otherwise."""
    del stack, at
    return ObjectPrices()
