"""What machines hear of their end, from metadata on the loopback."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest

from infra.cloud.notices import watcher_of
from pipeline.domain.errors import UsageError
from pipeline.ports.fleet import Notice, NoticeKind, Watcher
from tests.infra.cloud.api_server import replaying
from tests.services import eventually

ACTION = "/latest/meta-data/spot/instance-action"
REBALANCE = "/latest/meta-data/events/recommendations/rebalance"
PREEMPTED = "/computeMetadata/v1/instance/preempted"
EVENTS = "/metadata/scheduledevents"
NAME = "/metadata/instance/compute/name"
SOON = 0.02


@dataclass(kw_only=True)
class Metadata:
    """A machine's metadata."""

    url: str = ""
    said: dict[str, str] = field(default_factory=dict)
    #: A header that each request must have, and its value.
    demanded: tuple[str, str] | None = None
    #: Those that hold; each lasts for so many requests.
    tokens: dict[str, int] = field(default_factory=dict)
    has_tokens: bool = False
    token_requests: int = 0
    asked: list[str] = field(default_factory=list)
    changed: threading.Condition = field(default_factory=threading.Condition)

    def answer(self, method: str, target: str, headers: Callable[[str], str | None]) -> tuple[int, str, str]:
        """Return status, content and ETag."""
        url = urlsplit(target)
        self.asked.append(target)
        if method == "PUT":
            assert url.path == "/latest/api/token"
            assert headers("X-aws-ec2-metadata-token-ttl-seconds")
            self.token_requests += 1
            token = f"token-{self.token_requests}"
            self.tokens[token] = 5
            return 200, token, ""
        if self.has_tokens:
            token = headers("X-aws-ec2-metadata-token") or ""
            self.tokens[token] = self.tokens.get(token, 0) - 1
            if self.tokens[token] < 0:
                return 401, "", ""
        if self.demanded is not None and headers(self.demanded[0]) != self.demanded[1]:
            return 403, "", ""
        query = parse_qs(url.query)
        with self.changed:
            if "wait_for_change" in query:
                before = query["last_etag"][0]
                self.changed.wait_for(lambda: self.etag(url.path) != before, timeout=10)
            if url.path not in self.said:
                return 404, "", ""
            return 200, self.said[url.path], self.etag(url.path)

    def etag(self, path: str) -> str:
        return f"{hash(self.said.get(path)):x}"

    def say(self, path: str, text: str) -> None:
        with self.changed:
            self.said[path] = text
            self.changed.notify_all()


@pytest.fixture
def metadata() -> Iterator[Metadata]:
    metadata = Metadata()

    class Handler(BaseHTTPRequestHandler):
        def _answer(self) -> None:
            status, content, etag = metadata.answer(self.command, self.path, self.headers.get)
            self.send_response(status)
            self.send_header("ETag", etag)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content.encode())

        def do_GET(self) -> None:
            self._answer()

        def do_PUT(self) -> None:
            self._answer()

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    metadata.url = f"http://127.0.0.1:{server.server_port}"
    yield metadata
    server.shutdown()
    server.server_close()
    thread.join()


@contextmanager
def watching(provider: str, base_url: str, **environment: str) -> Iterator[Watcher]:
    watcher = watcher_of(provider, base_url=base_url, environment=environment, poll_seconds=SOON)
    try:
        yield watcher
    finally:
        watcher.close()


def test_ec2_announces_an_interruption_to_who_has_a_token(metadata: Metadata) -> None:
    metadata.has_tokens = True
    with watching("aws", metadata.url) as watcher:
        eventually(lambda: metadata.asked.count(ACTION) > 3)
        assert watcher.notice() is None
        metadata.say(ACTION, '{"action": "terminate", "time": "2026-11-22T12:02:00Z"}')

        eventually(lambda: watcher.notice() is not None)

        assert watcher.notice() == Notice(kind=NoticeKind.INTERRUPTION, at=datetime(2026, 11, 22, 12, 2, tzinfo=UTC))
        # A token that holds no more is renewed, and none is asked for without need.
        assert 1 < metadata.token_requests < len(metadata.asked) / 4


def test_ec2_recommends_to_leave_before_it_interrupts(metadata: Metadata) -> None:
    with watching("aws", metadata.url) as watcher:
        metadata.say(REBALANCE, '{"noticeTime": "2026-11-22T12:00:00Z"}')
        eventually(lambda: watcher.notice() == Notice(kind=NoticeKind.REBALANCE))

        metadata.say(ACTION, "not what was agreed upon")

        eventually(lambda: watcher.notice() == Notice(kind=NoticeKind.INTERRUPTION))
        metadata.said.clear()
        assert watcher.look() == Notice(kind=NoticeKind.INTERRUPTION)


def test_google_answers_when_something_changes(metadata: Metadata) -> None:
    metadata.demanded = ("Metadata-Flavor", "Google")
    metadata.say(PREEMPTED, "FALSE")
    with watching("gcp", metadata.url) as watcher:
        eventually(lambda: any("wait_for_change" in asked for asked in metadata.asked))
        assert watcher.notice() is None

        metadata.say(PREEMPTED, "TRUE")

        eventually(lambda: watcher.notice() == Notice(kind=NoticeKind.INTERRUPTION))


def test_azure_announces_evictions_of_this_machine(metadata: Metadata) -> None:
    metadata.demanded = ("Metadata", "true")
    event = '{"EventType": "%s", "Resources": ["%s"], "NotBefore": "Sun, 22 Nov 2026 12:00:30 GMT"}'
    metadata.say(NAME, "worker_7")
    others = ", ".join([event % ("Preempt", "worker_8"), event % ("Reboot", "worker_7")])
    metadata.say(EVENTS, f'{{"DocumentIncarnation": 1, "Events": [{others}]}}')
    with watching("azure", metadata.url) as watcher:
        eventually(lambda: sum(EVENTS in asked for asked in metadata.asked) > 2)
        assert watcher.notice() is None

        metadata.say(EVENTS, f'{{"DocumentIncarnation": 2, "Events": [{others}, {event % ("Preempt", "worker_7")}]}}')

        eventually(lambda: watcher.notice() is not None)
        assert watcher.notice() == Notice(
            kind=NoticeKind.INTERRUPTION, at=datetime(2026, 11, 22, 12, 0, 30, tzinfo=UTC)
        )


def test_kubernetes_tells_an_eviction_from_a_deletion() -> None:
    pod = {"NIGHTRATE_POD_NAME": "me", "NIGHTRATE_POD_NAMESPACE": "nightrate"}
    with replaying("watched") as replay:
        watcher = watcher_of("kubernetes", base_url=replay.url, environment=pod, poll_seconds=3600.0)
        eventually(lambda: len(replay.exchanges) == 1)
        assert watcher.notice() is None

        assert watcher.look() == Notice(kind=NoticeKind.INTERRUPTION)
        assert watcher.notice() == Notice(kind=NoticeKind.INTERRUPTION)
        watcher.close()


def test_metadata_that_does_not_answer_says_nothing_until_it_does(
    metadata: Metadata, caplog: pytest.LogCaptureFixture
) -> None:
    metadata.has_tokens = False
    metadata.demanded = ("X-aws-ec2-metadata-token", "of nobody")
    with watching("aws", metadata.url) as watcher:
        eventually(lambda: len(metadata.asked) > 5)
        assert watcher.look() is None
        metadata.say(ACTION, "{}")
        metadata.demanded = None
        eventually(lambda: watcher.notice() is not None)
    assert [record.message for record in caplog.records].count("notices_not_heard") == 1


def test_a_file_tells_of_the_end_and_the_cloud_is_heard_beside_it(metadata: Metadata, tmp_path: Path) -> None:
    file = tmp_path / "notice"
    watcher = watcher_of("aws", file=file, base_url=metadata.url, environment={}, poll_seconds=SOON)
    metadata.say(REBALANCE, "{}")
    eventually(lambda: watcher.notice() == Notice(kind=NoticeKind.REBALANCE))

    file.touch()

    assert watcher.notice() == Notice(kind=NoticeKind.INTERRUPTION)
    watcher.close()


def test_without_a_provider_nobody_takes_the_machine() -> None:
    watcher = watcher_of(None)

    assert (watcher.notice(), watcher.look()) == (None, None)
    watcher.close()


def test_providers_that_nobody_knows_are_refused() -> None:
    with pytest.raises(UsageError, match="aws, gcp, azure or kubernetes"):
        watcher_of("heroku")
    with pytest.raises(UsageError, match="does not know its Pod"):
        watcher_of("kubernetes", environment={})
