-- Who is told what: written in the transaction of what happened, so that both are there or neither is.

-- Time-ordered like all our ids (UUIDv7); Postgres has uuidv7() from release 18 only.
CREATE FUNCTION nightrate.new_event_id_v1() RETURNS text LANGUAGE sql VOLATILE AS $$
    SELECT 'evt_' || encode(
        set_bit(set_bit(
            overlay(uuid_send(gen_random_uuid())
                    PLACING substring(int8send((extract(epoch FROM clock_timestamp()) * 1000)::bigint) FROM 3)
                    FROM 1 FOR 6),
            52, 1), 53, 1), 'hex');
$$;

-- Records an event and a delivery for each webhook that wants it; nothing where none does. Returns the event's id.
CREATE FUNCTION nightrate.tell_webhooks_v1(
    of_tenant text, of_project text, of_batch text, told text, at_step integer, told_data jsonb
) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    wanting text[];
    event text;
BEGIN
    -- Locked against removal: a webhook removed this moment must not make a batch's change fail.
    SELECT array_agg(id) INTO wanting FROM (
        SELECT id FROM nightrate.webhooks
         WHERE tenant_id = of_tenant AND (project_id IS NULL OR project_id = of_project) AND told = ANY(event_types)
         ORDER BY id FOR KEY SHARE) AS webhooks;
    IF wanting IS NULL THEN
        RETURN NULL;
    END IF;
    INSERT INTO nightrate.webhook_events (id, tenant_id, project_id, type, batch_id, step, data)
    VALUES (nightrate.new_event_id_v1(), of_tenant, of_project, told, of_batch, at_step, told_data)
    ON CONFLICT (batch_id, step) WHERE step IS NOT NULL DO NOTHING RETURNING id INTO event;
    IF event IS NULL THEN
        RETURN NULL;
    END IF;
    -- What a disabled webhook misses can be had by redelivery.
    INSERT INTO nightrate.webhook_deliveries (webhook_id, event_id, gave_up_at, last_error)
    SELECT id, event, CASE WHEN disabled_at IS NOT NULL THEN clock_timestamp() END,
           CASE WHEN disabled_at IS NOT NULL THEN 'the webhook was disabled' END
      FROM nightrate.webhooks WHERE id = ANY(wanting);
    PERFORM pg_notify('nightrate_changed', '');
    RETURN event;
END $$;

CREATE FUNCTION nightrate.tell_batch_state_v1() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM nightrate.tell_webhooks_v1(
        NEW.tenant_id, NEW.project_id, NEW.id, 'batch.' || NEW.state, NULL, jsonb_build_object('id', NEW.id));
    RETURN NULL;
END $$;

CREATE TRIGGER batches_told AFTER UPDATE OF state ON nightrate.batches
    FOR EACH ROW
    WHEN (NEW.state IS DISTINCT FROM OLD.state
          AND NEW.state IN ('in_progress', 'completed', 'failed', 'expired', 'cancelled'))
    EXECUTE FUNCTION nightrate.tell_batch_state_v1();
