from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from pipeline.domain.endpoints import Endpoint
from pipeline.domain.errors import ModelUnavailableError
from pipeline.ports.engine import Engine, EngineRequest
from tests.workers.engine.driving import answers
from tests.workers.engine.encoder.conftest import Load
from workers.engine.encoder.heads import activation_of, identity, logistic, softmax

QUERY = "where do night trains go?"
DOCUMENTS = ["to the sea", "a recipe for bread", "night trains go north", "x"]


def asked(engine: Engine, endpoint: Endpoint, **body: object) -> dict[str, Any]:
    (result,) = answers(engine, [EngineRequest(7, endpoint, {"model": "tiny", **body})]).values()
    return dict(result.body)


def reference(folder: Path, *texts: list[str]) -> torch.Tensor:
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    rows = []
    for given in zip(*texts, strict=True):
        with torch.no_grad():
            rows.append(model(**tokenizer(*given, return_tensors="pt")).logits[0])
    return torch.stack(rows)


def test_a_cross_encoder_scores_one_text_with_each_of_many(load_encoder: Load, cross_encoder: Path) -> None:
    engine = load_encoder(cross_encoder, backend="torch")

    body = asked(engine, Endpoint.SCORE, text_1=QUERY, text_2=DOCUMENTS)

    expected = torch.sigmoid(reference(cross_encoder, [QUERY] * 4, DOCUMENTS))[:, 0]
    assert [item["score"] for item in body["data"]] == pytest.approx(expected.tolist(), abs=1e-5)
    assert [(item["index"], item["object"]) for item in body["data"]] == [(i, "score") for i in range(4)]
    assert body["id"].startswith("score-")
    assert body["usage"] == {"prompt_tokens": sum(len(QUERY) + len(text) + 3 for text in DOCUMENTS)} | {
        "total_tokens": body["usage"]["prompt_tokens"]
    }


def test_a_cross_encoder_scores_pairs_side_by_side_and_raw(load_encoder: Load, cross_encoder: Path) -> None:
    engine = load_encoder(cross_encoder, backend="torch")

    body = asked(engine, Endpoint.SCORE, text_1=["a", "bb"], text_2=["cc", "d"], use_activation=False)

    expected = reference(cross_encoder, ["a", "bb"], ["cc", "d"])[:, 0]
    assert [item["score"] for item in body["data"]] == pytest.approx(expected.tolist(), abs=1e-4)


def test_reranking_sorts_by_score_and_keeps_the_best(load_encoder: Load, cross_encoder: Path) -> None:
    engine = load_encoder(cross_encoder, backend="torch")

    whole = asked(engine, Endpoint.RERANK, query=QUERY, documents=DOCUMENTS)
    best = asked(engine, Endpoint.RERANK, query=QUERY, documents=DOCUMENTS, top_n=2, return_documents=False)

    scores = torch.sigmoid(reference(cross_encoder, [QUERY] * 4, DOCUMENTS))[:, 0]
    order = scores.argsort(descending=True).tolist()
    assert [item["index"] for item in whole["results"]] == order
    assert [item["document"] for item in whole["results"]] == [{"text": DOCUMENTS[i]} for i in order]
    assert [item["relevance_score"] for item in whole["results"]] == pytest.approx(scores[order].tolist(), abs=1e-5)
    assert best["results"] == [
        {"index": item["index"], "relevance_score": pytest.approx(item["relevance_score"], abs=1e-5)}
        for item in whole["results"][:2]
    ]


def test_a_bi_encoder_scores_by_cosine(load_encoder: Load, bi_encoder: Path) -> None:
    engine = load_encoder(bi_encoder, backend="torch", recipe="float32")
    found = asked(engine, Endpoint.EMBEDDINGS, input=[QUERY, *DOCUMENTS])
    query, *documents = (np.array(item["embedding"]) for item in found["data"])

    scored = asked(engine, Endpoint.SCORE, text_1=QUERY, text_2=DOCUMENTS)
    ranked = asked(engine, Endpoint.RERANK, query=QUERY, documents=DOCUMENTS)

    cosines = [float(query @ document) for document in documents]
    assert [item["score"] for item in scored["data"]] == pytest.approx(cosines, abs=1e-5)
    assert [item["index"] for item in ranked["results"]] == sorted(range(4), key=lambda i: -cosines[i])


def test_a_classifier_names_the_likeliest_label(load_encoder: Load, classifier: Path) -> None:
    engine = load_encoder(classifier, backend="torch")

    body = asked(engine, Endpoint.CLASSIFY, input=DOCUMENTS)

    expected = reference(classifier, DOCUMENTS).softmax(dim=-1)
    for item, shares in zip(body["data"], expected, strict=True):
        assert item["probs"] == pytest.approx(shares.tolist(), abs=1e-5)
        assert item["label"] == ("calm", "glad", "cross")[int(shares.argmax())]
        assert item["num_classes"] == 3
    assert body["object"] == "list"
    assert body["id"].startswith("classify-")


def test_openvino_classifies_as_torch_does(load_encoder: Load, classifier: Path) -> None:
    pytest.importorskip("optimum.exporters.openvino")
    engine = load_encoder(classifier, backend="openvino")

    body = asked(engine, Endpoint.CLASSIFY, input=DOCUMENTS)

    expected = reference(classifier, DOCUMENTS).softmax(dim=-1)
    assert np.allclose([item["probs"] for item in body["data"]], expected, atol=1e-4)


@pytest.mark.parametrize(
    ("model", "endpoint", "body"),
    [
        ("bi_encoder", Endpoint.CLASSIFY, {"input": "x"}),
        ("classifier", Endpoint.EMBEDDINGS, {"input": "x"}),
        ("classifier", Endpoint.SCORE, {"text_1": "x", "text_2": "y"}),
        ("classifier", Endpoint.RERANK, {"query": "x", "documents": ["y"]}),
    ],
)
def test_what_the_loaded_model_cannot_answer_is_refused_by_name(
    load_encoder: Load, request: pytest.FixtureRequest, model: str, endpoint: Endpoint, body: dict[str, Any]
) -> None:
    engine = load_encoder(request.getfixturevalue(model), backend="torch")

    error = asked(engine, endpoint, **body)["error"]

    assert error["code"] == "unsupported_endpoint"
    assert endpoint in error["message"]


def test_single_texts_and_pairs_added_together_are_read_each_in_its_way(
    load_encoder: Load, cross_encoder: Path
) -> None:
    engine = load_encoder(cross_encoder, backend="torch")
    rows = [
        EngineRequest(0, Endpoint.CLASSIFY, {"model": "tiny", "input": "x"}),
        EngineRequest(1, Endpoint.SCORE, {"model": "tiny", "text_1": "x", "text_2": "y"}),
        EngineRequest(2, Endpoint.CLASSIFY, {"model": "tiny", "input": "zz"}),
    ]

    together = answers(engine, rows)

    assert [together[i].input_tokens for i in range(3)] == [3, 5, 4]
    for row in rows:
        alone = answers(engine, [row])[row.key].body["data"][0]
        shown = together[row.key].body["data"][0]
        assert shown.get("probs", shown.get("score")) == pytest.approx(alone.get("probs", alone.get("score")), abs=1e-5)


def test_a_pair_too_long_together_is_refused(load_encoder: Load, cross_encoder: Path) -> None:
    engine = load_encoder(cross_encoder, backend="torch")

    error = asked(engine, Endpoint.RERANK, query="q" * 70, documents=["d" * 70])["error"]

    assert error["code"] == "context_length_exceeded"
    assert error["param"] == "body.documents"


def test_the_models_config_says_what_scores_become() -> None:
    assert activation_of({}, labels=1) is logistic
    assert activation_of({}, labels=2) is softmax
    assert activation_of({"problem_type": "regression"}, labels=1) is identity
    assert activation_of({"problem_type": "multi_label_classification"}, labels=3) is logistic
    assert activation_of(
        {"sentence_transformers": {"activation_fn": "torch.nn.modules.linear.Identity"}}, labels=1
    ) is (identity)
    with pytest.raises(ModelUnavailableError, match="Tanh"):
        activation_of({"sbert_ce_default_activation_function": "torch.nn.modules.activation.Tanh"}, labels=1)
