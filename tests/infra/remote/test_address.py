from __future__ import annotations

import pytest

from infra.remote.address import Origin, base_of, checked_key
from pipeline.domain.errors import UsageError


@pytest.mark.parametrize(
    ("url", "base"),
    [
        ("https://h.example", "https://h.example"),
        ("https://h.example/", "https://h.example"),
        ("https://h.example/v1", "https://h.example"),
        ("https://h.example/v1/", "https://h.example"),
        ("https://h.example:8443/batch/v1", "https://h.example:8443/batch"),
        ("http://localhost:8400", "http://localhost:8400"),
        ("http://127.0.0.1:8400/v1", "http://127.0.0.1:8400"),
        ("http://127.9.9.9", "http://127.9.9.9"),
        ("http://[::1]:8400/v1", "http://[::1]:8400"),
    ],
)
def test_a_server_is_named_with_or_without_its_version(url: str, base: str) -> None:
    assert base_of(url, is_clear_text_allowed=False) == base


@pytest.mark.parametrize(
    "url",
    [
        "localhost:8400",
        "h.example",
        "ftp://h.example",
        "https://",
        "https://h.example:port",
        "https://h.example:99999",
        "https://user:key@h.example",
        "https://h.example?key=1",
        "https://h.example/#v1",
        "http://h.example",
        "http://10.0.0.7:8400",
        "http://localhost.example",
        "http://127.0.0.1.example",
        "http://0.0.0.0:8400",
        "",
    ],
)
def test_what_no_key_may_be_sent_to_is_refused(url: str) -> None:
    with pytest.raises(UsageError) as told:
        base_of(url, is_clear_text_allowed=False)

    assert told.value.hint


def test_clear_text_to_another_machine_must_be_asked_for() -> None:
    assert base_of("http://10.0.0.7:8400", is_clear_text_allowed=True) == "http://10.0.0.7:8400"


@pytest.mark.parametrize("key", ["", " ", "a b", "a\n", "a\r\nX: y", "clé", "k" * 513])
def test_a_key_that_no_header_holds_is_refused_and_not_shown(key: str) -> None:
    with pytest.raises(UsageError) as told:
        checked_key(key)

    assert not key.strip() or key not in str(told.value)


def test_origins_are_equal_whatever_their_case_and_default_port() -> None:
    assert Origin.of("https://H.example") == Origin.of("https://h.example:443/x")
    assert Origin.of("https://h.example") != Origin.of("https://h.example:8443")
    assert Origin.of("https://h.example") != Origin.of("http://h.example:443")
