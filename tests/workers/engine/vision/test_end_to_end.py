"""A model of images added by its folder, and a file of requests run through the real stack."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.workers.engine.vision.conftest import LABELS
from tests.workers.engine.vision.pictures import data_uri, part, picture, stored
from tests.workers.engine.vision.webserver import WebServer, answer, running

ROOT = Path(__file__).parents[4]
SECONDS_MAX = 180


@pytest.fixture
def server() -> Iterator[WebServer]:
    with running() as server:
        server.answers["/boat.jpg"] = [answer(stored(picture(1), "JPEG"))]
        yield server


@pytest.fixture
def shell(tmp_path: Path) -> Callable[..., str]:
    plain = {name: value for name, value in os.environ.items() if not name.startswith("NIGHTRATE_")}
    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    given = {
        "NIGHTRATE_HOME": str(tmp_path / "home"),
        "NIGHTRATE_DEVICE": "cpu",
        "NIGHTRATE_URL_HOSTS": '["127.0.0.1"]',
        "PYTHONPATH": os.pathsep.join(paths),
    }

    def run(*arguments: str, code: int = 0) -> str:
        child = subprocess.run(
            [sys.executable, "-m", "pipeline.entrypoints.cli", *arguments],
            cwd=tmp_path, env=plain | given, stdin=subprocess.DEVNULL, capture_output=True, text=True,
            timeout=SECONDS_MAX, check=False,
        )  # fmt: skip
        assert child.returncode == code, f"{arguments} ended with {child.returncode}: {child.stderr}"
        assert "Traceback" not in child.stderr
        return child.stdout

    return run


def line(custom_id: str, body: dict[str, Any]) -> str:
    whole = {"custom_id": custom_id, "method": "POST", "url": "/v1/classify", "body": {"model": "barns", **body}}
    return json.dumps(whole) + "\n"


def test_images_are_classified_from_a_file_of_requests_to_a_file_of_answers(
    shell: Callable[..., str], folder_of: Callable[[str], Path], server: WebServer, tmp_path: Path
) -> None:
    inside = data_uri(stored(picture(1), "JPEG"), "image/jpeg")
    messages = [{"role": "user", "content": [part(inside)]}]
    (tmp_path / "in.jsonl").write_text(
        line("inside", {"input": part(inside)})
        + line("by-url", {"input": [part(server.url("/boat.jpg")), part(inside)]})
        + line("as-message", {"messages": messages})
        + line("text", {"input": "a boat"})
        + line("nowhere", {"input": part(server.url("/none.jpg"))})
        + line("metadata", {"input": part("http://169.254.169.254/latest/")})
        + line("no-image", {"input": part("data:image/svg+xml;base64,PHN2Zz4=")})
    )

    shell("up")
    try:
        shell("models", "add", "barns", "--source", str(folder_of("vit_classifier")), "--engine", "vision")
        shell("run", "in.jsonl", "--output", "out.jsonl", "--errors", "bad.jsonl", code=5)
    finally:
        shell("down")

    answers = {each["custom_id"]: each["response"]["body"] for each in rows(tmp_path / "out.jsonl")}
    errors = {each["custom_id"]: each["response"]["body"]["error"]["code"] for each in rows(tmp_path / "bad.jsonl")}
    assert set(answers) == {"inside", "by-url", "as-message"}
    first, second = answers["by-url"]["data"]
    assert first["probs"] == pytest.approx(second["probs"], abs=1e-5)
    assert answers["inside"]["data"][0]["probs"] == pytest.approx(second["probs"], abs=1e-5)
    assert answers["as-message"]["data"] == answers["inside"]["data"]
    assert second["label"] in LABELS.values()
    assert errors == {
        "text": "unsupported_input",
        "nowhere": "image_file_not_found",
        "metadata": "invalid_image_url",
        "no-image": "unsupported_image_media_type",
    }


def rows(file: Path) -> list[dict[str, Any]]:
    return [json.loads(each) for each in file.read_text().splitlines()]
