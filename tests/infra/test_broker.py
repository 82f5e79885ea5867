from __future__ import annotations

import json
import logging
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import redis

from infra.broker import HintListener, HintSender, check_server, make_app, queue_of
from infra.embedded.server import free_port
from pipeline.domain.errors import UsageError
from pipeline.domain.ids import new_pack_id
from tests.services import eventually


@pytest.fixture
def pool() -> str:
    """A pool of the test's own: the server is everybody's."""
    return f"pool-{uuid.uuid4().hex}"


@pytest.fixture
def client(redis_url: str) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(redis_url, decode_responses=True) as opened:
        yield opened


@pytest.fixture
def sender(redis_url: str) -> Iterator[HintSender]:
    opened = HintSender(redis_url)
    yield opened
    opened.close()


@contextmanager
def listening(url: str, pool: str) -> Iterator[threading.Semaphore]:
    """Listen, and count the hints."""
    hints = threading.Semaphore(0)
    listener = HintListener(url, pool, hints.release)
    listener.start()
    try:
        yield hints
    finally:
        listener.stop(timeout_seconds=30.0)
        assert not listener._thread.is_alive()


def key_of(pool: str) -> str:
    return "nightrate:" + queue_of(pool)


def test_a_hint_wakes_the_listener_of_its_pool_only(
    redis_url: str, pool: str, sender: HintSender, caplog: pytest.LogCaptureFixture
) -> None:
    with listening(redis_url, pool) as hints:
        assert sender.send(new_pack_id(), pool + "-other")
        assert sender.send(new_pack_id(), pool)

        assert hints.acquire(timeout=10)
        assert not hints.acquire(blocking=False)
    # A warning would have been raised in the listener's thread, and logged when it ended it.
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


def test_a_hint_names_the_brand_and_no_module(
    redis_url: str, pool: str, sender: HintSender, client: redis.Redis
) -> None:
    del redis_url
    pack_id = new_pack_id()

    assert sender.send(pack_id, pool)

    message = json.loads(str(client.lrange(key_of(pool), 0, -1)[0]))
    assert message["headers"]["task"] == "nightrate.run_pack"
    assert message["content-type"] == "application/json"
    assert pack_id in message["headers"]["argsrepr"]


def test_a_flush_loses_hints_and_nothing_else(
    redis_url: str, pool: str, sender: HintSender, client: redis.Redis
) -> None:
    assert sender.send(new_pack_id(), pool)
    client.flushall()

    with listening(redis_url, pool) as hints:
        client.flushall()
        assert not hints.acquire(blocking=False)
        assert sender.send(new_pack_id(), pool)

        assert hints.acquire(timeout=10)


@pytest.mark.parametrize(
    ("content_type", "body"),
    [("application/x-python-serialize", "gASVBQAAAAAAAACMAWGULg=="), ("application/json", "e25vIGpzb24=")],
)
def test_a_message_that_may_not_be_decoded_is_dropped(
    redis_url: str, pool: str, sender: HintSender, client: redis.Redis, content_type: str, body: str
) -> None:
    sender.send(new_pack_id(), pool)
    message = json.loads(str(client.rpop(key_of(pool))))
    client.lpush(key_of(pool), json.dumps({**message, "content-type": content_type, "body": body}))

    with listening(redis_url, pool) as hints:
        eventually(lambda: not client.llen(key_of(pool)))
        assert sender.send(new_pack_id(), pool)

        assert hints.acquire(timeout=10)


@pytest.mark.parametrize("garbage", ["no json", "[]", '{"headers": {}}', '{"body": 1, "properties": {}}'])
def test_garbage_does_not_end_listening(
    redis_url: str, pool: str, sender: HintSender, client: redis.Redis, garbage: str
) -> None:
    client.lpush(key_of(pool), garbage)

    with listening(redis_url, pool) as hints:
        eventually(lambda: not client.llen(key_of(pool)))
        assert sender.send(new_pack_id(), pool)

        assert hints.acquire(timeout=10)


def test_a_task_of_another_name_is_dropped(redis_url: str, pool: str, sender: HintSender) -> None:
    stranger = make_app(redis_url)
    stranger.send_task("somebody.elses", queue=queue_of(pool))
    stranger.close()

    with listening(redis_url, pool) as hints:
        assert sender.send(new_pack_id(), pool)

        assert hints.acquire(timeout=10)


def test_a_listener_stops_promptly_and_another_can_follow(redis_url: str, pool: str, sender: HintSender) -> None:
    for _ in range(2):
        hints = threading.Semaphore(0)
        listener = HintListener(redis_url, pool, hints.release)
        listener.start()
        assert sender.send(new_pack_id(), pool)
        assert hints.acquire(timeout=10)

        began = time.monotonic()
        listener.stop(timeout_seconds=10.0)

        assert time.monotonic() - began < 5
        assert not listener._thread.is_alive()


def test_a_sender_without_a_broker_says_so_soon_and_once(caplog: pytest.LogCaptureFixture) -> None:
    sender = HintSender(f"redis://127.0.0.1:{free_port()}/0")
    caplog.set_level(logging.WARNING, logger="infra.broker")

    began = time.monotonic()
    assert not sender.send(new_pack_id(), "local")
    assert not sender.send(new_pack_id(), "local")

    assert time.monotonic() - began < 10
    assert [record.message for record in caplog.records if record.name == "infra.broker"] == ["broker_down"]
    sender.close()


def test_a_sender_recovers_when_its_broker_comes_back(redis_url: str, pool: str, client: redis.Redis) -> None:
    with relay(redis_url) as (url, is_up):
        sender = HintSender(url)
        assert not sender.send(new_pack_id(), pool)
        is_up.set()

        eventually(lambda: sender.send(new_pack_id(), pool))
        sender.close()

    assert client.llen(key_of(pool)) >= 1


def test_a_broker_that_never_answers_holds_a_sender_for_seconds_only() -> None:
    with socket.create_server(("127.0.0.1", 0)) as hole:
        sender = HintSender(f"redis://127.0.0.1:{hole.getsockname()[1]}/0", socket_seconds=0.3)

        began = time.monotonic()
        assert not sender.send(new_pack_id(), "local")

        assert time.monotonic() - began < 10
        sender.close()


def test_a_listener_without_a_broker_stops_promptly(pool: str) -> None:
    with listening(f"redis://127.0.0.1:{free_port()}/0", pool) as hints:
        assert not hints.acquire(blocking=False)


@contextmanager
def relay(redis_url: str) -> Iterator[tuple[str, threading.Event]]:
    """Pass connections on to the server once the event is set; hang up on them before."""
    password, _, address = redis_url.removeprefix("redis://").rpartition("@")
    port = int(address.split(":")[1].split("/")[0])
    is_up = threading.Event()

    def pump(source: socket.socket, sink: socket.socket) -> None:
        try:
            while block := source.recv(65536):
                sink.sendall(block)
        except OSError:
            pass
        finally:
            source.close()
            sink.close()

    def accept() -> None:
        while True:
            try:
                near, _ = server.accept()
            except OSError:
                return
            if not is_up.is_set():
                near.close()
                continue
            far = socket.create_connection(("127.0.0.1", port))
            for ends in ((near, far), (far, near)):
                threading.Thread(target=pump, args=ends, daemon=True).start()

    with socket.create_server(("127.0.0.1", 0)) as server:
        accepting = threading.Thread(target=accept, daemon=True)
        accepting.start()
        yield f"redis://{password}@127.0.0.1:{server.getsockname()[1]}/0", is_up
        server.shutdown(socket.SHUT_RDWR)
        accepting.join(timeout=10)


# Celery warns of a default to come each time it reconnects, whatever the setting says.
@pytest.mark.filterwarnings("ignore::celery.exceptions.CPendingDeprecationWarning")
def test_a_listener_finds_its_broker_again(redis_url: str, pool: str, sender: HintSender, client: redis.Redis) -> None:
    with listening(redis_url, pool) as hints:
        assert sender.send(new_pack_id(), pool)
        assert hints.acquire(timeout=10)
        client.client_kill_filter(_type="normal", skipme=True)

        eventually(lambda: sender.send(new_pack_id(), pool))

        assert hints.acquire(timeout=30)


def test_a_server_that_keeps_everything_is_accepted(redis_url: str) -> None:
    check_server(redis_url)


def test_a_server_that_evicts_keys_is_refused_with_what_to_set(redis_url: str, client: redis.Redis) -> None:
    client.config_set("maxmemory-policy", "allkeys-lru")
    try:
        with pytest.raises(UsageError, match=r"allkeys-lru.*set maxmemory-policy to noeviction"):
            check_server(redis_url)
    finally:
        client.config_set("maxmemory-policy", "noeviction")


def test_a_server_that_forbids_config_is_still_asked_its_version(
    redis_url: str, client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = uuid.uuid4().hex
    client.acl_setuser(name, enabled=True, passwords=["+word"], commands=["+info", "+client"], keys=["*"])
    url = f"redis://{name}:word@{redis_url.rpartition('@')[2]}"
    try:
        check_server(url)
        monkeypatch.setattr("infra.broker._SERVER_VERSION_MIN", (99, 0))
        with pytest.raises(UsageError, match="too old"):
            check_server(url)
    finally:
        client.acl_deluser(name)


def test_a_server_that_is_away_is_refused() -> None:
    with pytest.raises(UsageError, match="does not answer"):
        check_server(f"redis://127.0.0.1:{free_port()}/0")


def test_the_settings_are_those_that_were_measured() -> None:
    conf = make_app("redis://127.0.0.1:1/0").conf

    wanted = {
        "task_serializer": "json",
        "accept_content": ["json"],
        "task_ignore_result": True,
        "result_backend": None,
        "task_acks_late": True,
        "task_reject_on_worker_lost": False,
        "worker_prefetch_multiplier": 1,
        "worker_disable_prefetch": True,
        "worker_cancel_long_running_tasks_on_connection_loss": False,
        "broker_connection_retry_on_startup": True,
        "broker_connection_max_retries": None,
        "task_publish_retry_policy": {"max_retries": 1, "interval_start": 0, "interval_step": 0.2},
        "broker_transport_options": {
            "visibility_timeout": 300,
            "unacked_restore_interval": 5,
            "unacked_restore_throttle": 1,
            "socket_timeout": 5,
            "socket_connect_timeout": 2,
            "socket_keepalive": True,
            "health_check_interval": 10,
            "global_keyprefix": "nightrate:",
        },
    }
    assert {name: conf[name] for name in wanted} == wanted
