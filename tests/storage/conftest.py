from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.services import fresh_database
from tests.storage.world import World, open_world


@pytest.fixture
def world(database_url: str) -> Iterator[World]:
    """A world of this test's own."""
    with open_world(database_url) as opened:
        yield opened


@pytest.fixture(scope="module")
def shared(template_url: str) -> Iterator[World]:
    """One world for a module's tests that look at nothing but their own batches."""
    with fresh_database(template_url) as url, open_world(url) as opened:
        yield opened
