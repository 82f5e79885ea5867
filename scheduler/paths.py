"""Paths: where accounts stand in a pool's fair queue, from the pool down: tier, tenant, batch.

Batches of one tenant and tier take turns among those of their priority. Those of the default priority are their
tenant's own children; those of another have an account between, which is there for its virtual time alone: nobody
takes turns with it, so that it is charged nothing and owes nothing.
"""

from __future__ import annotations

from typing import Final

from pipeline.ports.cycle import Backlog

#: From the pool down, as in `FairTag`.
Path = tuple[str, ...]
BATCH_DEPTH: Final = 3
DEFAULT_PRIORITY: Final = 0
_CLASS: Final = "priority "


def class_path(tenant: Path, priority: int) -> Path:
    """Return the account whose children the tenant's batches of a priority are."""
    return tenant if priority == DEFAULT_PRIORITY else (*tenant, f"{_CLASS}{priority}")


def is_class(path: Path) -> bool:
    """Say whether an account is that of a priority other than the default."""
    return len(path) == BATCH_DEPTH and path[-1].startswith(_CLASS)


def batch_path(backlog: Backlog) -> Path:
    """Return the account of a batch."""
    return (*class_path((backlog.tier.value, backlog.tenant_id), backlog.priority), backlog.batch_id)
