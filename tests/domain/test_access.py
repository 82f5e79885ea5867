from __future__ import annotations

import re
from pathlib import Path

from pipeline.domain.access import PERMISSIONS, Permission, Role, permissions_of

DOCUMENT = Path(__file__).parents[2] / "docs" / "tenants.md"


def test_the_table_of_roles_in_the_documentation_is_the_one_in_force() -> None:
    lines = DOCUMENT.read_text(encoding="utf-8").splitlines()
    start = next(number for number, line in enumerate(lines) if line.startswith("| permission |"))
    roles = [Role(cell.strip()) for cell in lines[start].strip("|").split("|")[1:]]
    told: dict[Role, set[Permission]] = {role: set() for role in roles}
    listed = []
    for line in lines[start + 2 :]:
        if not line.startswith("|"):
            break
        name, *cells = line.strip("|").split("|")
        permission = Permission(re.findall(r"`(\w+)`", name)[0])
        listed.append(permission)
        for role, cell in zip(roles, cells, strict=True):
            if cell.strip() == "yes":
                told[role].add(permission)

    assert sorted(listed) == sorted(Permission)
    assert told == {role: set(PERMISSIONS[role]) for role in Role}


def test_several_roles_may_do_what_any_of_them_may() -> None:
    assert permissions_of([]) == frozenset()
    assert permissions_of([Role.READ, Role.ANALYST]) == PERMISSIONS[Role.READ] | PERMISSIONS[Role.ANALYST]
    assert permissions_of([Role.ADMIN]) == frozenset(Permission)
