from __future__ import annotations

import base64
import itertools
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.domain.addresses import Reach, policy_of
from pipeline.domain.webhooks import (
    FAILING_FOR_MAX,
    RETRY_AFTER,
    TRIES_MAX,
    Target,
    can_ever_reach,
    is_failing,
    new_secret,
    next_try_at,
    read_url,
)

NOW = datetime(2026, 11, 22, tzinfo=UTC)
PUBLIC = policy_of(Reach.PUBLIC, [])


def test_tries_are_made_over_about_a_day_and_then_no_more() -> None:
    at = NOW
    instants = [at]
    for tries in range(1, TRIES_MAX):
        following = next_try_at(tries=tries, now=at, spread=0.5)
        assert following is not None
        at = following
        instants.append(at)

    assert timedelta(hours=24) < at - NOW < timedelta(hours=25)
    assert next_try_at(tries=TRIES_MAX, now=at, spread=0.5) is None
    waits = [later - earlier for earlier, later in itertools.pairwise(instants)]
    assert waits == sorted(waits)


@given(st.integers(1, TRIES_MAX - 1), st.floats(0, 1))
def test_a_wait_is_a_tenth_more_or_less_than_the_schedule_says(tries: int, spread: float) -> None:
    at = next_try_at(tries=tries, now=NOW, spread=spread)

    assert at is not None
    assert RETRY_AFTER[tries - 1] * 0.9 <= at - NOW <= RETRY_AFTER[tries - 1] * 1.1


def test_a_webhook_is_failing_when_nothing_arrived_for_days() -> None:
    assert not is_failing(failing_since=None, now=NOW)
    assert not is_failing(failing_since=NOW - FAILING_FOR_MAX + timedelta(seconds=1), now=NOW)
    assert is_failing(failing_since=NOW - FAILING_FOR_MAX, now=NOW)


def test_a_secret_is_32_random_bytes_in_the_spelling_of_standard_webhooks() -> None:
    secret = new_secret()

    assert secret.startswith("whsec_")
    assert len(base64.b64decode(secret.removeprefix("whsec_"), validate=True)) == 32
    assert secret != new_secret()


@pytest.mark.parametrize(
    ("url", "target"),
    [
        ("https://hooks.example.com", Target(is_secure=True, host="hooks.example.com", port=443, path="/")),
        (
            "https://H.example./a%20b?x=1&y=2",
            Target(is_secure=True, host="h.example.", port=443, path="/a%20b?x=1&y=2"),
        ),
        ("http://10.0.0.1:8080?q", Target(is_secure=False, host="10.0.0.1", port=8080, path="/?q")),
        (
            "https://xn--bcher-kva.example:443/",
            Target(is_secure=True, host="xn--bcher-kva.example", port=443, path="/"),
        ),
    ],
)
def test_a_url_says_where_it_leads(url: str, target: Target) -> None:
    assert read_url(url) == target


@pytest.mark.parametrize(
    "url",
    [
        "", "hooks.example.com", "//hooks.example.com/", "ftp://h.example/", "file:///etc/passwd", "HTTPS://h.example/",
        "https://user@h.example/", "https://user:pass@h.example/", "https://h.example@127.0.0.1/", "https://h.example/#a",
        "https://h.example/a b", "https://h.example/\n", "https://h.example\n", "https://h.example\\@127.0.0.1/",
        "https://bücher.example/", "https://[::1]/", "https://h.example:0/", "https://h.example:65536/", "https://:443/",
        "https://-h.example/", "https://h..example/", "https:///a", "https://h.example:/", "https://h.example/\x00",
        "https://h.example/" + "a" * 2048,
    ],
)  # fmt: skip
def test_what_is_no_url_for_webhooks_is_none(url: str) -> None:
    assert read_url(url) is None


@given(st.from_regex(r"https?://[a-z0-9._-]{1,40}(:[0-9]{1,5})?/[!-~]{0,20}", fullmatch=True))
def test_no_url_reads_as_more_than_a_host_a_port_and_a_path(url: str) -> None:
    target = read_url(url)

    if target is not None:
        assert target.path.startswith("/")
        assert 0 < target.port < 65_536
        assert not set(target.host) & set("@/\\#? ")


@pytest.mark.parametrize(
    ("hosts", "url", "can"),
    [
        ([], "https://h.example/", True),
        ([], "https://h.example:443/", True),
        ([], "http://h.example/", False),
        ([], "https://h.example:8443/", False),
        ([], "https://127.0.0.1/", False),
        ([], "https://10.0.0.1/", False),
        ([], "https://8.8.8.8/", True),
        (["10.0.0.0/8"], "http://10.0.0.1:8080/", True),
        (["10.0.0.0/8"], "http://192.168.0.1/", False),
        (["hooks.corp"], "http://hooks.corp:8080/", True),
        (["hooks.corp"], "http://HOOKS.corp.:8080/", True),
        (["hooks.corp"], "http://other.corp/", False),
    ],
)
def test_what_can_never_be_reached_is_known_before_a_name_is_resolved(hosts: list[str], url: str, can: bool) -> None:  # noqa: FBT001 -- a table
    target = read_url(url)
    assert target is not None

    assert can_ever_reach(policy_of(Reach.PUBLIC, hosts), target) is can
    assert not can_ever_reach(policy_of(Reach.OFF, hosts), target)
