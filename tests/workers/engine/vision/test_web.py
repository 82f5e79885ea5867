"""Servers that nobody here knows, some of them hostile."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Iterator

import pytest

from pipeline.domain.addresses import AddressPolicy, Reach, policy_of
from pipeline.domain.errors import RequestRefusedError
from tests.workers.engine.vision.webserver import WebServer, answer, running
from workers.engine.vision.web import Web, WebLimits

LIMITS = WebLimits(bytes_max=1000)
LOOPBACK = policy_of(Reach.LISTED, ["127.0.0.1"])


@pytest.fixture
def server() -> Iterator[WebServer]:
    with running() as server:
        yield server


class Paused:
    """Pauses that take no time, and what they were."""

    def __init__(self) -> None:
        self.seconds: list[float] = []

    def __call__(self, seconds: float) -> None:
        self.seconds.append(seconds)


def web(policy: AddressPolicy = LOOPBACK, limits: WebLimits = LIMITS, **more: object) -> Web:
    return Web(policy, limits, **{"pause": Paused(), **more})  # type: ignore[arg-type] # fields by name


def refused(fetcher: Web, url: str) -> RequestRefusedError:
    with pytest.raises(RequestRefusedError) as caught:
        fetcher.fetch(url)
    return caught.value


def test_what_stands_there_comes_back(server: WebServer) -> None:
    server.answers["/a%20b.png?x=1&y=%C3%A4"] = [answer(b"picture")]

    assert web().fetch(server.url("/a%20b.png?x=1&y=ä")) == b"picture"

    [request] = server.asked
    head = request.lower()
    assert f"host: 127.0.0.1:{server.port}".encode() in head
    assert b"accept-encoding: identity" in head
    assert not any(word in head for word in (b"cookie", b"authorization", b"referer"))


def test_content_of_unknown_length_comes_back_whole(server: WebServer) -> None:
    chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\npict\r\n3\r\nure\r\n0\r\n\r\n"
    server.answers |= {"/chunked": [chunked], "/until-closed": [b"HTTP/1.0 200 OK\r\n\r\npicture"]}

    assert web().fetch(server.url("/chunked")) == web().fetch(server.url("/until-closed")) == b"picture"


@pytest.mark.parametrize(
    ("reply", "code", "tries"),
    [
        (answer(b"", "404 Not Found"), "image_file_not_found", 1),
        (answer(b"", "410 Gone"), "image_file_not_found", 1),
        (answer(b"", "403 Forbidden"), "failed_to_download_image", 1),
        (answer(b"", "204 No Content"), "failed_to_download_image", 1),
        (answer(b"", "304 Not Modified"), "failed_to_download_image", 1),
        (answer(b"x", "200 OK", "Content-Encoding: gzip"), "failed_to_download_image", 1),
        (answer(b"", "503 Busy"), "failed_to_download_image", 3),
        (answer(b"", "429 Slow down"), "failed_to_download_image", 3),
        (answer(b"half", length=8), "failed_to_download_image", 3),
        (b"hello", "failed_to_download_image", 3),
        (b"", "failed_to_download_image", 3),
        (answer(b"x" * 1001), "image_file_too_large", 1),
        (answer(b"", length=10**12), "image_file_too_large", 1),
        (b"HTTP/1.0 200 OK\r\n\r\n" + b"x" * 5000, "image_file_too_large", 1),
        (
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nffffffff\r\n" + b"x" * 200_000,
            "image_file_too_large",
            1,
        ),
        (b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 500 + b"\r\n", "failed_to_download_image", 3),
        (b"HTTP/1.1 200 OK\r\nX: " + b"y" * 100_000, "failed_to_download_image", 3),
    ],
)
def test_what_servers_may_answer_instead_is_an_error_by_name(
    server: WebServer, reply: bytes, code: str, tries: int
) -> None:
    server.answers["/a"] = [reply]

    error = refused(web(), server.url("/a"))

    assert error.row_code == code
    assert len(server.asked) == tries
    assert error.status_code == (424 if tries == 3 else 400)


def test_a_server_that_recovers_is_asked_again_after_growing_pauses(server: WebServer) -> None:
    server.answers["/a"] = [answer(b"", "500 Oops"), answer(b"", "502 Bad"), answer(b"picture")]
    paused = Paused()

    assert web(pause=paused).fetch(server.url("/a")) == b"picture"
    assert paused.seconds == [0.5, 1.0]


def test_redirects_are_followed_a_few_times(server: WebServer) -> None:
    for number in range(5):
        server.answers[f"/{number}"] = [answer(b"", "302 Found", f"Location: /{number + 1}")]
    server.answers["/5"] = [answer(b"picture")]

    assert web().fetch(server.url("/2")) == b"picture"
    assert refused(web(), server.url("/1")).row_code == "invalid_image_url"


@pytest.mark.parametrize(
    "target",
    [
        "http://127.0.0.2/", "http://localhost.example/", "//169.254.169.254/latest/meta-data", "file:///etc/passwd",
        "ftp://host/a", "http://u:p@127.0.0.1/", "http://[::1]/", "http://[::ffff:127.0.0.1]/", "gopher://x/",
        "data:image/png;base64,AAAA", "/a b",
    ],
)  # fmt: skip
def test_a_redirect_to_where_the_url_itself_might_not_lead_is_refused(server: WebServer, target: str) -> None:
    server.answers["/a"] = [answer(b"", "301 Moved", f"Location: {target}")]
    fetcher = web(resolve=lambda host, _port: ["127.0.0.3"] if host == "localhost.example" else [host])

    assert refused(fetcher, server.url("/a")).row_code == "invalid_image_url"
    assert len(server.asked) == 1


@pytest.mark.parametrize(
    "host",
    ["127.0.0.1", "localhost", "0.0.0.0", "127.1", "2130706433", "0x7f000001", "[::1]", "[::ffff:7f00:1]"],  # noqa: S104 -- nothing is bound
)
def test_loopback_is_refused_however_it_is_written(server: WebServer, host: str) -> None:
    server.answers["/a"] = [answer(b"secret")]
    numbers = {"127.1", "2130706433", "0x7f000001", "localhost"}

    def resolve(name: str, _port: int) -> list[str]:
        return ["127.0.0.1"] if name in numbers else [name]

    error = refused(web(policy_of(Reach.PUBLIC, []), resolve=resolve), server.url("/a", host))

    assert error.row_code == "invalid_image_url"
    assert not server.asked


def test_a_name_is_looked_up_once_and_connected_to_at_the_very_address_that_was_allowed(server: WebServer) -> None:
    server.answers["/a"] = [answer(b"picture")]
    lookups = itertools.count()

    def rebinding(_host: str, _port: int) -> list[str]:
        return ["127.0.0.1"] if next(lookups) == 0 else ["127.0.0.9"]

    assert web(resolve=rebinding).fetch(server.url("/a", "images.example")) == b"picture"
    assert next(lookups) == 1
    assert f"Host: images.example:{server.port}".encode() in server.asked[0]


def test_a_name_that_answers_otherwise_the_second_time_is_refused_then(server: WebServer) -> None:
    server.answers["/a"] = [answer(b"", "302 Found", "Location: /b")]
    server.answers["/b"] = [answer(b"secret")]
    answers = iter([["127.0.0.1"], ["127.0.0.9"]])

    error = refused(web(resolve=lambda _host, _port: next(answers)), server.url("/a", "images.example"))

    assert error.row_code == "invalid_image_url"
    assert len(server.asked) == 1


def test_only_the_allowed_of_a_names_addresses_are_connected_to(server: WebServer) -> None:
    server.answers["/a"] = [answer(b"picture")]

    found = web(resolve=lambda _host, _port: ["10.0.0.1", "nonsense", "127.0.0.1"]).fetch(server.url("/a", "x.example"))

    assert found == b"picture"


def test_a_name_that_is_not_known_may_be_later(server: WebServer) -> None:
    def unknown(_host: str, _port: int) -> list[str]:
        raise OSError

    error = refused(web(resolve=unknown), server.url("/a", "nowhere.example"))

    assert (error.row_code, error.status_code) == ("failed_to_download_image", 424)


def test_nothing_is_asked_where_fetching_is_off(server: WebServer) -> None:
    error = refused(web(policy_of(Reach.OFF, ["127.0.0.1"])), server.url("/a"))

    assert (error.row_code, server.asked) == ("invalid_image_url", [])
    assert "url_reach" in error.message


def test_a_server_that_speaks_ever_so_slowly_is_left_at_the_deadline(server: WebServer) -> None:
    clock = itertools.count()

    def drip(_request: bytes) -> Iterator[bytes]:
        yield b"HTTP/1.1 200 OK\r\nContent-Length: 900000000\r\n\r\n"
        while True:
            yield b"x"

    server.answers["/a"] = [drip]
    limits = WebLimits(bytes_max=1_000_000_000, seconds_max=10, tries_max=1)

    # Each look at the clock is a second: the deadline comes before the picture is whole.
    error = refused(web(limits=limits, now_seconds=lambda: float(next(clock))), server.url("/a"))

    assert "too long" in error.message


def test_a_silent_server_is_left_when_the_worker_stops(server: WebServer) -> None:
    talking = threading.Event()

    def silent(_request: bytes) -> Iterator[bytes]:
        talking.set()
        server.go_on.wait()
        yield b""

    server.answers["/a"] = [silent]
    fetcher = web(pause=None)
    caught: list[RequestRefusedError] = []
    thread = threading.Thread(target=lambda: caught.append(refused(fetcher, server.url("/a"))))
    thread.start()
    assert talking.wait(30)

    fetcher.close()
    thread.join(30)

    assert [error.row_code for error in caught] == ["failed_to_download_image"]


def test_a_server_that_speaks_no_tls_where_it_should_is_not_talked_to(server: WebServer) -> None:
    error = refused(web(), server.url("/a").replace("http:", "https:"))

    assert error.row_code == "failed_to_download_image"
    assert not server.asked
