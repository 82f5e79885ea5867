"""Input files and the batches they are submitted to."""

from __future__ import annotations

import io
import json
import tempfile
from pathlib import Path
from typing import Any

from pipeline.domain.endpoints import Endpoint
from pipeline.domain.ids import DEFAULT_PROJECT, BatchId, TenantId
from pipeline.domain.lifecycle import BatchState
from pipeline.domain.objects.roster import decode_roster
from pipeline.ports.batches import Admitted, BatchClaim, Rejected
from pipeline.submit.intake import take_in
from tests.pipeline.memory import MemoryStore

CHAT = "model-chat"
OTHER = "model-other"
ENCODER = "model-encoder"
MODELS = {
    CHAT: frozenset({Endpoint.CHAT_COMPLETIONS, Endpoint.COMPLETIONS}),
    OTHER: frozenset({Endpoint.CHAT_COMPLETIONS, Endpoint.COMPLETIONS}),
    ENCODER: frozenset({Endpoint.EMBEDDINGS}),
}
BATCH_HEX = "01920000000070008000000000000001"


def claim_of(endpoint: Endpoint = Endpoint.CHAT_COMPLETIONS, *, token: int = 1) -> BatchClaim:
    return BatchClaim(
        tenant_id=TenantId("tnt_test"),
        batch_id=BatchId(f"batch_{BATCH_HEX}"),
        claim_token=token,
        failures=0,
        state=BatchState.VALIDATING,
        endpoint=endpoint,
        project_id=DEFAULT_PROJECT,
        input_file_id="",
        source=None,
        output_kept_seconds=None,
    )


def chat(text: object = "2+2?", **fields: object) -> dict[str, Any]:
    return {"model": CHAT, "messages": [{"role": "user", "content": text}]} | fields


def request(custom_id: object = "request-1", body: object = None, **fields: object) -> dict[str, Any]:
    return {
        "custom_id": custom_id,
        "method": "POST",
        "url": "/v1/chat/completions",
        "body": chat() if body is None else body,
    } | fields


def line(custom_id: object = "request-1", body: object = None, **fields: object) -> bytes:
    return json.dumps(request(custom_id, body, **fields)).encode()


def without(key: str) -> bytes:
    fields = request()
    del fields[key]
    return json.dumps(fields).encode()


def take(
    content: bytes, *, endpoint: Endpoint = Endpoint.CHAT_COMPLETIONS, objects: MemoryStore | None = None
) -> Admitted | Rejected:
    with tempfile.TemporaryDirectory() as folder:
        outcome = take_in(
            claim_of(endpoint),
            io.BytesIO(content),
            MemoryStore() if objects is None else objects,
            models=MODELS,
            spool_folder=Path(folder),
        )
        assert not list(Path(folder).iterdir()), "the spool is emptied"
    return outcome


def admitted(
    content: bytes, endpoint: Endpoint = Endpoint.CHAT_COMPLETIONS, objects: MemoryStore | None = None
) -> Admitted:
    outcome = take(content, endpoint=endpoint, objects=objects)
    assert isinstance(outcome, Admitted), outcome
    return outcome


def rejected(
    content: bytes, endpoint: Endpoint = Endpoint.CHAT_COMPLETIONS, objects: MemoryStore | None = None
) -> Rejected:
    outcome = take(content, endpoint=endpoint, objects=objects)
    assert isinstance(outcome, Rejected)
    return outcome


def places(outcome: Admitted, objects: MemoryStore) -> list[tuple[int, int, str]]:
    """Return (shard number, position, custom id) in input order."""
    return [
        (shard_no, position, json.loads(custom_id))
        for roster in outcome.rosters
        for shard_no, position, custom_id in decode_roster(objects.read(roster.object_key, sha256=roster.sha256))
    ]
