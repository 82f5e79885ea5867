"""One process that holds the data folder, runs the servers and our processes, and ends them in order."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType, TracebackType
from typing import Final

from infra.embedded.folder import DataFolder, Phase, ServicesState, ServiceUrls
from infra.embedded.postgres import PostgresServer
from infra.embedded.server import EmbeddedServer
from infra.embedded.valkey import ValkeyServer
from infra.launch import ProcessIdentity, identify
from infra.processes import Backoff, ManagedProcess, ProcessKeeper, ProcessSpec

logger = logging.getLogger(__name__)

#: How often deaths are looked for; it bounds how late a stop is noticed, too.
LOOK_EVERY_SECONDS: Final = 0.1


class Supervisor:
    """Runs what one box needs, as the body of a daemon (`run_until`) or around a block (`with`).

    A server whose URL is given is not started: it belongs to someone else.
    """

    def __init__(
        self,
        folder: DataFolder,
        commands: Sequence[ProcessSpec] = (),
        *,
        database_url: str | None = None,
        redis_url: str | None = None,
        on_services_up: Callable[[ServiceUrls], None] | None = None,
        backoff: Backoff | None = None,
        postgres_settings: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        """Prepare; nothing starts yet.

        Args:
            folder: where the servers keep their data.
            commands: processes to run once the servers are up, such as scheduler and workers.
            database_url: a PostgreSQL to use instead of one of ours.
            redis_url: a Redis-compatible server to use instead of one of ours.
            on_services_up: runs between servers and processes, in the supervisor's thread; migrations.
            backoff: pauses between restarts.
            postgres_settings: server settings over the defaults.
        """
        self.folder = folder
        self._commands = commands
        self._database_url = database_url
        self._redis_url = redis_url
        self._on_services_up = on_services_up
        self._postgres_settings = postgres_settings
        self._keeper = ProcessKeeper(backoff=backoff)
        self._urls: ServiceUrls | None = None
        self._stop = threading.Event()
        self._settled = threading.Event()
        self._thread: threading.Thread | None = None
        self._error: BaseException | None = None

    @property
    def pids(self) -> Mapping[str, int]:
        """Process numbers of what runs now, by name."""
        return self._keeper.pids

    def run_until(self, stop: threading.Event) -> None:
        """Hold the folder, start everything, keep it alive until `stop` is set, then end it in order.

        Raises:
            FolderLockedError: another supervisor holds the folder.
            ServiceStartError: a server did not start; what had started is stopped again.
        """
        self.folder.create()
        self.folder.lock.acquire()
        try:
            self._publish(Phase.STARTING)
            self._start()
            self._publish(Phase.READY)
            self._settled.set()
            while not stop.wait(LOOK_EVERY_SECONDS):
                if self._keeper.run_once():
                    self._publish(Phase.READY)
            self._publish(Phase.STOPPING)
        finally:
            # The lock goes last: whoever gets it next must find nothing of ours running.
            try:
                self._keeper.stop()
                self.folder.remove_state()
            finally:
                self.folder.lock.release()

    def __enter__(self) -> ServiceUrls:
        """Run in a thread of our own, to which the kernel ties the children's lives; wait until all is up."""
        assert self._thread is None, "a supervisor runs once"
        self._thread = threading.Thread(target=self._run_in_thread, name="supervisor")
        self._thread.start()
        try:
            self._settled.wait()
        except BaseException:
            self._end_thread()
            raise
        if self._error is not None:
            self._end_thread()
            raise self._error
        assert self._urls is not None
        return self._urls

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._end_thread()
        if self._error is not None and error is None:
            raise self._error

    def _run_in_thread(self) -> None:
        try:
            self.run_until(self._stop)
        except BaseException as error:  # noqa: BLE001 - handed to the thread that waits, which raises it
            self._error = error
        finally:
            self._settled.set()

    def _end_thread(self) -> None:
        assert self._thread is not None
        self._stop.set()
        self._thread.join()

    def _start(self) -> None:
        valkey = None if self._redis_url else ValkeyServer(self.folder)
        postgres = None if self._database_url else PostgresServer(self.folder, settings=self._postgres_settings)
        # All begin before any is waited for, so they come up side by side without a thread of their own,
        # whose end would end them too. Valkey needs no preparation, so it goes first.
        servers: list[EmbeddedServer] = [server for server in (valkey, postgres) if server is not None]
        for server in servers:
            server.begin()
            self._keeper.keep(server)
        for server in servers:
            server.await_ready()
        self._urls = ServiceUrls(
            database_url=self._database_url or _url_of(postgres),
            redis_url=self._redis_url or _url_of(valkey),
        )
        if self._on_services_up is not None:
            self._on_services_up(self._urls)
        for spec in self._commands:
            process = ManagedProcess(spec, log_folder=self.folder.logs, env=self._environment(self._urls))
            process.start()
            self._keeper.keep(process)

    def _environment(self, urls: ServiceUrls) -> dict[str, str]:
        return {
            **os.environ,
            "NIGHTRATE_DATABASE_URL": urls.database_url,
            "NIGHTRATE_REDIS_URL": urls.redis_url,
            "NIGHTRATE_HOME": str(self.folder.path),
        }

    def _publish(self, phase: Phase) -> None:
        state = ServicesState(phase=phase, supervisor=_ourselves(), urls=self._urls, pids=self._keeper.pids)
        self.folder.write_state(state)
        logger.info("supervisor_phase", extra={"phase": phase.value, "pids": dict(state.pids)})


def _url_of(server: EmbeddedServer | None) -> str:
    assert server is not None
    return server.url


def _ourselves() -> ProcessIdentity:
    identity = identify(os.getpid())
    assert identity is not None
    return identity
