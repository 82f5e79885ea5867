"""Servers every test folder may ask for: started once per run, on first use."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from pathlib import Path

import botocore.session
import pytest
from botocore.loaders import create_loader

from tests.services import fresh_database, has_migrations, make_template, quick_folder, running_postgres, running_valkey


@pytest.fixture(scope="session", autouse=True)
def _aws_is_described_once() -> Iterator[None]:
    """Keep what boto3 reads of AWS's interfaces, megabytes of JSON, which it reads again for each of our stores."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(botocore.session, "create_loader", cache(create_loader))
        yield


@pytest.fixture(scope="session")
def services_root(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Where the servers of this process keep their data: in memory, if it has room."""
    with quick_folder(tmp_path_factory.mktemp("services")) as folder:
        yield folder / "home"


@pytest.fixture(scope="session")
def postgres_url(services_root: Path) -> Iterator[str]:
    """One PostgreSQL for the run, fsync off; its database `nightrate` is empty."""
    with running_postgres(services_root) as url:
        yield url


@pytest.fixture(scope="session")
def redis_url(services_root: Path) -> Iterator[str]:
    """One Valkey for the run; tests that need it empty use keys of their own or flush."""
    with running_valkey(services_root) as url:
        yield url


@pytest.fixture(scope="session")
def template_url(postgres_url: str) -> str:
    """The server, with the migrated template in it."""
    if not has_migrations():
        pytest.skip("storage.migrations does not exist yet")
    make_template(postgres_url)
    return postgres_url


@pytest.fixture
def database_url(template_url: str) -> Iterator[str]:
    """A migrated database of this test's own."""
    with fresh_database(template_url) as url:
        yield url
