"""Who may do what: roles of API keys, and the permissions each role has."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from enum import StrEnum
from functools import cache
from types import MappingProxyType
from typing import Final


class Permission(StrEnum):
    """One kind of thing that a route of the API does."""

    READ_BATCHES = "read_batches"
    #: Inputs and results: what people wrote and what models answered.
    READ_CONTENT = "read_content"
    SUBMIT = "submit"
    #: Batches on their way: cancel, pause, resume, change, retry.
    STEER = "steer"
    READ_USAGE = "read_usage"
    MANAGE_WEBHOOKS = "manage_webhooks"
    MANAGE_KEYS = "manage_keys"
    #: Make, rename and archive them.
    MANAGE_PROJECTS = "manage_projects"
    #: Set, change, top up and remove them.
    MANAGE_BUDGETS = "manage_budgets"
    READ_AUDIT = "read_audit"


class Role(StrEnum):
    """What a key is for; a key may have several."""

    SUBMIT = "submit"
    READ = "read"
    OPERATE = "operate"
    ANALYST = "analyst"
    ADMIN = "admin"


PERMISSIONS: Final[Mapping[Role, frozenset[Permission]]] = MappingProxyType(
    {
        Role.READ: frozenset({Permission.READ_BATCHES, Permission.READ_CONTENT}),
        Role.SUBMIT: frozenset({Permission.READ_BATCHES, Permission.READ_CONTENT, Permission.SUBMIT, Permission.STEER}),
        # Runs other people's batches without reading what is in them.
        Role.OPERATE: frozenset(
            {Permission.READ_BATCHES, Permission.STEER, Permission.READ_USAGE, Permission.MANAGE_WEBHOOKS}
        ),
        Role.ANALYST: frozenset({Permission.READ_BATCHES, Permission.READ_USAGE}),
        Role.ADMIN: frozenset(Permission),
    }
)

assert set(PERMISSIONS) == set(Role)


def permissions_of(roles: Iterable[Role]) -> frozenset[Permission]:
    """Return all that a key with these roles may do."""
    return _permissions_of(frozenset(roles))


@cache
def _permissions_of(roles: frozenset[Role]) -> frozenset[Permission]:
    return frozenset().union(*(PERMISSIONS[role] for role in roles))


def exceeds(wanted: Iterable[Role], held: frozenset[Permission]) -> frozenset[Permission]:
    """Return what somebody with these roles might do beyond `held`: nobody may give what they have not."""
    return permissions_of(wanted) - held
