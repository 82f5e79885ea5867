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
from pipeline.domain.endpoints import Endpoint
from pipeline.domain.errors import EvaluationFileError, UsageError
from pipeline.domain.models import EngineKind, Recipe
from pipeline.domain.tiers import Tier
from pipeline.ports.engine import EngineRequest
from tests.workers.engine.vision.pictures import inline
from workers.engine.drive import driven
from workers.engine.registry import load_engine
from workers.gate.sides import Bench
from workers.shadow.references import open_reference


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


def test_a_model_of_images_is_watched_by_its_own_vectors(stack: Stack, tmp_path: Path) -> None:
    bench = Bench(cache_dir=tmp_path / "cache", device="cpu", threads=1)
    spec = known_variant(stack, "see")
    engine = load_engine(spec, cache_dir=bench.cache_dir, device=bench.device, threads=bench.threads)
    requests = [EngineRequest(seed, Endpoint.EMBEDDINGS, {"model": "see", "input": inline(seed)}) for seed in (1, 2)]
    own, other = (result.body for result in driven(engine, requests))
    engine.close()
    body = {"input": inline(1)}
    reference = open_reference(spec, bench)
    try:
        same = reference.read(Endpoint.EMBEDDINGS, body, own)
        another = reference.read(Endpoint.EMBEDDINGS, body, other)
    finally:
        reference.close()

    assert same is not None
    assert another is not None
    assert same.x == pytest.approx(0.0, abs=1e-4)
    assert another.x < same.x - 1e-4
