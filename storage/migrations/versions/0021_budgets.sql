-- Budgets: what counts against them, who changes them, and who is told.

-- Charges by the month (UTC) in which their pack was begun, whose budgets it was reserved of; what has no pack, by the month in
-- which it was posted. Parts of a sum, by worker, so that workers that commit at once seldom wait
-- for one another: a worker's own commits take turns anyway, at its row. It is the last lock of a commit, and taken in
-- order, so that no two wait for each other.
CREATE FUNCTION nightrate.count_charges_v1() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO nightrate.charges_by_month AS known (tenant_id, month, project_id, slot, charged_micros)
    SELECT batches.tenant_id, coalesce(packs.month, CAST(date_trunc('month', transactions.created_at AT TIME ZONE 'UTC') AS date)),
           batches.project_id, mod(abs(CAST(hashtext(coalesce(transactions.worker_id, '')) AS bigint)), 8),
           sum(added.charged_micros)
      FROM added
      JOIN nightrate.transactions ON transactions.id = added.transaction_id
      LEFT JOIN nightrate.packs ON packs.id = transactions.pack_id
      JOIN nightrate.batches ON batches.id = added.batch_id
     WHERE added.charged_micros <> 0
     GROUP BY 1, 2, 3, 4 ORDER BY 1, 2, 3, 4
    ON CONFLICT (tenant_id, month, project_id, slot)
    DO UPDATE SET charged_micros = known.charged_micros + excluded.charged_micros;
    RETURN NULL;
END $$;

CREATE TRIGGER entries_count_charges AFTER INSERT ON nightrate.entries REFERENCING NEW TABLE AS added
    FOR EACH STATEMENT EXECUTE FUNCTION nightrate.count_charges_v1();

INSERT INTO nightrate.charges_by_month (tenant_id, month, project_id, slot, charged_micros)
SELECT batches.tenant_id, coalesce(packs.month, CAST(date_trunc('month', transactions.created_at AT TIME ZONE 'UTC') AS date)),
       batches.project_id, 0, sum(entries.charged_micros)
  FROM nightrate.entries
  JOIN nightrate.transactions ON transactions.id = entries.transaction_id
  LEFT JOIN nightrate.packs ON packs.id = transactions.pack_id
  JOIN nightrate.batches ON batches.id = entries.batch_id
 GROUP BY 1, 2, 3;

-- A row is changed again and again, and never grows: room beside it keeps the index out of that.
ALTER TABLE nightrate.charges_by_month SET (fillfactor = 50);

CREATE FUNCTION nightrate.audit_budgets_v1() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'INSERT' THEN
        PERFORM nightrate.note_v1('budget.created', NEW.tenant_id, NEW.project_id, NEW.id, jsonb_build_object(
            'period', NEW.period, 'amount_micros', NEW.amount_micros, 'alert_shares_ppm', NEW.alert_shares_ppm,
            'core_tiers', NEW.core_tiers, 'core_share_ppm', NEW.core_share_ppm));
    ELSIF TG_OP = 'DELETE' THEN
        PERFORM nightrate.note_v1('budget.deleted', OLD.tenant_id, OLD.project_id, OLD.id, jsonb_build_object(
            'period', OLD.period, 'amount_micros', OLD.amount_micros));
    ELSE
        PERFORM nightrate.note_v1('budget.updated', NEW.tenant_id, NEW.project_id, NEW.id, nightrate.changes_v1(
            to_jsonb(OLD), to_jsonb(NEW), ARRAY['amount_micros', 'alert_shares_ppm', 'core_tiers', 'core_share_ppm']));
    END IF;
    -- What waits for it may go on at once.
    PERFORM pg_notify('nightrate_changed', '');
    RETURN NULL;
END $$;
CREATE TRIGGER budgets_audit_new AFTER INSERT OR DELETE ON nightrate.budgets
    FOR EACH ROW EXECUTE FUNCTION nightrate.audit_budgets_v1();
CREATE TRIGGER budgets_audit_change AFTER UPDATE ON nightrate.budgets
    FOR EACH ROW WHEN (OLD.* IS DISTINCT FROM NEW.*) EXECUTE FUNCTION nightrate.audit_budgets_v1();

CREATE FUNCTION nightrate.audit_top_ups_v1() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM nightrate.note_v1('budget.topped_up', budgets.tenant_id, budgets.project_id, budgets.id, jsonb_build_object(
                'amount_micros', NEW.amount_micros, 'period_start', NEW.period_start))
       FROM nightrate.budgets WHERE budgets.id = NEW.budget_id;
    PERFORM pg_notify('nightrate_changed', '');
    RETURN NULL;
END $$;
CREATE TRIGGER budget_top_ups_audit AFTER INSERT ON nightrate.budget_top_ups
    FOR EACH ROW EXECUTE FUNCTION nightrate.audit_top_ups_v1();

CREATE FUNCTION nightrate.tell_budget_v1() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM nightrate.tell_webhooks_v1(
                budgets.tenant_id, budgets.project_id, NULL,
                CASE NEW.mark WHEN 'share' THEN 'budget.alert' ELSE 'budget.reached' END, NULL,
                jsonb_build_object(
                    'id', budgets.id, 'project_id', budgets.project_id, 'period', budgets.period,
                    'period_start', NEW.period_start, 'limit_micros', NEW.limit_micros, 'spent_micros', NEW.spent_micros,
                    'share', NEW.share_ppm / 1000000.0)
                || CASE WHEN NEW.mark = 'share' THEN '{}'
                        ELSE jsonb_build_object('stopped', CASE NEW.mark WHEN 'reached' THEN 'all' ELSE 'non_core' END) END)
       FROM nightrate.budgets WHERE budgets.id = NEW.budget_id;
    RETURN NULL;
END $$;
CREATE TRIGGER budget_notices_told AFTER INSERT ON nightrate.budget_notices
    FOR EACH ROW EXECUTE FUNCTION nightrate.tell_budget_v1();

-- A batch that gets another tier gets another price: that is told with it.
CREATE OR REPLACE FUNCTION nightrate.audit_batches_v1() RETURNS trigger LANGUAGE plpgsql AS $$
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
        'tier', 'deadline_at', 'budget_micros', 'hold_until', 'priority', 'metadata', 'labels', 'project_id',
        'charge_multiplier_ppm', 'input_token_price_picos', 'output_token_price_picos']);
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
