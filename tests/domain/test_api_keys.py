from __future__ import annotations

import pytest

from pipeline.domain.access import PERMISSIONS, Permission, Role, permissions_of
from pipeline.domain.api_keys import digest, is_key, new_key, read_key
from pipeline.domain.ids import ApiKeyId, new_key_id


def test_a_key_is_read_as_it_was_written() -> None:
    key = new_key(new_key_id())

    assert read_key(str(key)) == key
    assert str(key).startswith("sk-nr-")
    assert key.secret not in repr(key)
    assert key.secret not in key.hint


@pytest.mark.parametrize(
    "written", ["", "sk-nr-", "sk-nr-x-y", f"sk-nr-{'0' * 32}-{'a' * 42}", f"sk-nr-{'G' * 32}-{'a' * 43}"]
)
def test_what_cannot_be_a_key_is_none(written: str) -> None:
    assert read_key(written) is None


def test_a_key_is_known_by_its_digest_and_no_other_is() -> None:
    key, other = new_key(ApiKeyId("key_1")), new_key(ApiKeyId("key_1"))
    stored = digest(key, "pepper")

    assert len(stored) == 64
    assert is_key(key, "pepper", stored)
    assert not is_key(other, "pepper", stored)
    assert not is_key(key, "another pepper", stored)
    assert not is_key(key, "pepper", "0" * 64)


def test_roles_add_up_and_only_an_admin_may_do_everything() -> None:
    assert permissions_of([Role.READ, Role.ANALYST]) == PERMISSIONS[Role.READ] | PERMISSIONS[Role.ANALYST]
    assert permissions_of([]) == frozenset()
    assert permissions_of([Role.ADMIN]) == frozenset(Permission)
    assert Permission.READ_CONTENT not in permissions_of([Role.OPERATE, Role.ANALYST])
    for role in set(Role) - {Role.ADMIN}:
        assert Permission.MANAGE_KEYS not in PERMISSIONS[role]
