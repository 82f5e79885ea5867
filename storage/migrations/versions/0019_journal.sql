-- The journal: transactions whose entries sum to nothing. Each function says what it holds and why.

-- What was charged so far, as balanced transactions: every interval with its entries, a credit of the pool that is owed
-- for it, and, as charges were costs until now, a credit of revenue for each that a batch pays.
INSERT INTO nightrate.transactions (key, kind, category, period_start, period_stop, worker_id, start_us, pack_id,
                                    lease_token, method, currency, created_at)
SELECT 'interval:' || span.worker_id || ':' || span.start_us, 'accrual', 'compute',
       workers.started_at + span.start_us * interval '1 microsecond',
       workers.started_at + span.stop_us * interval '1 microsecond',
       span.worker_id, span.start_us, span.pack_id, span.lease_token, span.split_rule, workers.currency, span.created_at
  FROM nightrate.worker_intervals AS span JOIN nightrate.workers ON workers.id = span.worker_id
 ORDER BY span.created_at, span.worker_id, span.start_us;

INSERT INTO nightrate.entries (transaction_id, line, account, batch_id, list_micros, contracted_micros, effective_micros,
                               billed_micros, on_demand_micros, charged_micros, row_count, input_tokens, output_tokens)
SELECT id, row_number() OVER (PARTITION BY id ORDER BY account) - 1, account, batch_id, cost, cost, cost, cost, cost, charged,
       row_count, input_tokens, output_tokens
  FROM (
    SELECT transactions.id, CASE WHEN batch_id IS NULL THEN account ELSE 'batch:' || batch_id END AS account, batch_id,
           amount_micros AS cost, CASE WHEN batch_id IS NULL THEN 0 ELSE amount_micros END AS charged,
           row_count, input_tokens, output_tokens
      FROM nightrate.ledger JOIN nightrate.transactions USING (worker_id, start_us)
    UNION ALL
    SELECT transactions.id, 'supplier:' || workers.pool, NULL, -cost_micros, 0, 0, 0, 0
      FROM nightrate.worker_intervals JOIN nightrate.transactions USING (worker_id, start_us)
      JOIN nightrate.workers ON workers.id = worker_id
    UNION ALL
    SELECT transactions.id, 'revenue:' || batches.tier, NULL, 0, -sum(amount_micros), 0, 0, 0
      FROM nightrate.ledger JOIN nightrate.transactions USING (worker_id, start_us)
      JOIN nightrate.batches ON batches.id = ledger.batch_id
     GROUP BY transactions.id, batches.tier) AS lines;

DROP TRIGGER worker_intervals_charged ON nightrate.worker_intervals;
DROP TABLE nightrate.ledger;
DROP FUNCTION nightrate.charge_in_full_v1();

CREATE TRIGGER transactions_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON nightrate.transactions
    FOR EACH STATEMENT EXECUTE FUNCTION nightrate.refuse_change_v1();
CREATE TRIGGER entries_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON nightrate.entries
    FOR EACH STATEMENT EXECUTE FUNCTION nightrate.refuse_change_v1();

-- A transaction's entries are written with it: what was balanced at its commit stays so.
CREATE FUNCTION nightrate.enter_with_transaction_v1() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    late bigint;
BEGIN
    SELECT transactions.id INTO late FROM added JOIN nightrate.transactions ON transactions.id = added.transaction_id
     WHERE transactions.posted_by <> CAST(CAST(pg_current_xact_id() AS text) AS bigint) LIMIT 1;
    IF FOUND THEN
        RAISE EXCEPTION 'transaction % was posted before: it takes no further entries', late
            USING ERRCODE = 'integrity_constraint_violation';
    END IF;
    RETURN NULL;
END $$;

CREATE TRIGGER entries_with_transaction AFTER INSERT ON nightrate.entries REFERENCING NEW TABLE AS added
    FOR EACH STATEMENT EXECUTE FUNCTION nightrate.enter_with_transaction_v1();

-- Every transaction balances, in each of the six amounts; that of an interval owes its price. Checked at commit, because
-- a transaction, its entries and its interval are separate statements.
CREATE FUNCTION nightrate.balance_v1() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    found record;
    price bigint;
BEGIN
    SELECT count(*) AS lines, sum(list_micros) AS list, sum(contracted_micros) AS contracted,
           sum(effective_micros) AS effective, sum(billed_micros) AS billed, sum(on_demand_micros) AS on_demand,
           sum(charged_micros) AS charged,
           -coalesce(sum(effective_micros) FILTER (WHERE account LIKE 'supplier:%'), 0) AS owed
      INTO found FROM nightrate.entries WHERE transaction_id = NEW.id;
    IF found.lines = 0
       OR (found.list, found.contracted, found.effective, found.billed, found.on_demand, found.charged)
          IS DISTINCT FROM (0::numeric, 0::numeric, 0::numeric, 0::numeric, 0::numeric, 0::numeric) THEN
        RAISE EXCEPTION 'transaction % (%) does not balance: % entries sum to %', NEW.id, NEW.key, found.lines, found
            USING ERRCODE = 'integrity_constraint_violation';
    END IF;
    IF NEW.start_us IS NOT NULL THEN
        SELECT cost_micros INTO price FROM nightrate.worker_intervals
         WHERE worker_id = NEW.worker_id AND start_us = NEW.start_us;
        IF price IS DISTINCT FROM found.owed THEN
            RAISE EXCEPTION 'interval of % from % us costs % but % is charged', NEW.worker_id, NEW.start_us, price, found.owed
                USING ERRCODE = 'integrity_constraint_violation';
        END IF;
    END IF;
    RETURN NULL;
END $$;

CREATE CONSTRAINT TRIGGER transactions_balance AFTER INSERT ON nightrate.transactions
    DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION nightrate.balance_v1();

-- No time without its price: every interval has its transaction.
CREATE FUNCTION nightrate.charge_interval_v1() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NOT EXISTS (SELECT FROM nightrate.transactions
                    WHERE worker_id = NEW.worker_id AND start_us = NEW.start_us) THEN
        RAISE EXCEPTION 'interval of % from % us costs % but nothing is charged', NEW.worker_id, NEW.start_us, NEW.cost_micros
            USING ERRCODE = 'integrity_constraint_violation';
    END IF;
    RETURN NULL;
END $$;

CREATE CONSTRAINT TRIGGER worker_intervals_charged AFTER INSERT ON nightrate.worker_intervals
    DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION nightrate.charge_interval_v1();

-- Who pays for each span of a worker's life, as it was accrued: the debits.
CREATE VIEW nightrate.accruals AS
SELECT transactions.worker_id, transactions.start_us, coalesce(entries.batch_id, entries.account) AS account,
       entries.batch_id, worker_intervals.kind, entries.row_count, entries.input_tokens,
       entries.output_tokens, entries.input_tokens + entries.output_tokens AS tokens,
       entries.effective_micros AS amount_micros, entries.charged_micros, transactions.currency, transactions.created_at
  FROM nightrate.transactions
  JOIN nightrate.worker_intervals USING (worker_id, start_us)
  JOIN nightrate.entries ON entries.transaction_id = transactions.id
 WHERE entries.account NOT LIKE 'supplier:%' AND entries.account NOT LIKE 'revenue:%';

COMMENT ON VIEW nightrate.accruals IS 'Who pays for each span of a worker''s life, as accrued; what was settled later is in entries.';
