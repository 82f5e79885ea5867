"""Rows for an engine, and a loop that drains it."""

from __future__ import annotations

import random
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from pipeline.domain.endpoints import Endpoint
from pipeline.ports.engine import Engine, EngineRequest, EngineResult
from workers.engine.choice import OPENVINO_LIBRARIES, are_installed

needs_openvino = pytest.mark.skipif(
    not are_installed(*OPENVINO_LIBRARIES), reason="OpenVINO is not in vLLM's environment: make unit"
)


def completion(key: int, prompt: str, **more: object) -> EngineRequest:
    body = {"model": "tiny", "prompt": prompt, "temperature": 0, "max_tokens": 12, **more}
    return EngineRequest(key, Endpoint.COMPLETIONS, body)


def drained(engine: Engine) -> dict[int, EngineResult]:
    results: list[EngineResult] = []
    while engine.in_flight():
        results += engine.step()
    return {result.key: result for result in results}


def answers(engine: Engine, requests: Iterable[EngineRequest]) -> dict[int, EngineResult]:
    engine.add(list(requests))
    return drained(engine)


SHARED = "Shared beginning of a few prompts: "


def prompts(count: int) -> list[str]:
    rng = random.Random(3)
    texts = ["".join(rng.choice("abcdef ghi") for _ in range(rng.randint(1, 70))) for _ in range(count)]
    return [SHARED + text if i % 3 == 0 else text for i, text in enumerate(texts)]


def references(folder: Path, bounds: dict[str, int]) -> list[str]:
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    return [one_by_one(model, tokenizer, prompt, count) for prompt, count in bounds.items()]


def one_by_one(model: Any, tokenizer: Any, prompt: str, count: int) -> str:  # noqa: ANN401 -- transformers has no types
    ids = tokenizer([prompt])["input_ids"][0]
    output: list[int] = []
    with torch.no_grad():
        for _ in range(count):
            token = int(model(torch.tensor([ids + output])).logits[0, -1].argmax())
            if token == tokenizer.eos_token_id:
                break
            output.append(token)
    return str(tokenizer.decode(output, skip_special_tokens=True)).rstrip("\N{REPLACEMENT CHARACTER}")


def text(result: EngineResult) -> str:
    assert result.status_code == 200, result.body
    return str(result.body["choices"][0]["text"])
