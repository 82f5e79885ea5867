-- The sums as they are kept, and not grouped again: whoever asks does that once.
CREATE VIEW cost.hourly AS
SELECT sums.hour,
       sums.day,
       batches.tenant_id,
       batches.project_id,
       sums.batch_id,
       sums.model,
       sums.variant,
       CASE WHEN sums.batch_id IS NOT NULL THEN coalesce(sums.tier, batches.tier) END AS tier,
       sums.pool,
       sums.market,
       sums.provider,
       sums.instance_type,
       sums.region,
       sums.zone,
       sums.category,
       sums.kind,
       sums.transaction_kind,
       sums.method,
       sums.currency,
       CAST(sums.list_micros * 0.000001 AS numeric(20, 6)) AS list_cost,
       CAST(sums.contracted_micros * 0.000001 AS numeric(20, 6)) AS contracted_cost,
       CAST(sums.effective_micros * 0.000001 AS numeric(20, 6)) AS effective_cost,
       CAST(sums.billed_micros * 0.000001 AS numeric(20, 6)) AS billed_cost,
       CAST(sums.on_demand_micros * 0.000001 AS numeric(20, 6)) AS on_demand_cost,
       CAST(sums.charged_micros * 0.000001 AS numeric(20, 6)) AS charged,
       CAST((sums.on_demand_micros - sums.effective_micros) * 0.000001 AS numeric(20, 6)) AS saving,
       sums.row_count AS requests,
       sums.input_tokens,
       sums.output_tokens,
       sums.input_tokens + sums.output_tokens AS tokens,
       CAST(sums.worker_us * 0.000001 AS numeric(20, 6)) AS worker_seconds
  FROM nightrate.cost_sums AS sums LEFT JOIN nightrate.batches ON batches.id = sums.batch_id;

COMMENT ON VIEW cost.hourly IS 'What was had and what it cost, by the hour and batch: the finest sums that are kept. Several rows may differ in nothing but their figures: sum them.';
COMMENT ON COLUMN cost.hourly.hour IS 'The hour of use, UTC: that in which the period begins.';
COMMENT ON COLUMN cost.hourly.day IS 'The day of use, UTC.';
COMMENT ON COLUMN cost.hourly.tenant_id IS 'Who pays; NULL: overhead, which nobody does.';
COMMENT ON COLUMN cost.hourly.project_id IS 'The project of the tenant; NULL: overhead.';
COMMENT ON COLUMN cost.hourly.batch_id IS 'The batch; NULL: overhead.';
COMMENT ON COLUMN cost.hourly.model IS 'The model; NULL where time was spent on none.';
COMMENT ON COLUMN cost.hourly.variant IS 'What ran: the model, or one of its variants; NULL where nothing did.';
COMMENT ON COLUMN cost.hourly.tier IS 'The tier that it ran in, or where nothing did, the batch''s now; NULL: overhead.';
COMMENT ON COLUMN cost.hourly.pool IS 'The pool of workers, or the supplier.';
COMMENT ON COLUMN cost.hourly.market IS 'spot or on_demand; NULL where no worker was used.';
COMMENT ON COLUMN cost.hourly.provider IS 'Whose machine it was; NULL: not known.';
COMMENT ON COLUMN cost.hourly.instance_type IS 'The provider''s name for the kind of machine; NULL: not known.';
COMMENT ON COLUMN cost.hourly.region IS 'Where; NULL: not known.';
COMMENT ON COLUMN cost.hourly.zone IS 'Where in the region; NULL: not known.';
COMMENT ON COLUMN cost.hourly.category IS 'compute, storage, network or external_api.';
COMMENT ON COLUMN cost.hourly.kind IS 'work: a batch had the use of it; shared: overhead that a rule shared over batches; else the kind of overhead: boot, load, idle, drain, shadow, late, lost, preempted, retried, probe, minimum, rounding, unexplained, storage, network, external_api.';
COMMENT ON COLUMN cost.hourly.transaction_kind IS 'accrual: as metered; settlement: trued up to what is billed; allocation: overhead shared; adjustment: to an imported bill; reversal: of another transaction.';
COMMENT ON COLUMN cost.hourly.method IS 'The rule by which it was split over accounts; NULL: it was not.';
COMMENT ON COLUMN cost.hourly.currency IS 'ISO 4217.';
COMMENT ON COLUMN cost.hourly.list_cost IS 'At the price that the provider publishes for that market at that moment, in units of `currency`.';
COMMENT ON COLUMN cost.hourly.contracted_cost IS 'After negotiated discounts, in units of `currency`.';
COMMENT ON COLUMN cost.hourly.effective_cost IS 'With commitments spread over what they cover: what it really cost, in units of `currency`.';
COMMENT ON COLUMN cost.hourly.billed_cost IS 'What the invoice carries for this use, in units of `currency`.';
COMMENT ON COLUMN cost.hourly.on_demand_cost IS 'What the same would have cost on demand, at list price, in units of `currency`.';
COMMENT ON COLUMN cost.hourly.charged IS 'What the tenant pays, in units of `currency`; 0 where no tenant does.';
COMMENT ON COLUMN cost.hourly.saving IS 'on_demand_cost less effective_cost, in units of `currency`.';
COMMENT ON COLUMN cost.hourly.requests IS 'Requests that ended.';
COMMENT ON COLUMN cost.hourly.input_tokens IS 'Tokens of prompts.';
COMMENT ON COLUMN cost.hourly.output_tokens IS 'Tokens of answers.';
COMMENT ON COLUMN cost.hourly.tokens IS 'input_tokens and output_tokens.';
COMMENT ON COLUMN cost.hourly.worker_seconds IS 'Seconds of workers (of one GPU each), to the microsecond.';
