from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from transformers import AutoModelForCausalLM

from pipeline.domain.errors import ModelUnavailableError
from pipeline.domain.models import EngineKind, ModelSpec, Recipe
from workers.bench.chart import page_of
from workers.bench.roofline import Need, Roofline, measure_roofline, need_of
from workers.bench.trial import Task, likeness, run_trial


@pytest.fixture
def task(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Task:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    return Task(prompts=3, cache_dir=tmp_path, device="cpu", threads=1)


def test_the_work_needed_counts_every_weight_once_a_token(llama_folder: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(llama_folder)
    products = [p.numel() for name, p in model.named_parameters() if p.ndim == 2 and "embed" not in name]
    head = model.lm_head.weight.numel()
    body = sum(products) - (head if not model.config.tie_word_embeddings else 0)

    need = need_of(llama_folder, input_tokens=100, output_tokens=10, steps=7, bytes_per_weight=2.0)

    assert need.flops == 2 * (body * 110 + head * 10)
    assert need.bytes == 2 * (body + head) * 7


def test_the_roofline_is_the_longer_of_computing_and_reading() -> None:
    roofline = Roofline(flops_per_second=100.0, precision="float32", bytes_per_second=10.0)

    assert Need(flops=200.0, bytes=10.0).seconds(roofline) == 2.0
    assert Need(flops=200.0, bytes=50.0).seconds(roofline) == 5.0


def test_this_device_has_a_roofline() -> None:
    roofline = measure_roofline(device="cpu", precision="float32", threads=1)

    assert 1e8 < roofline.flops_per_second < 1e14
    assert 1e8 < roofline.bytes_per_second < 1e13


def test_likeness_counts_equal_answers_and_common_beginnings() -> None:
    assert likeness(("abcd", "ab", ""), ("abcd", "abcd", "")) == (2 / 3, (1 + 0.5 + 1) / 3)


def test_what_a_model_that_is_too_small_for_the_workload_says_is_told(llama_folder: Path, task: Task) -> None:
    spec = ModelSpec(name="tiny", source=str(llama_folder), engine=EngineKind.TORCH, recipe=Recipe.FLOAT32)

    with pytest.raises(ModelUnavailableError, match="maximum context length is 256"):
        run_trial(spec, task)


FIGURES = {
    "variant": "m<1>",
    "engine": "torch",
    "fingerprint": "torch-2",
    "output_tokens_per_second": 10.0,
    "tokens_per_second": 40.0,
    "roofline_share": 0.5,
}


def test_the_chart_is_one_page_with_every_figure_and_nothing_from_elsewhere() -> None:
    page = page_of([FIGURES, {**FIGURES, "variant": "m2", "roofline_share": 0.0}])

    tags: list[str] = []

    class Reader(HTMLParser):
        def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
            tags.append(tag)
            assert not {name for name, _ in attrs} & {"src", "href"}

    Reader().feed(page)
    assert tags.count("rect") == 4
    assert "m&lt;1&gt;" in page
    assert not re.search(r"https?://", page)
    assert json.dumps(40.0) in page
