"""Store URLs and the keys' rule, without a server."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.domain.errors import UsageError
from storage.objects import S3Credentials, open_store
from storage.objects.keys import KEY_CHARS_MAX, check_key, check_prefix
from storage.objects.local import LocalStore
from storage.objects.locations import LocalLocation, S3Location, parse_location
from storage.objects.s3 import S3Store

CREDENTIALS = S3Credentials(access_key_id="AK", secret_access_key="hunter2")  # noqa: S106  # an example


@pytest.mark.parametrize(
    ("url", "root"),
    [
        ("file:///var/lib/night", "/var/lib/night"),
        ("file:/var/lib/night", "/var/lib/night"),
        ("file://localhost/with%20space", "/with space"),
        ("/plain/path?kept#as it is", "/plain/path?kept#as it is"),
        ("relative/path", "relative/path"),
        ("./odd:name", "odd:name"),
    ],
)
def test_a_path_or_file_url_leads_to_a_folder(url: str, root: str) -> None:
    assert parse_location(url) == LocalLocation(root=Path(root))


def test_an_s3_url_leads_to_a_bucket_with_its_options() -> None:
    url = "s3://my-bucket/a/b/?endpoint_url=http://127.0.0.1:8333&region=eu-north-1"

    assert parse_location(url) == S3Location(
        bucket="my-bucket", prefix="a/b", endpoint_url="http://127.0.0.1:8333", region="eu-north-1"
    )
    assert parse_location("s3://my-bucket") == S3Location(bucket="my-bucket", prefix="", endpoint_url=None, region=None)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "nul\0",
        "http://example.com/x",
        "gs://bucket/x",
        "file://host/path",
        "file:relative",
        "file:///path?fsync=off",
        "file:///nul%00",
        "s3://",
        "s3:/bucket",
        "s3://B/x",
        "s3://Bucket/x",
        "s3://key:hunter2@bucket/x",
        "s3://bucket/a//b",
        "s3://bucket/../b",
        f"s3://bucket/{'p' * 300}",
        "s3://bucket/x#fragment",
        "s3://bucket/x?unknown=1",
        "s3://bucket/x?region=",
        "s3://bucket/x?region=a&region=b",
        "s3://[bucket/x",
    ],
)
def test_any_other_url_is_refused_with_what_is_accepted(url: str) -> None:
    with pytest.raises(UsageError, match=r"file:///path, a plain path, or s3://bucket/prefix") as refusal:
        open_store(url)

    assert "hunter2" not in str(refusal.value)


@pytest.mark.parametrize(
    "endpoint_url", ["", "127.0.0.1:8333", "ftp://host", "http://", "http://k:hunter2@host", "http://host:0"]
)
def test_an_endpoint_that_is_no_http_url_is_refused(endpoint_url: str) -> None:
    with pytest.raises(UsageError, match="such as http") as refusal:
        open_store("s3://bucket", endpoint_url=endpoint_url)

    assert "hunter2" not in str(refusal.value)


def test_opening_creates_and_contacts_nothing(tmp_path: Path) -> None:
    local = open_store(str(tmp_path / "new"), fsync=False)
    remote = open_store("s3://bucket/x", endpoint_url="http://127.0.0.1:9", region="x", credentials=CREDENTIALS)

    assert isinstance(local, LocalStore)
    assert isinstance(remote, S3Store)
    assert list(local.list("")) == []
    assert not (tmp_path / "new").exists()
    assert "hunter2" not in repr(CREDENTIALS)


def test_the_urls_endpoint_and_region_come_before_the_callers() -> None:
    store = open_store(
        "s3://bucket?endpoint_url=http://127.0.0.1:1&region=a",
        endpoint_url="http://127.0.0.1:2",
        region="b",
        credentials=CREDENTIALS,
    )

    assert isinstance(store, S3Store)
    assert store._client.meta.endpoint_url == "http://127.0.0.1:1"
    assert store._client.meta.region_name == "a"


def test_the_bounds_of_keys_are_exact() -> None:
    longest = "/".join(["k" * 127] * 4) + "k"
    assert len(longest) == KEY_CHARS_MAX

    assert check_key(longest) == longest
    assert check_prefix(longest) == longest
    assert check_prefix("") == ""
    with pytest.raises(UsageError):
        check_key(f"{longest}k")
    with pytest.raises(UsageError):
        check_prefix(f"{longest}k")
    with pytest.raises(UsageError, match="…"):
        check_key("?" * 10_000)
