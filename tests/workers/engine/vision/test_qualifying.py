"""The gate on a model of images: embeddings by what they find, and clear words for the rest."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from pydantic import SecretStr

from pipeline.app.models import Wish, add_variant, known_variant
from pipeline.app.qualifying import Question, qualify_variant
from pipeline.app.stack import Stack, open_stack
from pipeline.app.tuning import tune_variant
from pipeline.config import Settings
from pipeline.domain.errors import EvaluationFileError, UsageError
from pipeline.domain.models import EngineKind, Recipe
from pipeline.domain.tiers import Tier
from tests.workers.engine.vision.pictures import inline


@pytest.fixture
def stack(database_url: str, tmp_path: Path, folder_of: Callable[[str], Path]) -> Iterator[Stack]:
    settings = Settings(home=tmp_path / "home", database_url=SecretStr(database_url), device="cpu", threads=1)
    with open_stack(settings) as opened:
        add_variant(opened, Wish(name="see", source=str(folder_of("vit")), engine=EngineKind.VISION, options={}))
        add_variant(opened, Wish(name="see@bf16", recipe=Recipe.BFLOAT16, options={}))
        yield opened


def question(stack: Stack, data: Path | None, folder: Path) -> Question:
    return Question(
        variant=known_variant(stack, "see@bf16"),
        reference=known_variant(stack, "see"),
        data=data,
        folder=folder,
        has_logits=False,
    )


def test_embeddings_of_images_are_compared_by_what_they_find(stack: Stack, tmp_path: Path) -> None:
    lines = []
    for seed in range(12):
        body = {"input": inline(seed)}
        lines.append({"custom_id": f"d{seed}", "url": "/v1/embeddings", "body": body, "document": True})
        lines.append(
            {
                "custom_id": f"q{seed}",
                "url": "/v1/embeddings",
                "body": body,
                "expected": {"retrieves": f"d{seed}"},
            }
        )
    data = tmp_path / "items.jsonl"
    data.write_text("".join(json.dumps(each) + "\n" for each in lines))

    found = qualify_variant(stack, question(stack, data, tmp_path / "report"))

    assert {each.tier for each in stack.registry.qualifications("see@bf16")} == set(Tier)
    assert found.cosine_mean is not None
    assert found.cosine_mean > 0.99


def test_labels_are_not_compared_and_there_are_no_images_built_in(stack: Stack, tmp_path: Path) -> None:
    data = tmp_path / "items.jsonl"
    data.write_text(json.dumps({"custom_id": "a", "url": "/v1/classify", "body": {"input": inline(0)}}) + "\n")

    with pytest.raises(EvaluationFileError, match="not /v1/classify"):
        qualify_variant(stack, question(stack, data, tmp_path / "report"))
    with pytest.raises(UsageError, match="no built-in images"):
        qualify_variant(stack, question(stack, None, tmp_path / "report"))
    with pytest.raises(UsageError, match="no batch to tune"):
        tune_variant(stack, known_variant(stack, "see"), on_probe=lambda _: None, window_seconds=1)
