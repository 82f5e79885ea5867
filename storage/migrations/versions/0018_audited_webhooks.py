"""Write into the audit log who makes, changes and removes webhooks."""

from __future__ import annotations

from alembic import op

revision = "0018"
down_revision = "0017"
branch_labels = None
depends_on = None

_ACTIONS = (
    "organization.created", "organization.updated", "project.created", "project.updated", "project.archived",
    "api_key.created", "api_key.updated", "api_key.deleted", "file.created", "file.deleted", "batch.created",
    "batch.changed", "batch.paused", "batch.resumed", "batch.cancelled", "webhook.created", "webhook.updated",
    "webhook.deleted",
)  # fmt: skip
_NOTE = """
    CREATE FUNCTION nightrate.audit_webhooks_v1() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        IF TG_OP = 'INSERT' THEN
            PERFORM nightrate.note_v1('webhook.created', NEW.tenant_id, NEW.project_id, NEW.id, jsonb_build_object(
                'url', NEW.url, 'event_types', NEW.event_types));
        ELSIF TG_OP = 'DELETE' THEN
            PERFORM nightrate.note_v1('webhook.deleted', OLD.tenant_id, OLD.project_id, OLD.id,
                                      jsonb_build_object('url', OLD.url));
        ELSE
            -- Of a secret it is told that it changed, and not what it is.
            PERFORM nightrate.note_v1('webhook.updated', NEW.tenant_id, NEW.project_id, NEW.id,
                nightrate.changes_v1(to_jsonb(OLD), to_jsonb(NEW),
                                     ARRAY['url', 'description', 'event_types', 'disabled_at', 'disabled_reason'])
                || CASE WHEN OLD.secret <> NEW.secret THEN '{"secret": true}'::jsonb ELSE '{}' END);
        END IF;
        RETURN NULL;
    END $$
"""
_NOTE_ON = (
    """
    CREATE TRIGGER webhooks_audit_new AFTER INSERT OR DELETE ON nightrate.webhooks
    FOR EACH ROW EXECUTE FUNCTION nightrate.audit_webhooks_v1()
    """,
    # That a try failed is no doing of anybody's.
    """
    CREATE TRIGGER webhooks_audit_change
    AFTER UPDATE OF url, description, event_types, secret, disabled_at ON nightrate.webhooks
    FOR EACH ROW WHEN (
        (OLD.url, OLD.description, OLD.event_types, OLD.secret, OLD.disabled_at) IS DISTINCT FROM
        (NEW.url, NEW.description, NEW.event_types, NEW.secret, NEW.disabled_at))
    EXECUTE FUNCTION nightrate.audit_webhooks_v1()
    """,
)


def upgrade() -> None:
    listed = ", ".join(f"'{action}'" for action in _ACTIONS)
    name = op.f("ck_audit_log_action")
    op.drop_constraint(name, "audit_log", schema="nightrate")
    op.create_check_constraint(name, "audit_log", f"action IN ({listed})", schema="nightrate")
    op.execute(_NOTE)
    for statement in _NOTE_ON:
        op.execute(statement)
