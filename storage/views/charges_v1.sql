-- A view of the journal itself: fast for a day or a batch; sums over everything belong to the other views.
CREATE VIEW cost.charges AS
SELECT lines.transaction_id,
       lines.line,
       lines.day,
       lines.hour,
       lines.period_start,
       lines.period_stop,
       lines.posted_at,
       batches.tenant_id,
       batches.project_id,
       lines.batch_id,
       batches.labels,
       lines.model,
       lines.variant,
       CASE WHEN lines.batch_id IS NOT NULL THEN coalesce(lines.tier, batches.tier) END AS tier,
       lines.pool,
       lines.market,
       lines.provider,
       lines.instance_type,
       lines.region,
       lines.zone,
       lines.worker_id,
       lines.category,
       lines.kind,
       lines.transaction_kind,
       lines.method,
       lines.source,
       lines.currency,
       CAST(lines.list_micros * 0.000001 AS numeric(20, 6)) AS list_cost,
       CAST(lines.contracted_micros * 0.000001 AS numeric(20, 6)) AS contracted_cost,
       CAST(lines.effective_micros * 0.000001 AS numeric(20, 6)) AS effective_cost,
       CAST(lines.billed_micros * 0.000001 AS numeric(20, 6)) AS billed_cost,
       CAST(lines.on_demand_micros * 0.000001 AS numeric(20, 6)) AS on_demand_cost,
       CAST(lines.charged_micros * 0.000001 AS numeric(20, 6)) AS charged,
       CAST((lines.on_demand_micros - lines.effective_micros) * 0.000001 AS numeric(20, 6)) AS saving,
       lines.row_count AS requests,
       lines.input_tokens,
       lines.output_tokens,
       lines.input_tokens + lines.output_tokens AS tokens,
       CAST(lines.worker_us * 0.000001 AS numeric(20, 6)) AS worker_seconds
  FROM nightrate.cost_lines AS lines LEFT JOIN nightrate.batches ON batches.id = lines.batch_id;

COMMENT ON VIEW cost.charges IS 'Every line of the journal that says what was had for a cost: one row for each batch or overhead of each transaction. Corrections are rows of their own, and may be negative.';
COMMENT ON COLUMN cost.charges.transaction_id IS 'The transaction of the journal.';
COMMENT ON COLUMN cost.charges.line IS 'Which line of the transaction.';
COMMENT ON COLUMN cost.charges.day IS 'The day of use, UTC.';
COMMENT ON COLUMN cost.charges.hour IS 'The hour of use, UTC: that in which the period begins.';
COMMENT ON COLUMN cost.charges.period_start IS 'When the use began.';
COMMENT ON COLUMN cost.charges.period_stop IS 'When the use ended: the period does not contain it.';
COMMENT ON COLUMN cost.charges.posted_at IS 'When it was entered in the journal.';
COMMENT ON COLUMN cost.charges.tenant_id IS 'Who pays; NULL: overhead, which nobody does.';
COMMENT ON COLUMN cost.charges.project_id IS 'The project of the tenant; NULL: overhead.';
COMMENT ON COLUMN cost.charges.batch_id IS 'The batch; NULL: overhead.';
COMMENT ON COLUMN cost.charges.labels IS 'The batch''s labels as they are now, a JSON object of texts; NULL: none.';
COMMENT ON COLUMN cost.charges.model IS 'The model; NULL where time was spent on none.';
COMMENT ON COLUMN cost.charges.variant IS 'What ran: the model, or one of its variants; NULL where nothing did.';
COMMENT ON COLUMN cost.charges.tier IS 'The tier that it ran in, or where nothing did, the batch''s now; NULL: overhead.';
COMMENT ON COLUMN cost.charges.pool IS 'The pool of workers, or the supplier.';
COMMENT ON COLUMN cost.charges.market IS 'spot or on_demand; NULL where no worker was used.';
COMMENT ON COLUMN cost.charges.provider IS 'Whose machine it was; NULL: not known.';
COMMENT ON COLUMN cost.charges.instance_type IS 'The provider''s name for the kind of machine; NULL: not known.';
COMMENT ON COLUMN cost.charges.region IS 'Where; NULL: not known.';
COMMENT ON COLUMN cost.charges.zone IS 'Where in the region; NULL: not known.';
COMMENT ON COLUMN cost.charges.worker_id IS 'The worker; NULL where none was used.';
COMMENT ON COLUMN cost.charges.category IS 'compute, storage, network or external_api.';
COMMENT ON COLUMN cost.charges.kind IS 'work: a batch had the use of it; shared: overhead that a rule shared over batches; else the kind of overhead: boot, load, idle, drain, shadow, late, lost, preempted, retried, probe, minimum, rounding, unexplained, storage, network, external_api.';
COMMENT ON COLUMN cost.charges.transaction_kind IS 'accrual: as metered; settlement: trued up to what is billed; allocation: overhead shared; adjustment: to an imported bill; reversal: of another transaction.';
COMMENT ON COLUMN cost.charges.method IS 'The rule by which it was split over accounts; NULL: it was not.';
COMMENT ON COLUMN cost.charges.source IS 'Where the prices came from; NULL: the worker''s registration.';
COMMENT ON COLUMN cost.charges.currency IS 'ISO 4217.';
COMMENT ON COLUMN cost.charges.list_cost IS 'At the price that the provider publishes for that market at that moment, in units of `currency`.';
COMMENT ON COLUMN cost.charges.contracted_cost IS 'After negotiated discounts, in units of `currency`.';
COMMENT ON COLUMN cost.charges.effective_cost IS 'With commitments spread over what they cover: what it really cost, in units of `currency`.';
COMMENT ON COLUMN cost.charges.billed_cost IS 'What the invoice carries for this use, in units of `currency`.';
COMMENT ON COLUMN cost.charges.on_demand_cost IS 'What the same would have cost on demand, at list price, in units of `currency`.';
COMMENT ON COLUMN cost.charges.charged IS 'What the tenant pays, in units of `currency`; 0 where no tenant does.';
COMMENT ON COLUMN cost.charges.saving IS 'on_demand_cost less effective_cost, in units of `currency`.';
COMMENT ON COLUMN cost.charges.requests IS 'Requests that ended.';
COMMENT ON COLUMN cost.charges.input_tokens IS 'Tokens of prompts.';
COMMENT ON COLUMN cost.charges.output_tokens IS 'Tokens of answers.';
COMMENT ON COLUMN cost.charges.tokens IS 'input_tokens and output_tokens.';
COMMENT ON COLUMN cost.charges.worker_seconds IS 'Seconds of workers (of one GPU each), to the microsecond.';
