"""A server as it may be: away, slow, wrong, or another than it says."""

from __future__ import annotations

import email.utils
import socket
import ssl
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from infra.remote.errors import (
    AccessError,
    InputRefusedError,
    RateLimitedError,
    ServerAnswerError,
    ServerUnavailableError,
)
from infra.remote.transport import Transport
from pipeline.domain.errors import ConflictError, NightrateError, NotFoundError, RefusedError, UsageError
from tests.infra.remote.hostile import Act, HostileServer, Time, drops, hostile, refuses, says

KEY = "nr_secret_key"
FINE = says(200, {"id": "fine"})


@contextmanager
def asking(*acts: Act, time: Time | None = None) -> Iterator[tuple[Transport, HostileServer]]:
    with hostile(*acts) as server:
        transport = Transport(server.url, KEY, clock=(time or Time()).clock)
        try:
            yield transport, server
        finally:
            transport.close()


@pytest.mark.parametrize(
    "act",
    [
        drops,
        says(200, {"id": "torn"}, cut=5),
        refuses(408),
        refuses(429),
        refuses(500),
        refuses(502),
        refuses(503, Retry_After="0"),
    ],
)
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_what_may_pass_is_tried_again(act: Act, method: str) -> None:
    time = Time()

    with asking(act, act, FINE, time=time) as (transport, server):
        answer = transport.ask(method, "/v1/x", {"a": 1} if method == "POST" else None)

    assert answer == {"id": "fine"}
    assert [each.body for each in server.asked] == [server.asked[0].body] * 3
    assert len(time.slept) == 2
    assert 0 < time.slept[0] < time.slept[1]
    assert len(time.said) == 1


@pytest.mark.parametrize(
    ("act", "kind", "exit_code"),
    [
        (refuses(400, "invalid_value"), InputRefusedError, 4),
        (refuses(400, "usage"), UsageError, 2),
        (refuses(401, "invalid_api_key"), AccessError, 4),
        (refuses(403, "forbidden"), AccessError, 4),
        (refuses(404), NotFoundError, 3),
        (refuses(405), UsageError, 2),
        (refuses(409), ConflictError, 4),
        (refuses(413), RefusedError, 4),
        (refuses(422, "idempotency_key_reused"), ConflictError, 4),
        (refuses(429, x_should_retry="false"), RateLimitedError, 4),
        (refuses(503, x_should_retry="false"), ServerUnavailableError, 1),
        (says(418, b"<html>teapot</html>"), UsageError, 2),
        (says(200, b"<html>welcome</html>"), ServerAnswerError, 1),
        (says(200, b"[1]"), ServerAnswerError, 1),
        (says(200, b"[" * 100_000), ServerAnswerError, 1),
        (says(404, b'{"error": [1]}'), NotFoundError, 3),
        (says(404, b'{"error": {"message": 7}}'), NotFoundError, 3),
    ],
)
def test_what_is_final_is_told_at_once(act: Act, kind: type[NightrateError], exit_code: int) -> None:
    time = Time()

    with asking(act, FINE, time=time) as (transport, server), pytest.raises(kind) as told:
        transport.ask("POST", "/v1/x", {})

    assert type(told.value) is kind
    assert told.value.exit_code == exit_code
    assert len(server.asked) == 1
    assert time.slept == []


def test_control_characters_of_a_server_never_reach_a_terminal() -> None:
    with (
        asking(refuses(409, message="\x1b[2Jgone\r\n\x07")) as (transport, _),
        pytest.raises(ConflictError, match=r"^ \[2Jgone   $"),
    ):
        transport.ask("POST", "/v1/x")


@pytest.mark.parametrize(
    ("header", "seconds"),
    [("7", 7.0), (email.utils.formatdate(1_780_000_000 + 9, usegmt=True), 9.0), ("soon", 0.5), ("nan", 0.5)],
)
def test_a_server_is_left_alone_for_as_long_as_it_wants(header: str, seconds: float) -> None:
    time = Time()

    with asking(refuses(429, Retry_After=header), FINE, time=time) as (transport, _):
        transport.ask("GET", "/v1/x")

    assert time.slept == [pytest.approx(seconds, rel=0.3)]
    assert time.slept[0] >= seconds


def test_a_server_that_wants_an_hour_is_not_waited_for() -> None:
    time = Time()

    with asking(refuses(429, Retry_After="3600"), time=time) as (transport, _), pytest.raises(RateLimitedError) as told:
        transport.ask("GET", "/v1/x")

    assert "in 3600 s" in told.value.message
    assert told.value.exit_code == 4
    assert time.slept == []


def test_an_address_where_nobody_is_is_soon_given_up_and_a_server_that_was_there_is_waited_for() -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        time = Time()
        transport = Transport(f"http://127.0.0.1:{nobody.getsockname()[1]}", KEY, clock=time.clock)
        with pytest.raises(ServerUnavailableError, match="tried 4 times") as told:
            transport.ask("GET", "/v1/x")
    assert told.value.exit_code == 1
    assert sum(time.slept) < 5

    time = Time()
    with asking(FINE, drops, time=time) as (transport, _):
        transport.ask("GET", "/v1/x")
        with pytest.raises(ServerUnavailableError):
            transport.ask("GET", "/v1/x")
    assert 40 < sum(time.slept) <= 60


def test_a_server_that_is_restarted_is_found_again() -> None:
    time = Time()
    clock = time.clock
    with ExitStack() as servers, hostile(FINE) as before:
        port = before.server_address[1]
        transport = Transport(before.url, KEY, clock=clock)
        servers.callback(transport.close)
        transport.ask("GET", "/v1/x")
        before.acts[:] = [drops]
        waits = 0

        def sleep(seconds: float) -> None:
            nonlocal waits
            time.now += seconds
            waits += 1
            if waits == 1:
                before.shutdown()
                before.server_close()
            if waits == 5:
                servers.enter_context(hostile(FINE, port=port))

        clock.sleep = sleep
        assert transport.ask("GET", "/v1/x") == {"id": "fine"}

    assert waits == 5
    assert len(time.said) == 1


def test_an_answer_that_drips_is_given_up() -> None:
    time = Time(tick=50.0)

    def drip(handler: object) -> None:
        says(200, b"{" + b" " * 3_000_000 + b"}")(handler)  # type: ignore[arg-type]  # a handler

    with asking(drip, time=time) as (transport, _), pytest.raises(ServerUnavailableError, match="did not end"):
        transport.ask("GET", "/v1/x")


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize("method", ["GET", "POST", "PATCH"])
def test_a_request_is_sent_nowhere_else(status: int, method: str) -> None:
    with hostile(FINE) as other, asking(says(status, {}, Location=f"{other.url}/v1/x")) as (transport, server):
        with pytest.raises(ServerAnswerError, match="sends elsewhere"):
            transport.ask(method, "/v1/x", {} if method != "GET" else None)

        assert len(server.asked) == 1
        assert other.asked == []


def test_the_key_is_in_the_header_and_nowhere_else() -> None:
    with asking(FINE, refuses(401), refuses(401)) as (transport, server):
        transport.ask("GET", "/v1/x", query=[("limit", "3"), ("status", "a b")])
        with pytest.raises(AccessError) as told:
            transport.ask("GET", "/v1/y")

    assert [each.headers["authorization"] for each in server.asked] == [f"Bearer {KEY}"] * 2
    assert [each.path for each in server.asked] == ["/v1/x?limit=3&status=a+b", "/v1/y"]
    assert KEY not in str(told.value)
    assert "NIGHTRATE_API_KEY" in str(told.value)


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("tls")
    key, certificate = folder / "key.pem", folder / "cert.pem"
    subject = ("-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1", "-days", "2")
    made = ("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", *subject)
    try:
        subprocess.run([*made, "-keyout", str(key), "-out", str(certificate)], check=True, capture_output=True)
    except FileNotFoundError:
        pytest.skip("openssl is not installed")
    return key, certificate


def test_a_server_that_cannot_be_trusted_gets_no_key(certificate: tuple[Path, Path]) -> None:
    key, trusted = certificate
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(trusted, key)
    time = Time()

    with hostile(FINE, tls=context) as server:
        stranger = Transport(server.url, KEY, clock=time.clock)
        with pytest.raises(ServerUnavailableError, match="cannot be trusted") as told:
            stranger.ask("GET", "/v1/x")
        stranger.close()
        assert server.asked == []
        assert "NIGHTRATE_CA_FILE" in str(told.value.hint)
        assert time.slept == []

        known = Transport(server.url, KEY, ca_file=trusted, clock=time.clock)
        assert known.ask("GET", "/v1/x") == {"id": "fine"}
        known.close()


def test_a_missing_file_of_certificates_is_told(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="certificates"):
        Transport("https://127.0.0.1", KEY, ca_file=tmp_path / "nothing")
