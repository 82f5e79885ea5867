"""Images inside requests, and in places of the platform's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pipeline.app.images import image_access
from pipeline.config import Settings
from pipeline.domain.addresses import AddressPolicy, Reach
from pipeline.domain.errors import RequestRefusedError, UsageError
from storage.objects import open_store
from workers.engine.vision.sources import ImageAccess, ImageSources, access_of


def refused(sources: ImageSources, url: str) -> RequestRefusedError:
    with pytest.raises(RequestRefusedError) as caught:
        sources.read(url)
    return caught.value


@pytest.fixture
def shared(tmp_path: Path) -> ImageSources:
    folder = tmp_path / "shared"
    (folder / "cats").mkdir(parents=True)
    (folder / "cats" / "one.png").write_bytes(b"cat")
    (folder / "large.png").write_bytes(b"x" * 101)
    (tmp_path / "secret.png").write_bytes(b"secret")
    return ImageSources(access_of(AddressPolicy(), [folder.as_uri()], open_store), bytes_max=100)


def test_a_data_uri_is_its_content() -> None:
    sources = ImageSources(ImageAccess(), bytes_max=6)

    assert sources.read("data:image/png;base64,cGljdHVy") == b"pictur"
    assert sources.read("data:image/png;base64,") == b""


@pytest.mark.parametrize(
    "content", ["cGlj dHVy", "cGljdH", "cGlj\ndHVy", "cGlj-_Vy", "====", "cGlj%3D", "A", "cGljdA==cGlj", "é"]
)
def test_base64_is_taken_to_the_letter(content: str) -> None:
    sources = ImageSources(ImageAccess(), bytes_max=100)

    assert refused(sources, f"data:image/png;base64,{content}").row_code == "invalid_base64_image"


def test_a_data_uri_is_bounded_before_it_is_decoded() -> None:
    assert refused(ImageSources(ImageAccess(), bytes_max=6), "data:image/png;base64," + "!" * 13).row_code == (
        "image_file_too_large"
    )


def test_objects_are_read_below_the_prefixes_of_the_platform(shared: ImageSources, tmp_path: Path) -> None:
    assert shared.read((tmp_path / "shared").as_uri() + "/cats/one.png") == b"cat"


@pytest.mark.parametrize(
    ("path", "code"),
    [
        ("shared/none.png", "image_file_not_found"),
        ("shared/large.png", "image_file_too_large"),
        ("secret.png", "invalid_image_url"),
        ("shared/../secret.png", "invalid_image_url"),
        ("shared/%2e%2e/secret.png", "invalid_image_url"),
        ("shared/cats/..%2f..%2fsecret.png", "invalid_image_url"),
        ("shared/", "invalid_image_url"),
        ("shared-too/secret.png", "invalid_image_url"),
    ],
)
def test_other_objects_are_refused(shared: ImageSources, tmp_path: Path, path: str, code: str) -> None:
    assert refused(shared, f"{tmp_path.as_uri()}/{path}").row_code == code


def test_without_settings_nothing_but_the_request_itself_is_read() -> None:
    sources = ImageSources(ImageAccess(), bytes_max=100)

    for url in ("https://images.example/a.png", "s3://bucket/a.png", "file:///etc/passwd"):
        assert refused(sources, url).row_code == "invalid_image_url"


def test_the_settings_say_what_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "none")
    settings = Settings(
        home=tmp_path, url_reach=Reach.LISTED, url_hosts=["images.example"], image_prefixes=["s3://pictures/shared/"]
    )

    access = image_access(settings)

    assert access.policy.names == {"images.example"}
    assert list(access.stores) == ["s3://pictures/shared/"]


@pytest.mark.parametrize(
    "settings",
    [
        {"image_prefixes": ["s3://ours/data"]},
        {"image_prefixes": ["s3://ours"]},
        {"image_prefixes": ["s3://ours/data/tenants"]},
        {"image_prefixes": ["https://images.example"]},
        {"image_prefixes": ["/pictures"]},
        {"image_prefixes": ["s3://pictures?region=x"]},
    ],
)
def test_prefixes_that_would_show_what_is_not_for_all_are_refused(tmp_path: Path, settings: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        image_access(Settings(home=tmp_path, objects_url="s3://ours/data", **settings))


def test_hosts_that_are_none_are_refused_with_the_settings() -> None:
    with pytest.raises(ValueError, match="no host and no network"):
        Settings(url_hosts=["http://x"])
