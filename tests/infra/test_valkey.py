from __future__ import annotations

import os
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from infra.embedded.folder import DataFolder
from infra.embedded.server import free_port
from infra.embedded.valkey import ValkeyServer
from tests.services import eventually


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ValkeyServer]:
    server = ValkeyServer(DataFolder(tmp_path / "home"))
    yield server
    server.stop()


def setting(client: redis.Redis, name: str) -> str:
    return str(client.config_get(name)[name])


def test_it_logs_every_write_and_evicts_nothing(server: ValkeyServer) -> None:
    with redis.Redis.from_url(server.start(), decode_responses=True) as client:
        assert setting(client, "appendonly") == "yes"
        assert setting(client, "appendfsync") == "everysec"
        assert setting(client, "maxmemory-policy") == "noeviction"
        assert setting(client, "save") == ""
        assert setting(client, "bind") == "127.0.0.1"


def test_the_password_is_required_and_shown_nowhere(server: ValkeyServer) -> None:
    server.start()
    password = server.folder.credentials().redis_password

    with (
        redis.Redis(port=server.port or 0, retry=Retry(NoBackoff(), 0)) as client,
        pytest.raises(redis.AuthenticationError),
    ):
        client.ping()
    assert password not in Path(f"/proc/{server.pid}/cmdline").read_text()
    assert password not in server.log_path.read_text()
    assert not list((server.folder.path / "valkey").rglob("*.conf"))


def test_keys_survive_a_kill(server: ValkeyServer) -> None:
    url = server.start()
    with redis.Redis.from_url(url) as client:
        client.rpush("list", *range(1000))
    assert server.pid is not None
    os.kill(server.pid, signal.SIGKILL)
    eventually(lambda: not server.is_alive())

    server.restart()
    server.await_ready()

    assert server.url == url
    with redis.Redis.from_url(url) as client:
        assert client.llen("list") == 1000


def test_a_lost_port_is_replaced(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as thief:
        ports = [thief.getsockname()[1], free_port()]
        server = ValkeyServer(DataFolder(tmp_path / "home"), pick_port=lambda: ports.pop(0))

        server.start()

        assert server.port != thief.getsockname()[1]
        server.stop()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root runs servers as another user")
def test_root_gets_a_server_that_runs_as_an_ordinary_user(server: ValkeyServer) -> None:
    server.start()

    assert Path(f"/proc/{server.pid}").stat().st_uid != 0


def test_the_shared_server_answers(redis_url: str) -> None:
    with redis.Redis.from_url(redis_url) as client:
        assert client.ping()
