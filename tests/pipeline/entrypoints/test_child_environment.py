from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.config import Settings
from pipeline.domain.addresses import Reach
from pipeline.entrypoints.cli.local_stack import child_environment


def test_children_read_the_very_settings_that_their_parent_had(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = Settings(
        home=tmp_path,
        models={"m": "vision:/m"},
        url_reach=Reach.LISTED,
        url_hosts=["images.example", "10.0.0.0/8"],
        image_prefixes=["s3://pictures/shared"],
    )

    for name, value in child_environment(settings).items():
        monkeypatch.setenv(name, value)

    read = Settings()
    assert (read.url_reach, read.url_hosts, read.image_prefixes) == (
        settings.url_reach, settings.url_hosts, settings.image_prefixes,
    )  # fmt: skip
    assert read.models.keys() == {"m"}
