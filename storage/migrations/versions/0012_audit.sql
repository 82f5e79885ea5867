-- What people do to what a tenant has is written down by the tables themselves: no code path can forget it.

-- Who acts is told by `set_config(…, true)` at the start of the transaction; it ends as '' with it.
CREATE FUNCTION nightrate.note_v1(action text, tenant_id text, project_id text, object_id text, details jsonb)
RETURNS void LANGUAGE sql AS $$
    INSERT INTO nightrate.audit_log (id, tenant_id, project_id, actor, request_id, action, object_id, details)
    -- A UUIDv7: random, so that nobody can count what others do, and in order of time.
    VALUES ('audit_' || lpad(to_hex(CAST(extract(epoch FROM clock_timestamp()) * 1000 AS bigint)), 12, '0')
                     || '7' || substr(replace(CAST(gen_random_uuid() AS text), '-', ''), 14),
            note_v1.tenant_id, note_v1.project_id,
            coalesce(nullif(current_setting('nightrate.actor', true), ''), 'system'),
            nullif(current_setting('nightrate.request_id', true), ''),
            note_v1.action, note_v1.object_id, note_v1.details)
$$;

CREATE FUNCTION nightrate.changes_v1(before jsonb, after jsonb, fields text[]) RETURNS jsonb LANGUAGE sql IMMUTABLE AS $$
    SELECT coalesce(jsonb_object_agg(field, jsonb_build_object('from', before -> field, 'to', after -> field)), '{}')
      FROM unnest(fields) AS field WHERE before -> field IS DISTINCT FROM after -> field
$$;

CREATE TRIGGER audit_log_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON nightrate.audit_log
    FOR EACH STATEMENT EXECUTE FUNCTION nightrate.refuse_change_v1();

CREATE FUNCTION nightrate.audit_tenants_v1() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'INSERT' THEN
        PERFORM nightrate.note_v1('organization.created', NEW.id, NULL, NEW.id, jsonb_build_object('name', NEW.name));
    ELSE
        PERFORM nightrate.note_v1('organization.updated', NEW.id, NULL, NEW.id, nightrate.changes_v1(
            to_jsonb(OLD), to_jsonb(NEW), ARRAY(SELECT jsonb_object_keys(to_jsonb(NEW)))));
    END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER tenants_audit_new AFTER INSERT ON nightrate.tenants
    FOR EACH ROW EXECUTE FUNCTION nightrate.audit_tenants_v1();
CREATE TRIGGER tenants_audit_change AFTER UPDATE ON nightrate.tenants
    FOR EACH ROW WHEN (OLD.* IS DISTINCT FROM NEW.*) EXECUTE FUNCTION nightrate.audit_tenants_v1();

CREATE FUNCTION nightrate.audit_projects_v1() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'INSERT' THEN
        PERFORM nightrate.note_v1('project.created', NEW.tenant_id, NEW.id, NEW.id, jsonb_build_object('name', NEW.name));
    ELSE
        PERFORM nightrate.note_v1(
            CASE WHEN OLD.archived_at IS NULL AND NEW.archived_at IS NOT NULL THEN 'project.archived'
                 ELSE 'project.updated' END,
            NEW.tenant_id, NEW.id, NEW.id,
            nightrate.changes_v1(to_jsonb(OLD), to_jsonb(NEW), ARRAY['name', 'is_default', 'archived_at']));
    END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER projects_audit_new AFTER INSERT ON nightrate.projects
    FOR EACH ROW EXECUTE FUNCTION nightrate.audit_projects_v1();
CREATE TRIGGER projects_audit_change AFTER UPDATE ON nightrate.projects
    FOR EACH ROW WHEN (OLD.* IS DISTINCT FROM NEW.*) EXECUTE FUNCTION nightrate.audit_projects_v1();

CREATE FUNCTION nightrate.audit_api_keys_v1() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'INSERT' THEN
        PERFORM nightrate.note_v1('api_key.created', NEW.tenant_id, NEW.project_id, NEW.id, jsonb_build_object(
            'name', NEW.name, 'roles', NEW.roles, 'expires_at', NEW.expires_at));
    ELSE
        PERFORM nightrate.note_v1(
            CASE WHEN OLD.revoked_at IS NULL AND NEW.revoked_at IS NOT NULL THEN 'api_key.deleted'
                 ELSE 'api_key.updated' END,
            NEW.tenant_id, NEW.project_id, NEW.id, nightrate.changes_v1(
                to_jsonb(OLD), to_jsonb(NEW), ARRAY['name', 'roles', 'project_id', 'expires_at', 'revoked_at']));
    END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER api_keys_audit_new AFTER INSERT ON nightrate.api_keys
    FOR EACH ROW EXECUTE FUNCTION nightrate.audit_api_keys_v1();
-- That a key was used is not told.
CREATE TRIGGER api_keys_audit_change AFTER UPDATE OF name, roles, project_id, secret_digest, expires_at, revoked_at
    ON nightrate.api_keys
    FOR EACH ROW WHEN (OLD.* IS DISTINCT FROM NEW.*) EXECUTE FUNCTION nightrate.audit_api_keys_v1();

CREATE FUNCTION nightrate.audit_files_v1() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'INSERT' THEN
        PERFORM nightrate.note_v1('file.created', NEW.tenant_id, NEW.project_id, NEW.id, jsonb_build_object(
            'filename', NEW.filename, 'purpose', NEW.purpose, 'bytes', NEW.size_bytes));
    ELSE
        PERFORM nightrate.note_v1('file.deleted', NEW.tenant_id, NEW.project_id, NEW.id, jsonb_build_object(
            'filename', NEW.filename, 'purpose', NEW.purpose));
    END IF;
    RETURN NULL;
END $$;
-- Results are written by the system, and what ran out is deleted by it.
CREATE TRIGGER files_audit_new AFTER INSERT ON nightrate.files
    FOR EACH ROW WHEN (NEW.purpose <> 'batch_output') EXECUTE FUNCTION nightrate.audit_files_v1();
CREATE TRIGGER files_audit_delete AFTER UPDATE OF deleted_at ON nightrate.files
    FOR EACH ROW WHEN (OLD.deleted_at IS NULL AND NEW.deleted_at IS NOT NULL
                       AND (OLD.expires_at IS NULL OR OLD.expires_at > now()))
    EXECUTE FUNCTION nightrate.audit_files_v1();

CREATE FUNCTION nightrate.audit_batches_v1() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    changes jsonb;
BEGIN
    IF TG_OP = 'INSERT' THEN
        PERFORM nightrate.note_v1('batch.created', NEW.tenant_id, NEW.project_id, NEW.id, jsonb_build_object(
            'input_file_id', NEW.input_file_id, 'endpoint', NEW.endpoint, 'completion_window', NEW.completion_window,
            'tier', NEW.tier, 'priority', NEW.priority, 'budget_micros', NEW.budget_micros));
        RETURN NULL;
    END IF;
    IF OLD.state <> 'cancelling' AND NEW.state = 'cancelling' THEN
        PERFORM nightrate.note_v1('batch.cancelled', NEW.tenant_id, NEW.project_id, NEW.id, '{}');
    END IF;
    IF (OLD.paused_at IS NULL) <> (NEW.paused_at IS NULL) THEN
        PERFORM nightrate.note_v1(CASE WHEN NEW.paused_at IS NULL THEN 'batch.resumed' ELSE 'batch.paused' END,
                                  NEW.tenant_id, NEW.project_id, NEW.id, '{}');
    END IF;
    changes := nightrate.changes_v1(to_jsonb(OLD), to_jsonb(NEW), ARRAY[
        'tier', 'deadline_at', 'budget_micros', 'hold_until', 'priority', 'metadata', 'labels', 'project_id']);
    IF changes <> '{}' THEN
        -- What people note of their batches is theirs: that it changed is told, not what it says.
        IF changes ?| ARRAY['metadata', 'labels'] THEN
            changes := changes - ARRAY['metadata', 'labels']
                       || (SELECT jsonb_object_agg(field, true) FROM unnest(ARRAY['metadata', 'labels']) AS field
                            WHERE changes ? field);
        END IF;
        PERFORM nightrate.note_v1('batch.changed', NEW.tenant_id, NEW.project_id, NEW.id, changes);
    END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER batches_audit_new AFTER INSERT ON nightrate.batches
    FOR EACH ROW EXECUTE FUNCTION nightrate.audit_batches_v1();
-- Only people do these; the scheduler's own changes of state, claims and counts do not even come here.
CREATE TRIGGER batches_audit_change
    AFTER UPDATE OF state, paused_at, tier, deadline_at, budget_micros, hold_until, priority, metadata, labels, project_id
    ON nightrate.batches
    FOR EACH ROW WHEN (
        (OLD.state <> 'cancelling' AND NEW.state = 'cancelling')
        OR (OLD.paused_at IS NULL) <> (NEW.paused_at IS NULL)
        OR (OLD.tier, OLD.deadline_at, OLD.budget_micros, OLD.hold_until, OLD.priority, OLD.metadata, OLD.labels,
            OLD.project_id) IS DISTINCT FROM
           (NEW.tier, NEW.deadline_at, NEW.budget_micros, NEW.hold_until, NEW.priority, NEW.metadata, NEW.labels,
            NEW.project_id))
    EXECUTE FUNCTION nightrate.audit_batches_v1();

-- Nothing new is made in a project that is archived; the results of what was made before still come.
-- The lock is the one that the foreign key takes anyway, and archiving waits for it.
CREATE FUNCTION nightrate.refuse_archived_v1() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    archived timestamptz;
BEGIN
    SELECT archived_at INTO archived FROM nightrate.projects
     WHERE id = NEW.project_id AND tenant_id = NEW.tenant_id FOR KEY SHARE;
    IF archived IS NOT NULL THEN
        RAISE EXCEPTION 'project % is archived: nothing new is made in it', NEW.project_id USING ERRCODE = 'NR001';
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER batches_refuse_archived BEFORE INSERT ON nightrate.batches
    FOR EACH ROW EXECUTE FUNCTION nightrate.refuse_archived_v1();
CREATE TRIGGER files_refuse_archived BEFORE INSERT ON nightrate.files
    FOR EACH ROW WHEN (NEW.purpose <> 'batch_output') EXECUTE FUNCTION nightrate.refuse_archived_v1();
CREATE TRIGGER api_keys_refuse_archived BEFORE INSERT ON nightrate.api_keys
    FOR EACH ROW WHEN (NEW.project_id IS NOT NULL) EXECUTE FUNCTION nightrate.refuse_archived_v1();
