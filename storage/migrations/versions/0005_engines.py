"""Let the registry hold models of the vision and vllm engines."""

from __future__ import annotations

from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.drop_constraint(op.f("ck_variants_engine"), "variants", schema="nightrate")
    op.create_check_constraint(
        op.f("ck_variants_engine"),
        "variants",
        "engine IN ('auto', 'torch', 'openvino', 'vllm', 'encoder', 'vision', 'echo')",
        schema="nightrate",
    )
