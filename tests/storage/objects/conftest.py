"""A real S3 server for the run, and both stores behind one fixture."""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from pipeline.ports.objects import ObjectStore
from storage.objects.local import LocalStore
from storage.objects.s3 import S3Store
from tests.storage.objects.weed import BUCKET, S3Server, running_weed


@dataclass(frozen=True, slots=True, kw_only=True)
class Bench:
    """One store to examine, and the means to damage what it holds."""

    store: ObjectStore
    #: Replaces the bytes under a key behind the store's back.
    damage: Callable[[str, bytes], None]


@pytest.fixture(scope="session")
def s3_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    with running_weed(tmp_path_factory.mktemp("weed")) as server:
        yield server


@pytest.fixture
def s3_store(s3_server: S3Server, tmp_path: Path) -> Iterator[S3Store]:
    (tmp_path / "downloads").mkdir()
    store = S3Store(
        BUCKET,
        prefix=f"run/{uuid.uuid4().hex}",
        endpoint_url=s3_server.endpoint_url,
        credentials=s3_server.credentials,
        temp_dir=tmp_path / "downloads",
    )
    yield store
    store.close()
    assert not list((tmp_path / "downloads").iterdir())


@pytest.fixture
def local_store(tmp_path: Path) -> LocalStore:
    return LocalStore(tmp_path / "objects")


@pytest.fixture(params=["local", "s3"])
def bench(request: pytest.FixtureRequest) -> Bench:
    if request.param == "local":
        return _local_bench(request.getfixturevalue("local_store"))
    return _s3_bench(request.getfixturevalue("s3_store"), request.getfixturevalue("s3_server"))


@pytest.fixture
def store(bench: Bench) -> ObjectStore:
    return bench.store


@pytest.fixture(scope="session")
def large_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """70 MiB and a bit of random bytes: past the bound for one request, and no multiple of a part."""
    path = tmp_path_factory.mktemp("large") / "input"
    with path.open("wb") as file:
        for _ in range(70):
            file.write(os.urandom(1024 * 1024))
        file.write(b"tail")
    return path


def _local_bench(store: LocalStore) -> Bench:
    def damage(key: str, content: bytes) -> None:
        path = store._root / key
        path.chmod(0o644)
        path.write_bytes(content)

    return Bench(store=store, damage=damage)


def _s3_bench(store: S3Store, server: S3Server) -> Bench:
    def damage(key: str, content: bytes) -> None:
        name = f"{store._prefix}{key}"
        metadata = server.client.head_object(Bucket=BUCKET, Key=name)["Metadata"]
        server.client.put_object(Bucket=BUCKET, Key=name, Body=content, Metadata=metadata)

    return Bench(store=store, damage=damage)
