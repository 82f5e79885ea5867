"""The API in two settings: alone with its database, where tests bring batches from state to state themselves, and on
a whole stack, where a scheduler and a worker do."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from pydantic import SecretStr

from pipeline.app.stack import open_stack
from pipeline.config import Settings
from tests.bench.stack import running_stack
from tests.pipeline.http.served import Served, served
from tests.services import fresh_database


@pytest.fixture(scope="module")
def quiet(template_url: str, redis_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """The API without a scheduler: nothing moves by itself. One database a module."""
    with fresh_database(template_url) as url:
        settings = Settings(
            home=tmp_path_factory.mktemp("quiet"),
            database_url=SecretStr(url),
            redis_url=SecretStr(redis_url),
            webhook_hosts=["127.0.0.1"],
        )
        with open_stack(settings) as stack, served(stack) as api:
            yield api


@pytest.fixture(scope="package")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """The API with a scheduler and a worker, as `nightrate up` has them; one for this folder's tests.

    Its processes look for work five times a second, so it ends with the folder (which is a package for that).
    """
    quick = {"cycle_seconds": 0.2, "poll_seconds": 0.2, "commit_seconds": 0.2}
    home = tmp_path_factory.mktemp("whole")
    with running_stack(home, workers=1, webhook_hosts=["127.0.0.1"], **quick) as stack, served(stack) as api:
        yield api
