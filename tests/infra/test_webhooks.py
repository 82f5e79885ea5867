"""Webhooks on the wire: what is signed, what receivers may answer, and where nothing is ever sent."""

from __future__ import annotations

import base64
import itertools
import socket
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from standardwebhooks import Webhook, WebhookVerificationError

from infra.webhooks import Poster, sign
from pipeline.domain.addresses import Reach, policy_of
from pipeline.domain.ids import EventId
from pipeline.domain.webhooks import new_secret
from pipeline.ports.webhooks import Posting
from tests.receiver import Receiver, receiving
from tests.services import eventually
from tests.workers.engine.vision.webserver import running

SECRET = new_secret()
LOOPBACK = policy_of(Reach.LISTED, ["127.0.0.1"])
PUBLIC = policy_of(Reach.PUBLIC, [])
BODY = b'{"id":"evt_1"}'


def posting(url: str, *, secrets: tuple[str, ...] = (SECRET,)) -> Posting:
    return Posting(url=url, event_id=EventId("evt_1"), body=BODY, secrets=secrets, sent_at=datetime.now(UTC))


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as receiver:
        yield receiver


#: What ends a header line is no part of an id; ours are hexadecimal.
IDS = st.from_regex(r"evt_[0-9a-f]{1,40}", fullmatch=True)
BODIES = st.text(st.characters(codec="utf-8"), max_size=200).map(str.encode)
SECRETS = st.binary(min_size=24, max_size=64).map(lambda raw: f"whsec_{base64.b64encode(raw).decode()}")


def headers(event_id: str, at: datetime, signature: str) -> dict[str, str]:
    return {
        "webhook-id": event_id,
        "webhook-timestamp": str(int(at.timestamp())),
        "webhook-signature": signature,
    }


@settings(max_examples=300, deadline=None)
@given(IDS, BODIES, st.lists(SECRETS, min_size=1, max_size=2, unique=True))
def test_the_library_accepts_what_is_signed_by_any_of_the_secrets(
    event_id: str, body: bytes, secrets: list[str]
) -> None:
    now = datetime.now(UTC)
    signed = headers(event_id, now, sign(secrets, EventId(event_id), now, body))

    for secret in secrets:
        Webhook(secret).verify(body, signed, json_parse=False)


@settings(max_examples=200, deadline=None)
@given(IDS, BODIES.filter(bool), SECRETS, st.data())
def test_the_library_refuses_what_was_changed_on_the_way(
    event_id: str, body: bytes, secret: str, data: st.DataObject
) -> None:
    now = datetime.now(UTC)
    signature = sign([secret], EventId(event_id), now, body)
    at = data.draw(st.integers(0, len(body) - 1))
    # A bit that keeps ASCII ASCII; other bytes need not stay text, which verifying does not survive either.
    changed = body[:at] + bytes([body[at] ^ 1]) + body[at + 1 :]

    with pytest.raises((WebhookVerificationError, UnicodeDecodeError)):
        Webhook(secret).verify(changed, headers(event_id, now, signature), json_parse=False)
    with pytest.raises(WebhookVerificationError):
        Webhook(secret).verify(body, headers(f"{event_id}0", now, signature), json_parse=False)
    with pytest.raises(WebhookVerificationError):
        Webhook(new_secret()).verify(body, headers(event_id, now, signature), json_parse=False)


def test_what_arrives_is_the_body_with_the_headers_of_standard_webhooks(receiver: Receiver) -> None:
    posted = Poster(LOOPBACK).post(posting(receiver.url("/a?b=c")))

    assert (posted.status, posted.error) == (204, None)
    [arrived] = receiver.at("/a?b=c")
    assert arrived.body == BODY
    assert arrived.headers["host"] == f"127.0.0.1:{receiver.port}"
    assert arrived.headers["content-type"] == "application/json"
    assert Webhook(SECRET).verify(arrived.body, arrived.headers) == {"id": "evt_1"}
    assert not {"cookie", "authorization"} & arrived.headers.keys()


@pytest.mark.parametrize("status", [200, 201, 202, 204, 299])
def test_an_answer_from_200_to_299_is_success(receiver: Receiver, status: int) -> None:
    receiver.statuses["/"] = [status]

    assert Poster(LOOPBACK).post(posting(receiver.url())).error is None


@pytest.mark.parametrize("status", [300, 301, 302, 303, 304, 307, 308, 400, 401, 404, 410, 429, 500, 503, 599])
def test_any_other_answer_is_a_failure_and_no_redirect_is_followed(receiver: Receiver, status: int) -> None:
    receiver.statuses["/"] = [status]

    posted = Poster(LOOPBACK).post(posting(receiver.url()))

    assert posted.status == status
    assert posted.error is not None
    assert str(status) in posted.error
    assert [each.path for each in receiver.arrived] == ["/"]


def test_nobody_there_is_a_failure_and_no_exception() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]

    posted = Poster(LOOPBACK).post(posting(f"http://127.0.0.1:{port}/"))

    assert (posted.status, posted.error) == (None, "the connection failed")


def test_a_name_that_nobody_knows_is_a_failure() -> None:
    poster = Poster(PUBLIC)

    def resolve(_host: str, _port: int) -> Sequence[str]:
        raise socket.gaierror

    poster.dialer.resolve = resolve

    assert poster.post(posting("https://nobody.example/")).error == "the host's name is not known"


def drip(_request: bytes) -> Iterator[bytes]:
    yield b"HTTP/1.1 200 OK\r\nX: "
    while True:
        yield b"y" * 100


def test_a_receiver_that_drips_is_given_up_when_the_time_for_all_of_it_is_over() -> None:
    seconds = itertools.count()
    poster = Poster(LOOPBACK, seconds_max=15.0)
    poster.dialer.now_seconds = lambda: float(next(seconds))
    with running() as server:
        server.answers["/"] = [drip]

        posted = poster.post(posting(server.url("/")))

    assert posted.status is None
    assert next(seconds) < 100


def test_closing_ends_a_conversation_that_is_under_way(receiver: Receiver) -> None:
    receiver.slow.add("/")
    poster = Poster(LOOPBACK)
    with ThreadPoolExecutor(1) as thread:
        posted = thread.submit(poster.post, posting(receiver.url()))
        eventually(lambda: receiver.arrived)

        poster.close()

        assert posted.result().status is None


def endless(_request: bytes) -> Iterator[bytes]:
    yield b"HTTP/1.1 200 OK\r\n\r\n"
    while True:
        yield b"x" * 65_536


def test_an_answer_without_end_is_read_for_a_while_and_counts_by_its_status() -> None:
    with running() as server:
        server.answers["/"] = [endless]

        assert Poster(LOOPBACK).post(posting(server.url("/"))).error is None


@pytest.mark.parametrize(
    "reply", [b"", b"hello\r\n\r\n", b"HTTP/1.1 abc\r\n\r\n", b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 500]
)
def test_what_is_no_http_is_a_failure(reply: bytes) -> None:
    with running() as server:
        server.answers["/"] = [reply]

        posted = Poster(LOOPBACK).post(posting(server.url("/")))

    assert posted.status is None
    assert posted.error is not None


#: What names resolve to, in the hostile table.
NAMES = {
    "public.example": ["93.184.216.34"],
    "localhost": ["127.0.0.1"],
    "localhost.": ["127.0.0.1"],
    "localhost.localdomain": ["127.0.0.1"],
    "localtest.example": ["127.0.0.1"],
    "six.example": ["::1"],
    "metadata.google.internal": ["169.254.169.254"],
    "metadata": ["169.254.169.254"],
    "instance-data": ["169.254.169.254"],
    "169.254.169.254.nip.example": ["169.254.169.254"],
    "xn--lcalhost-n4a.example": ["127.0.0.1"],
    "both.example": ["10.0.0.1", "127.0.0.1"],
    "private.example": ["10.1.2.3"],
    "nothing.example": [],
    "scoped.example": ["fe80::1%eth0"],
    "garbage.example": ["not an address"],
}
ADDRESSES = [
    # Loopback and "this" host.
    "127.0.0.1", "127.0.0.2", "127.255.255.254", "0.0.0.0", "0.1.2.3", "::1", "::", "::ffff:127.0.0.1",  # noqa: S104 -- nothing is bound
    "::127.0.0.1", "64:ff9b::7f00:1", "64:ff9b:1::7f00:1", "2002:7f00:1::",
    # Metadata.
    "169.254.169.254", "169.254.170.2", "100.100.100.200", "192.0.0.192", "168.63.129.16", "fd00:ec2::254",
    "fd20:ce::254", "::ffff:169.254.169.254", "64:ff9b::a9fe:a9fe", "2002:a9fe:a9fe::",
    # Private, shared, link-local.
    "10.0.0.1", "10.255.255.255", "172.16.0.1", "172.31.255.255", "192.168.0.1", "100.64.0.1", "100.127.255.255",
    "169.254.0.1", "fc00::1", "fd12:3456::1", "fe80::1", "fec0::1", "::ffff:10.0.0.1", "64:ff9b::c0a8:1",
    # Nobody's.
    "192.0.0.1", "192.0.2.1", "192.88.99.1", "198.18.0.1", "198.51.100.1", "203.0.113.1", "224.0.0.1", "239.1.2.3",
    "240.0.0.1", "255.255.255.255", "ff02::1", "2001:db8::1", "2001::1", "3fff::1", "4000::1",
]  # fmt: skip
HOSTILE = [
    # Addresses in every spelling that a resolver takes.
    "https://127.0.0.1/", "https://127.1/", "https://127.0.1/", "https://2130706433/", "https://0x7f000001/",
    "https://0x7f.1/", "https://0177.0.0.1/", "https://017700000001/", "https://0x7f.0x0.0x0.0x1/", "https://0/",
    "https://0x0/", "https://0.0.0.0/", "https://169.254.169.254/latest/meta-data/", "https://2852039166/",
    "https://0xa9fea9fe/", "https://0251.0376.0251.0376/", "https://10.1/", "https://192.168.1/", "https://3232235521/",
    # In brackets.
    "https://[::1]/", "https://[::]/", "https://[::ffff:127.0.0.1]/", "https://[::ffff:169.254.169.254]/",
    "https://[64:ff9b::7f00:1]/", "https://[fe80::1%25eth0]/", "https://[fd00:ec2::254]/",
    # Names.
    *(f"https://{name}/" for name in NAMES if name != "public.example"),
    "https://LOCALHOST/", "https://LocalHost./",
    # Somebody else before the at sign, a host after a backslash or a hash, other letters for the same.
    "https://public.example@127.0.0.1/", "https://public.example:443@127.0.0.1/", "https://u:p@public.example/",
    "https://public.example\\@127.0.0.1/", "https://127.0.0.1\\.public.example/", "https://127.0.0.1#@public.example/",
    "https://127.0.0.1%2f@public.example/", "https://public.example%00.localhost/", "https://ⓛocalhost/",
    "https://127。0。0。1/", "https://①②⑦.0.0.1/", "https://loc\u00adalhost/", "https:///127.0.0.1/", "https:127.0.0.1/",
    "https:/127.0.0.1/", "//127.0.0.1/", "\\\\127.0.0.1\\a", " https://public.example/", "https://public.example/ ",
    # Another request behind the first.
    "https://public.example/\r\nHost: localhost", "https://public.example/%0d%0a\r\n\r\nGET / HTTP/1.1",
    "https://public.example/\nX: y", "https://public.example/\x00", "https://public.exa\tmple/",
    # Not https, not its port.
    "http://public.example/", "http://public.example:443/", "https://public.example:80/", "https://public.example:22/",
    "https://public.example:6379/", "https://public.example:8443/", "https://public.example:0/",
    "https://public.example:65979/", "https://public.example:-1/", "ftp://public.example/", "file:///etc/passwd",
    "gopher://127.0.0.1:6379/_FLUSHALL", "dict://127.0.0.1:11211/", "ldap://127.0.0.1/", "data:text/plain,x",
    "jar:https://public.example!/", "unix:///run/docker.sock", "https+unix://%2frun%2fdocker.sock/", "",
]  # fmt: skip


@pytest.fixture
def led_here(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """A listener that every connection ends at, wherever it was meant to go; what these places were."""
    connected: list[str] = []
    with receiving() as receiver:
        connect = socket.create_connection

        def here(address: tuple[str, int], timeout: float | None = None) -> socket.socket:
            connected.append(address[0])
            return connect(("127.0.0.1", receiver.port), timeout)

        monkeypatch.setattr(socket, "create_connection", here)
        yield connected


def resolve(host: str, port: int) -> list[str]:
    if host in NAMES:
        return NAMES[host]
    # As the system spells numbers out; it asks nobody for these.
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST)
    return [str(sockaddr[0]) for *_, sockaddr in found]


def guarded(resolver: Any = resolve) -> Poster:  # noqa: ANN401 -- whatever a test resolves by
    poster = Poster(PUBLIC)
    poster.dialer.resolve = resolver
    return poster


def test_the_table_of_hostile_urls_is_long_enough() -> None:
    assert len(set(HOSTILE)) >= 60


@pytest.mark.parametrize("url", HOSTILE)
def test_nothing_is_sent_to_a_hostile_url(led_here: list[str], url: str) -> None:
    posted = guarded().post(posting(url))

    assert posted.status is None
    assert posted.error is not None
    assert led_here == []


@pytest.mark.parametrize("address", ADDRESSES)
def test_nothing_is_sent_to_a_name_that_leads_inside(led_here: list[str], address: str) -> None:
    posted = guarded(lambda _host, _port: [address]).post(posting("https://rebound.example/"))

    assert posted.error == "the host is not one that this installation sends webhooks to"
    assert led_here == []


def test_a_public_host_is_connected_to_at_the_address_that_was_asked_about(led_here: list[str]) -> None:
    # The control of the tests above: here a connection is made, and fails because no TLS is spoken.
    posted = guarded().post(posting("https://public.example/"))

    assert posted.error == "the connection failed"
    assert led_here == ["93.184.216.34"]


def test_a_name_that_answers_otherwise_the_second_time_gains_nothing(led_here: list[str]) -> None:
    answers = iter([["93.184.216.34"], ["127.0.0.1"], ["127.0.0.1"]])

    guarded(lambda _host, _port: next(answers)).post(posting("https://rebound.example/"))

    assert led_here == ["93.184.216.34"]
    assert next(answers) == ["127.0.0.1"]


def test_of_several_addresses_only_public_ones_are_connected_to(led_here: list[str]) -> None:
    addresses = ["127.0.0.1", "::1", "93.184.216.34", "10.0.0.1"]

    guarded(lambda _host, _port: addresses).post(posting("https://rebound.example/"))

    assert led_here == ["93.184.216.34"]


def test_a_named_host_may_be_private_plain_and_on_any_port_but_not_the_machine_itself(led_here: list[str]) -> None:
    poster = Poster(policy_of(Reach.LISTED, ["hooks.corp"]))
    poster.dialer.resolve = lambda _host, _port: ["10.1.2.3"]

    assert poster.post(posting("http://hooks.corp:8080/a")).status == 204
    poster.dialer.resolve = lambda _host, _port: ["127.0.0.1"]
    assert poster.post(posting("http://hooks.corp:8080/a")).status is None
    assert led_here == ["10.1.2.3"]
