"""What a machine hears of its end: from its cloud's metadata, from Kubernetes, or from a file."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any, Final, Protocol
from urllib.parse import quote, urlencode

import orjson
import urllib3
from urllib3.exceptions import HTTPError

from infra.cloud.kubernetes import ApiClient, ApiError, ApiServer
from infra.cloud.pods import moment
from pipeline.domain.errors import NightrateError, UsageError
from pipeline.ports.fleet import Notice, NoticeKind, ProviderUnavailableError, Watcher

_LOG = logging.getLogger(__name__)

#: A machine at EC2 has two minutes, at the others half a minute.
POLL_SECONDS: Final = 5.0
_CONNECT_SECONDS: Final = 2.0
_ANSWER_SECONDS: Final = 10.0
_ANSWER_BYTES_MAX: Final = 1024 * 1024
_TOKEN_SECONDS: Final = 21_600
_OK, _UNAUTHORIZED, _NOT_FOUND = 200, 401, 404


class Source(Protocol):
    """Where notices are read from."""

    def look(self) -> Notice | None:
        """Return what is said now; raises `NightrateError` where nobody answers."""

    def wait(self, seconds: float, closed: threading.Event) -> Notice | None:
        """Return what is said within so many seconds, or at once where it can only be asked again and again."""


class Metadata:
    """A cloud's metadata, at an address that only its machines reach. Safe to share between threads."""

    def __init__(self, base_url: str) -> None:
        """Ask nothing yet; whatever proxies the environment names, none is used."""
        self._base = base_url.rstrip("/")
        self._pool = urllib3.PoolManager(retries=False, maxsize=2)

    def ask(
        self, method: str, path: str, headers: Mapping[str, str], *, answer_seconds: float = _ANSWER_SECONDS
    ) -> tuple[int, bytes, Mapping[str, str]]:
        """Return status, content and headers; raises `ProviderUnavailableError`."""
        timeout = urllib3.Timeout(connect=_CONNECT_SECONDS, read=answer_seconds)
        try:
            response = self._pool.request(
                method,
                f"{self._base}{path}",
                headers=dict(headers),
                timeout=timeout,
                redirect=False,
                preload_content=False,
            )
            try:
                return response.status, response.read(_ANSWER_BYTES_MAX), response.headers
            finally:
                response.release_conn()
        except (HTTPError, OSError) as error:
            raise ProviderUnavailableError(f"{self._base} does not answer: {error}") from error


class Ec2Metadata:
    """EC2's, version 2: by token."""

    def __init__(self, base_url: str = "http://169.254.169.254") -> None:
        """Ask nothing yet."""
        self._metadata = Metadata(base_url)
        self._token: str | None = None

    def look(self) -> Notice | None:
        """Return the interruption announced, or else the recommendation to leave."""
        action = self._read("/latest/meta-data/spot/instance-action")
        if action is not None:
            return Notice(kind=NoticeKind.INTERRUPTION, at=_moment_of(action, "time"))
        if self._read("/latest/meta-data/events/recommendations/rebalance") is not None:
            return Notice(kind=NoticeKind.REBALANCE)
        return None

    def wait(self, seconds: float, closed: threading.Event) -> Notice | None:
        """Look after so many seconds."""
        return None if closed.wait(seconds) else self.look()

    def _read(self, path: str) -> bytes | None:
        for _ in range(2):
            if self._token is None:
                life = {"X-aws-ec2-metadata-token-ttl-seconds": str(_TOKEN_SECONDS)}
                status, content, _headers = self._metadata.ask("PUT", "/latest/api/token", life)
                if status != _OK:
                    raise ProviderUnavailableError(f"EC2's metadata gives no token: {status}")
                self._token = content.decode(errors="replace")
            status, content, _headers = self._metadata.ask("GET", path, {"X-aws-ec2-metadata-token": self._token})
            if status != _UNAUTHORIZED:
                break
            self._token = None
        if status == _NOT_FOUND:
            return None
        if status != _OK:
            raise ProviderUnavailableError(f"EC2's metadata answers {status} about {path}")
        return content


class GcpMetadata:
    """Google's, which answers as soon as something changes."""

    def __init__(self, base_url: str = "http://metadata.google.internal") -> None:
        """Ask nothing yet."""
        self._metadata = Metadata(base_url)
        self._etag: str | None = None

    def look(self) -> Notice | None:
        """Return whether the machine is being preempted."""
        return self._ask({}, _ANSWER_SECONDS)

    def wait(self, seconds: float, closed: threading.Event) -> Notice | None:
        """Return at the first change, or after so many seconds."""
        if closed.is_set():
            return None
        if self._etag is None:
            return self.look()
        whole = max(1, int(seconds))
        waited = {"wait_for_change": "true", "timeout_sec": str(whole), "last_etag": self._etag}
        return self._ask(waited, whole + _ANSWER_SECONDS)

    def _ask(self, query: Mapping[str, str], answer_seconds: float) -> Notice | None:
        path = "/computeMetadata/v1/instance/preempted" + (f"?{urlencode(query)}" if query else "")
        status, content, headers = self._metadata.ask(
            "GET", path, {"Metadata-Flavor": "Google"}, answer_seconds=answer_seconds
        )
        if status != _OK:
            raise ProviderUnavailableError(f"Google's metadata answers {status}")
        self._etag = headers.get("ETag")
        # It says no time: half a minute is what it gives.
        return Notice(kind=NoticeKind.INTERRUPTION) if content.strip() == b"TRUE" else None


class AzureMetadata:
    """Azure's scheduled events, which name the machines that they are about."""

    def __init__(self, base_url: str = "http://169.254.169.254") -> None:
        """Ask nothing yet."""
        self._metadata = Metadata(base_url)
        self._me: str | None = None

    def look(self) -> Notice | None:
        """Return the eviction announced for this machine."""
        if self._me is None:
            name = self._read("/metadata/instance/compute/name?api-version=2021-02-01&format=text")
            self._me = name.decode(errors="replace").strip()
        for event in _events(self._read("/metadata/scheduledevents?api-version=2020-07-01")):
            if event.get("EventType") == "Preempt" and self._me in event.get("Resources", ()):
                return Notice(kind=NoticeKind.INTERRUPTION, at=_http_moment(event.get("NotBefore")))
        return None

    def wait(self, seconds: float, closed: threading.Event) -> Notice | None:
        """Look after so many seconds."""
        return None if closed.wait(seconds) else self.look()

    def _read(self, path: str) -> bytes:
        status, content, _ = self._metadata.ask("GET", path, {"Metadata": "true"})
        if status != _OK:
            raise ProviderUnavailableError(f"Azure's metadata answers {status} about {path}")
        return content


class PodConditions:
    """What Kubernetes says of our own Pod: evicted, preempted or on a node that goes, and not just deleted by us."""

    def __init__(self, server: ApiServer, *, namespace: str, pod: str) -> None:
        """Ask nothing yet."""
        self._client = ApiClient(server)
        self._path = f"/api/v1/namespaces/{quote(namespace, safe='')}/pods/{quote(pod, safe='')}"

    def look(self) -> Notice | None:
        """Return the disruption that the Pod is the target of."""
        try:
            pod = self._client.ask("GET", self._path)
        except ApiError as error:
            raise ProviderUnavailableError(f"Kubernetes does not tell of this Pod: {error}") from error
        for condition in pod.get("status", {}).get("conditions", ()):
            if condition.get("type") == "DisruptionTarget" and condition.get("status") == "True":
                ends = pod.get("metadata", {}).get("deletionTimestamp")
                return Notice(kind=NoticeKind.INTERRUPTION, at=None if ends is None else moment(ends))
        return None

    def wait(self, seconds: float, closed: threading.Event) -> Notice | None:
        """Look after so many seconds."""
        return None if closed.wait(seconds) else self.look()


class FileWatcher:
    """A `Watcher` of a file that appears."""

    def __init__(self, path: Path) -> None:
        """Look when asked."""
        self._path = path

    def notice(self) -> Notice | None:
        """Return that the machine goes, once the file is there."""
        return Notice(kind=NoticeKind.INTERRUPTION) if self._path.exists() else None

    def look(self) -> Notice | None:
        """Return the same."""
        return self.notice()

    def close(self) -> None:
        """There is nothing to stop."""


class PollingWatcher:
    """A `Watcher` whose thread asks a source again and again. What was said once stays said."""

    def __init__(self, source: Source, *, poll_seconds: float = POLL_SECONDS) -> None:
        """Start listening."""
        self._source = source
        self._poll_seconds = poll_seconds
        self._closed = threading.Event()
        self._lock = threading.Lock()
        self._notice: Notice | None = None
        self._is_silent = False
        self._thread = threading.Thread(target=self._listen, name="notices", daemon=True)
        self._thread.start()

    def notice(self) -> Notice | None:
        """Return what was heard so far."""
        return self._notice

    def look(self) -> Notice | None:
        """Ask once more; whoever does not answer said nothing."""
        self._hear(self._source.look)
        return self._notice

    def close(self) -> None:
        """Stop listening; the thread ends with the request it is in."""
        self._closed.set()

    def _listen(self) -> None:
        self._hear(self._source.look)
        while not self._closed.is_set():
            if not self._hear(lambda: self._source.wait(self._poll_seconds, self._closed)):
                self._closed.wait(self._poll_seconds)

    def _hear(self, ask: Callable[[], Notice | None]) -> bool:
        try:
            heard = ask()
        except NightrateError as error:
            if not self._is_silent:
                _LOG.warning("notices_not_heard", extra={"reason": error.message})
            self._is_silent = True
            return False
        self._is_silent = False
        with self._lock:
            if heard is not None and (self._notice is None or self._notice.kind is not NoticeKind.INTERRUPTION):
                if self._notice is None or heard.kind is not self._notice.kind:
                    _LOG.warning("notice_heard", extra={"kind": heard.kind, "at": heard.at})
                self._notice = heard
        return True


class AnyWatcher:
    """A `Watcher` of several."""

    def __init__(self, watchers: Sequence[Watcher]) -> None:
        """Listen to all of them."""
        self._watchers = tuple(watchers)

    def notice(self) -> Notice | None:
        """Return what the first of them heard, an interruption before anything else."""
        return _first([watcher.notice() for watcher in self._watchers])

    def look(self) -> Notice | None:
        """Have all look."""
        return _first([watcher.look() for watcher in self._watchers])

    def close(self) -> None:
        """Close all."""
        for watcher in self._watchers:
            watcher.close()


def watcher_of(
    provider: str | None,
    *,
    file: Path | None = None,
    base_url: str | None = None,
    environment: Mapping[str, str] | None = None,
    poll_seconds: float = POLL_SECONDS,
) -> Watcher:
    """Return what listens for a machine's end, already listening.

    Args:
        provider: `aws`, `gcp`, `azure` or `kubernetes`; None: nobody takes the machine.
        file: tells of the end, too, by being there.
        base_url: of the metadata or API server, for tests and proxies; None: the provider's own.
        environment: names our Pod and its cluster; None: the process's.
        poll_seconds: between two looks.

    Raises:
        UsageError: no such provider, or no Pod of a cluster.
    """
    watchers: list[Watcher] = []
    if file is not None:
        watchers.append(FileWatcher(file))
    if provider is not None:
        source = _source_of(provider, base_url, os.environ if environment is None else environment)
        watchers.append(PollingWatcher(source, poll_seconds=poll_seconds))
    return AnyWatcher(watchers)


def _source_of(provider: str, base_url: str | None, environment: Mapping[str, str]) -> Source:
    given = () if base_url is None else (base_url,)
    match provider:
        case "aws":
            return Ec2Metadata(*given)
        case "gcp":
            return GcpMetadata(*given)
        case "azure":
            return AzureMetadata(*given)
        case "kubernetes":
            pod, namespace = environment.get("NIGHTRATE_POD_NAME"), environment.get("NIGHTRATE_POD_NAMESPACE")
            if not pod or not namespace:
                raise UsageError(
                    "this worker does not know its Pod", hint="NIGHTRATE_POD_NAME, NIGHTRATE_POD_NAMESPACE"
                )
            server = ApiServer.of_this_pod(environment) if base_url is None else ApiServer(url=base_url)
            return PodConditions(server, namespace=namespace, pod=pod)
        case _:
            raise UsageError(f"nobody knows how {provider!r} takes machines", hint="aws, gcp, azure or kubernetes")


def _first(notices: Sequence[Notice | None]) -> Notice | None:
    heard = [notice for notice in notices if notice is not None]
    return min(heard, key=lambda notice: notice.kind is not NoticeKind.INTERRUPTION, default=None)


def _moment_of(content: bytes, name: str) -> datetime | None:
    """Return a time of a document; one that cannot be read makes what was said no less true."""
    try:
        at = datetime.fromisoformat(orjson.loads(content)[name])
    except (ValueError, TypeError, KeyError, IndexError):
        return None
    return at.replace(tzinfo=UTC) if at.tzinfo is None else at.astimezone(UTC)


def _http_moment(text: object) -> datetime | None:
    try:
        return parsedate_to_datetime(str(text)).astimezone(UTC)
    except ValueError:
        return None


def _events(content: bytes) -> list[dict[str, Any]]:
    try:
        events = orjson.loads(content)["Events"]
    except (ValueError, TypeError, KeyError, IndexError) as error:
        raise ProviderUnavailableError("Azure's scheduled events cannot be read") from error
    return [event for event in events if isinstance(event, dict)]
