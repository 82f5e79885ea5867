from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.storage.world import World, open_world


@pytest.fixture
def world(database_url: str) -> Iterator[World]:
    with open_world(database_url) as opened:
        yield opened
