"""An engine that runs no model: it answers with what was asked, for load tests of everything around it.

Every body says so, in `system_fingerprint` and in a `nightrate` note. Token counts are an estimate: one
token per four characters, rounded up, and at least one; an image counts one.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any, Final
from zlib import crc32

from pipeline.domain.endpoints import Endpoint
from pipeline.domain.images import has_images, image_urls_of
from pipeline.domain.models import ENDPOINTS, EngineKind
from pipeline.domain.parameters import inputs_of, prompt_of, sides_of, text_of
from pipeline.ports.engine import EngineRequest, EngineResult
from pipeline.ports.meters import EngineIdentity, EngineMeters
from workers.engine.answers import utc_now
from workers.engine.counters import Counters

#: Characters that count as one token.
CHARACTERS_PER_TOKEN: Final = 4
#: Rows answered by one `step`, and so the bound on rows held.
ROWS_PER_STEP: Final = 4096
#: Floats of an embedding: the first bytes of a SHA-256, scaled to -1..1.
DIMENSIONS: Final = 8

_NOTE: Final = "echo engine: no model was run"


class EchoEngine:
    """Answers each row with its last user message, prompt, or a hash of its input; implements `Engine`."""

    name = "echo"
    endpoints = ENDPOINTS[EngineKind.ECHO]
    identity = EngineIdentity(engine="echo")

    def __init__(self, model: str = "echo", *, now: Callable[[], datetime] = utc_now) -> None:
        """Answer under the name `model`."""
        self.model = model
        self._now = now
        self._rows: list[EngineRequest] = []
        self._counters = Counters()

    def room(self) -> int:
        """Return how many more rows fit the next step."""
        return max(0, ROWS_PER_STEP - len(self._rows))

    def add(self, requests: Sequence[EngineRequest]) -> None:
        """Queue rows; nothing is looked at yet."""
        self._rows += requests

    def step(self) -> Sequence[EngineResult]:
        """Answer every row in flight."""
        rows, self._rows = self._rows, []
        created = int(self._now().timestamp())
        if rows:
            self._counters.note_step(len(rows), ROWS_PER_STEP)
        return [self._answer(row, created) for row in rows]

    def in_flight(self) -> int:
        """Return how many added rows have not come back yet."""
        return len(self._rows)

    def meters(self) -> EngineMeters:
        """Return the counters; no token is computed here, so none is counted."""
        return self._counters.meters()

    def abort(self, keys: Sequence[int]) -> None:
        """Forget these rows."""
        gone = frozenset(keys)
        self._rows = [row for row in self._rows if row.key not in gone]

    def close(self) -> None:
        """Forget every row."""
        self._rows = []

    def _answer(self, row: EngineRequest, created: int) -> EngineResult:
        if row.endpoint is Endpoint.CHAT_COMPLETIONS:
            return self._chat(row, created)
        if row.endpoint is Endpoint.COMPLETIONS:
            return self._completion(row, created)
        if row.endpoint is Endpoint.EMBEDDINGS:
            return self._embedding(row)
        if row.endpoint is Endpoint.CLASSIFY:
            return self._classes(row, created)
        return self._pairs(row, created)

    def _chat(self, row: EngineRequest, created: int) -> EngineResult:
        messages, text, characters = row.body["messages"], "", 0
        for message in messages:
            content = message["content"]
            if type(content) is not str:
                content = text_of(content)
            characters += len(content)
            if message["role"] == "user":
                text = content
        text, finish_reason, output = _within(row.body, text)
        choice = {
            "index": 0,
            "message": {"role": "assistant", "content": text, "refusal": None},
            "logprobs": None,
            "finish_reason": finish_reason,
        }
        return self._result(
            row, created, "chat.completion", f"chatcmpl-{_mark(text)}", choice, _tokens(characters), output
        )

    def _completion(self, row: EngineRequest, created: int) -> EngineResult:
        prompt = prompt_of(row.body)
        text, finish_reason, output = _within(row.body, prompt)
        choice = {"index": 0, "text": text, "logprobs": None, "finish_reason": finish_reason}
        return self._result(
            row, created, "text_completion", f"cmpl-{_mark(text)}", choice, _tokens(len(prompt)), output
        )

    def _result(
        self, row: EngineRequest, created: int, kind: str, identity: str, choice: dict[str, Any], used: int, output: int
    ) -> EngineResult:
        choices = [choice]
        if (count := row.body.get("n") or 1) > 1:
            choices = [{**choice, "index": index} for index in range(count)]
            output *= count
        body = {
            "id": identity,
            "object": kind,
            "created": created,
            "model": self.model,
            "choices": choices,
            "usage": {
                "prompt_tokens": used,
                "completion_tokens": output,
                "total_tokens": used + output,
                "prompt_tokens_details": {"cached_tokens": 0},
            },
            "system_fingerprint": "echo",
            "nightrate": {"engine": "echo", "note": _NOTE},
        }
        return EngineResult(row.key, 200, body, used, output)

    def _embedding(self, row: EngineRequest) -> EngineResult:
        texts, used = _inputs(row.body)
        data = [{"object": "embedding", "index": i, "embedding": _vector(text)} for i, text in enumerate(texts)]
        body = {
            "object": "list",
            "data": data,
            "model": self.model,
            "usage": {"prompt_tokens": used, "total_tokens": used},
            "system_fingerprint": "echo",
            "nightrate": {"engine": "echo", "note": _NOTE},
        }
        return EngineResult(row.key, 200, body, used, 0)

    def _pairs(self, row: EngineRequest, created: int) -> EngineResult:
        first, second = sides_of(row.endpoint, row.body)
        used = sum(_tokens(len(text)) for text in (*first, *second))
        scores = [_share(text) for text in second]
        results: dict[str, Any]
        if row.endpoint is Endpoint.RERANK:
            ranks = sorted(range(len(scores)), key=lambda index: -scores[index])[: row.body.get("top_n") or None]
            shown = [
                {"index": i, "relevance_score": scores[i], "document": {"text": second[i]}}
                if row.body.get("return_documents") is not False
                else {"index": i, "relevance_score": scores[i]}
                for i in ranks
            ]
            results = {"id": f"rerank-{_mark(first[0])}", "results": shown}
        else:
            data = [{"index": i, "object": "score", "score": score} for i, score in enumerate(scores)]
            results = {"id": f"score-{_mark(first[0])}", "object": "list", "created": created, "data": data}
        return self._scored(row, results, used)

    def _classes(self, row: EngineRequest, created: int) -> EngineResult:
        texts, used = _inputs(row.body)
        data = [{"index": i, "label": "LABEL_0", "probs": [1.0], "num_classes": 1} for i in range(len(texts))]
        results = {"id": f"classify-{_mark(texts[0])}", "object": "list", "created": created, "data": data}
        return self._scored(row, results, used)

    def _scored(self, row: EngineRequest, results: dict[str, Any], used: int) -> EngineResult:
        body = {
            **results,
            "model": self.model,
            "usage": {"prompt_tokens": used, "total_tokens": used},
            "system_fingerprint": "echo",
            "nightrate": {"engine": "echo", "note": _NOTE},
        }
        return EngineResult(row.key, 200, body, used, 0)


def _inputs(body: Mapping[str, Any]) -> tuple[list[str], int]:
    """Return what is asked about, for an image its URL, and its tokens: of an image one."""
    if has_images(body):
        urls = image_urls_of(body)
        return urls, len(urls)
    texts = inputs_of(body)
    return texts, sum(_tokens(len(text)) for text in texts)


def _share(text: str) -> float:
    return crc32(text.encode("utf-8", "surrogatepass")) / 2**32


def _tokens(characters: int) -> int:
    return -(-characters // CHARACTERS_PER_TOKEN) or 1


def _mark(text: str) -> str:
    """Return a checksum of the answer: stable, and a microsecond where a hash of the whole body costs five."""
    return f"echo{crc32(text.encode('utf-8', 'surrogatepass')):08x}"


def _within(body: Mapping[str, Any], text: str) -> tuple[str, str, int]:
    """Return the answer cut to the request's bound, why it ends, and its tokens by the estimate."""
    bound = body.get("max_completion_tokens") or body.get("max_tokens")
    if bound is None or len(text) <= bound * CHARACTERS_PER_TOKEN:
        return text, "stop", _tokens(len(text))
    return text[: bound * CHARACTERS_PER_TOKEN], "length", bound


def _vector(text: str) -> list[float]:
    digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()
    return [byte / 127.5 - 1.0 for byte in digest[:DIMENSIONS]]
