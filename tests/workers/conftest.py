from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.storage.world import open_world
from tests.workers.floor import Floor, RefusingStore


@pytest.fixture
def floor(database_url: str, tmp_path: Path) -> Iterator[Floor]:
    with open_world(database_url) as world:
        yield Floor(world, RefusingStore(tmp_path / "objects", fsync=False))
