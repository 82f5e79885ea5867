-- Invariants that no constraint can express. Each function says what it holds and why.

-- Tables of record are only ever added to: a correction is a new row, never a changed one.
CREATE FUNCTION nightrate.refuse_change_v1() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION '% is append-only: % refused', TG_TABLE_NAME, TG_OP
        USING ERRCODE = 'integrity_constraint_violation';
END $$;

CREATE TRIGGER ledger_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON nightrate.ledger
    FOR EACH STATEMENT EXECUTE FUNCTION nightrate.refuse_change_v1();
CREATE TRIGGER worker_intervals_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON nightrate.worker_intervals
    FOR EACH STATEMENT EXECUTE FUNCTION nightrate.refuse_change_v1();
CREATE TRIGGER parts_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON nightrate.parts
    FOR EACH STATEMENT EXECUTE FUNCTION nightrate.refuse_change_v1();
CREATE TRIGGER part_slices_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON nightrate.part_slices
    FOR EACH STATEMENT EXECUTE FUNCTION nightrate.refuse_change_v1();

-- A worker's intervals cover its life without gap or overlap: each starts where the last one stopped.
-- The row lock taken here also makes two writers for one worker take turns.
CREATE FUNCTION nightrate.follow_meter_v1() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    UPDATE nightrate.workers SET metered_until_us = NEW.stop_us
     WHERE id = NEW.worker_id AND metered_until_us = NEW.start_us
       AND rate_micros_per_hour = NEW.rate_micros_per_hour;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'interval of % from % us does not follow its last one, or has another rate',
            NEW.worker_id, NEW.start_us USING ERRCODE = 'integrity_constraint_violation';
    END IF;
    RETURN NEW;
END $$;

CREATE TRIGGER worker_intervals_follow BEFORE INSERT ON nightrate.worker_intervals
    FOR EACH ROW EXECUTE FUNCTION nightrate.follow_meter_v1();

-- What an interval cost is charged in full and once: its ledger entries sum to its price. Checked at
-- commit, because interval and entries are separate statements of one transaction.
CREATE FUNCTION nightrate.charge_in_full_v1() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    price bigint;
    charged numeric;
BEGIN
    SELECT cost_micros INTO price FROM nightrate.worker_intervals
     WHERE worker_id = NEW.worker_id AND start_us = NEW.start_us;
    SELECT sum(amount_micros) INTO charged FROM nightrate.ledger
     WHERE worker_id = NEW.worker_id AND start_us = NEW.start_us;
    IF charged IS DISTINCT FROM price THEN
        RAISE EXCEPTION 'interval of % from % us costs % but % is charged',
            NEW.worker_id, NEW.start_us, price, charged USING ERRCODE = 'integrity_constraint_violation';
    END IF;
    RETURN NULL;
END $$;

CREATE CONSTRAINT TRIGGER worker_intervals_charged AFTER INSERT ON nightrate.worker_intervals
    DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION nightrate.charge_in_full_v1();
CREATE CONSTRAINT TRIGGER ledger_charged AFTER INSERT ON nightrate.ledger
    DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION nightrate.charge_in_full_v1();

-- A worker that ended is accounted for to its last reported microsecond.
CREATE FUNCTION nightrate.end_metered_v1() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NEW.ended_at IS NOT NULL AND OLD.ended_at IS NULL AND NEW.metered_until_us < NEW.uptime_us THEN
        RAISE EXCEPTION 'worker % ends with % us of its life not in the ledger',
            NEW.id, NEW.uptime_us - NEW.metered_until_us USING ERRCODE = 'integrity_constraint_violation';
    END IF;
    RETURN NEW;
END $$;

CREATE TRIGGER workers_end_metered BEFORE UPDATE OF ended_at ON nightrate.workers
    FOR EACH ROW EXECUTE FUNCTION nightrate.end_metered_v1();

INSERT INTO nightrate.tenants (id, name) VALUES ('tnt_default', 'default');
