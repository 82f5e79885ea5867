"""The broker: Celery on Redis carries pack ids as hints, and nothing depends on one arriving.

Stock Celery on Redis loses a message in 20 to 36 % of kills while it drains short tasks (kombu takes
it off the list before it notes it as unacknowledged), so a message is only a wake-up: the truth is
Postgres, workers also poll it, and the scheduler sends a hint again while its pack still waits.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable
from typing import Any, Final

import celery.worker.state
import redis
from celery import Celery
from celery.worker import WorkController
from kombu.exceptions import OperationalError

from pipeline.domain.errors import UsageError
from pipeline.domain.ids import PackId

_LOG = logging.getLogger(__name__)

#: The name on the wire; it carries the brand and never a module path.
TASK_NAME: Final = "nightrate.run_pack"
_KEY_PREFIX: Final = "nightrate:"
_QUEUE_PREFIX: Final = "nightrate.pool."
_SERVER_VERSION_MIN: Final = (6, 2)
#: Rest before listening again after something on the queue could not even be taken for a message.
_RELISTEN_SECONDS: Final = 1.0

#: Why each setting is what it is: docs/adr/0001.
_SETTINGS: Final[dict[str, Any]] = {
    "task_serializer": "json",
    "accept_content": ["json"],
    "task_ignore_result": True,
    "result_backend": None,
    "task_acks_late": True,
    "task_reject_on_worker_lost": False,
    "task_create_missing_queues": True,
    "worker_prefetch_multiplier": 1,
    "worker_disable_prefetch": True,
    "worker_cancel_long_running_tasks_on_connection_loss": False,
    "worker_hijack_root_logger": False,
    "worker_redirect_stdouts": False,
    "worker_enable_remote_control": False,
    "worker_send_task_events": False,
    "broker_connection_retry_on_startup": True,
    "broker_connection_max_retries": None,
    "task_publish_retry_policy": {"max_retries": 1, "interval_start": 0, "interval_step": 0.2},
    "broker_transport_options": {
        "visibility_timeout": 300,
        "unacked_restore_interval": 5,
        "unacked_restore_throttle": 1,
        "socket_connect_timeout": 2,
        "socket_keepalive": True,
        "health_check_interval": 10,
        "global_keyprefix": _KEY_PREFIX,
    },
}


def make_app(redis_url: str, *, socket_seconds: float = 5.0) -> Celery:
    """Return a Celery app with the settings that were measured; it connects lazily."""
    app = Celery("nightrate", broker=redis_url, set_as_current=False)
    app.conf.update(_SETTINGS)
    app.conf.broker_transport_options = {**_SETTINGS["broker_transport_options"], "socket_timeout": socket_seconds}
    return app


def queue_of(pool: str) -> str:
    """Return the queue that a pool's hints travel on."""
    return _QUEUE_PREFIX + pool


def check_server(redis_url: str) -> None:
    """Refuse a server that would drop hints silently or is too old; raises `UsageError`."""
    client = redis.Redis.from_url(redis_url, socket_timeout=5, socket_connect_timeout=2, decode_responses=True)
    try:
        version = str(client.info("server")["redis_version"])
        policy = _eviction_policy(client)
    except redis.RedisError as error:
        raise UsageError(f"Redis does not answer: {error}", hint="set NIGHTRATE_REDIS_URL") from error
    finally:
        client.close()
    if tuple(int(part) for part in version.split(".")[:2]) < _SERVER_VERSION_MIN:
        raise UsageError(f"Redis {version} is too old", hint="6.2 or newer")
    if policy != "noeviction":
        raise UsageError(f"Redis evicts keys (maxmemory-policy {policy})", hint="set maxmemory-policy to noeviction")


def _eviction_policy(client: redis.Redis) -> str:
    try:
        return str(client.config_get("maxmemory-policy").get("maxmemory-policy", "noeviction"))
    except redis.ResponseError:
        # Managed servers forbid CONFIG; what cannot be seen is not refused.
        return "noeviction"


class HintSender:
    """Sends hints; one that cannot be sent is dropped, because its pack will be hinted again."""

    def __init__(self, redis_url: str, *, socket_seconds: float = 5.0) -> None:
        """Connect lazily; wait `socket_seconds` for each answer."""
        self._app = make_app(redis_url, socket_seconds=socket_seconds)
        self._is_down = False

    def send(self, pack_id: PackId, pool: str) -> bool:
        """Send one hint; False when the broker cannot be reached (for some seconds at most)."""
        try:
            self._app.send_task(TASK_NAME, args=[pack_id], queue=queue_of(pool), ignore_result=True)
        except (OperationalError, redis.RedisError, OSError) as error:
            if not self._is_down:
                _LOG.warning("broker_down", extra={"reason": str(error)})
            self._is_down = True
            return False
        self._is_down = False
        return True

    def close(self) -> None:
        """Give the connections back."""
        self._app.close()


class HintListener:
    """Listens for a pool's hints in a thread; the broker may be down, early, late or for ever."""

    def __init__(self, redis_url: str, pool: str, on_hint: Callable[[], None]) -> None:
        """Call `on_hint` for each hint; what it names does not matter, Postgres decides."""
        self._app = make_app(redis_url)
        self._queue = queue_of(pool)

        # Celery shares tasks among all apps of a process unless told not to; the first one would get every hint.
        @self._app.task(name=TASK_NAME, shared=False)
        def run_pack(pack_id: str) -> None:
            _LOG.debug("hint_received", extra={"pack_id": pack_id})
            on_hint()

        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._listen, name="hints", daemon=True)

    def start(self) -> None:
        """Start listening."""
        _tell_celery_to_stop(None)
        self._thread.start()

    def stop(self, timeout_seconds: float = 2.0) -> None:
        """Stop listening; a listener stuck on a dead broker is left to die with the process."""
        self._stopped.set()
        _tell_celery_to_stop(os.EX_OK)
        self._thread.join(timeout=timeout_seconds)
        self._app.close()

    def _listen(self) -> None:
        # Celery looks tasks up in its thread's current app.
        self._app.set_current()
        while not self._stopped.is_set():
            try:
                self._controller().start()
            except Exception:  # noqa: BLE001 -- hints are a convenience, and no reason for anything to end
                _LOG.exception("hints_stopped")
            # Celery ends on what is no message at all, such as a line of text, and has logged it by now.
            self._stopped.wait(_RELISTEN_SECONDS)

    def _controller(self) -> WorkController:
        return WorkController(
            app=self._app,
            pool_cls="solo",
            concurrency=1,
            queues=[self._queue],
            without_gossip=True,
            without_mingle=True,
            without_heartbeat=True,
            quiet=True,
        )


def _tell_celery_to_stop(status: int | None) -> None:
    # Celery keeps this flag in a module, so a process has one listener; its loop looks at it between polls.
    celery.worker.state.should_stop = status  # type: ignore[assignment] # the stubs know only its first value
