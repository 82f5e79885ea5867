"""Let batches call `/v1/responses`."""

from __future__ import annotations

from alembic import op

revision = "0017"
down_revision = "0016"
branch_labels = None
depends_on = None

_ENDPOINTS = (
    "/v1/chat/completions", "/v1/completions", "/v1/responses", "/v1/embeddings", "/v1/score", "/v1/rerank", "/v1/classify",
)  # fmt: skip


def upgrade() -> None:
    listed = ", ".join(f"'{endpoint}'" for endpoint in _ENDPOINTS)
    for table in ("batches", "packs", "recurring"):
        name = op.f(f"ck_{table}_endpoint")
        op.drop_constraint(name, table, schema="nightrate")
        op.create_check_constraint(name, table, f"endpoint IN ({listed})", schema="nightrate")
