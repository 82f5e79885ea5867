"""Scores of pairs of texts, in the shapes of vLLM's server."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any

from pipeline.domain.endpoints import Endpoint
from pipeline.ports.engine import EngineRequest
from workers.engine.answers import body_digest


def pair_body(
    request: EngineRequest, scores: Sequence[float], *, model: str, used: int, now: Callable[[], datetime]
) -> Mapping[str, Any]:
    """Return the answer to a score or rerank request from the score of each of its pairs, in order."""
    digest = body_digest(request.body).hex()[:24]
    usage = {"prompt_tokens": used, "total_tokens": used}
    if request.endpoint is Endpoint.RERANK:
        return {
            "id": f"rerank-{digest}",
            "model": model,
            "usage": usage,
            "results": ranked(request.body, scores),
        }
    return {
        "id": f"score-{digest}",
        "object": "list",
        "created": int(now().timestamp()),
        "model": model,
        "data": [{"index": i, "object": "score", "score": score} for i, score in enumerate(scores)],
        "usage": usage,
    }


def ranked(body: Mapping[str, Any], scores: Sequence[float]) -> list[dict[str, Any]]:
    """Return the `top_n` documents of a rerank body, the highest score first, equal ones in the order given."""
    order = sorted(range(len(scores)), key=lambda index: -scores[index])
    results = []
    for index in order[: body.get("top_n") or len(order)]:
        result: dict[str, Any] = {"index": index, "relevance_score": scores[index]}
        if body.get("return_documents") is not False:
            result["document"] = {"text": body["documents"][index]}
        results.append(result)
    return results


def classes_body(
    request: EngineRequest,
    probabilities: Sequence[Sequence[float]],
    *,
    labels: Sequence[str],
    model: str,
    used: int,
    now: Callable[[], datetime],
) -> Mapping[str, Any]:
    """Return the answer to a classify request from the probabilities of each of its inputs, in order."""
    data = []
    for index, each in enumerate(probabilities):
        best = max(range(len(each)), key=each.__getitem__)
        data.append({"index": index, "label": labels[best], "probs": list(each), "num_classes": len(each)})
    return {
        "id": f"classify-{body_digest(request.body).hex()[:24]}",
        "object": "list",
        "created": int(now().timestamp()),
        "model": model,
        "data": data,
        "usage": {"prompt_tokens": used, "total_tokens": used},
    }
