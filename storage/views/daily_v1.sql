-- What most reports start from.
CREATE VIEW cost.daily AS
SELECT sums.day,
       batches.tenant_id,
       batches.project_id,
       sums.model,
       CASE WHEN sums.batch_id IS NOT NULL THEN coalesce(sums.tier, batches.tier) END AS tier,
       sums.pool,
       sums.category,
       sums.currency,
       CAST(sum(sums.list_micros) * 0.000001 AS numeric(20, 6)) AS list_cost,
       CAST(sum(sums.contracted_micros) * 0.000001 AS numeric(20, 6)) AS contracted_cost,
       CAST(sum(sums.effective_micros) * 0.000001 AS numeric(20, 6)) AS effective_cost,
       CAST(sum(sums.billed_micros) * 0.000001 AS numeric(20, 6)) AS billed_cost,
       CAST(sum(sums.on_demand_micros) * 0.000001 AS numeric(20, 6)) AS on_demand_cost,
       CAST(sum(sums.charged_micros) * 0.000001 AS numeric(20, 6)) AS charged,
       CAST((sum(sums.on_demand_micros) - sum(sums.effective_micros)) * 0.000001 AS numeric(20, 6)) AS saving,
       CAST(sum(sums.row_count) AS bigint) AS requests,
       CAST(sum(sums.input_tokens) AS bigint) AS input_tokens,
       CAST(sum(sums.output_tokens) AS bigint) AS output_tokens,
       CAST(sum(sums.input_tokens + sums.output_tokens) AS bigint) AS tokens,
       CAST(sum(sums.worker_us) * 0.000001 AS numeric(20, 6)) AS worker_seconds
  FROM nightrate.cost_day_sums AS sums LEFT JOIN nightrate.batches ON batches.id = sums.batch_id
 GROUP BY 1, 2, 3, 4, 5, 6, 7, 8;

COMMENT ON VIEW cost.daily IS 'What was had and what it cost, by day, tenant, project, model, tier, pool and category; overhead has no tenant.';
COMMENT ON COLUMN cost.daily.day IS 'The day of use, UTC.';
COMMENT ON COLUMN cost.daily.tenant_id IS 'Who pays; NULL: overhead, which nobody does.';
COMMENT ON COLUMN cost.daily.project_id IS 'The project of the tenant; NULL: overhead.';
COMMENT ON COLUMN cost.daily.model IS 'The model; NULL where time was spent on none.';
COMMENT ON COLUMN cost.daily.tier IS 'The tier that it ran in, or where nothing did, the batch''s now; NULL: overhead.';
COMMENT ON COLUMN cost.daily.pool IS 'The pool of workers, or the supplier.';
COMMENT ON COLUMN cost.daily.category IS 'compute, storage, network or external_api.';
COMMENT ON COLUMN cost.daily.currency IS 'ISO 4217.';
COMMENT ON COLUMN cost.daily.list_cost IS 'At the price that the provider publishes for that market at that moment, in units of `currency`.';
COMMENT ON COLUMN cost.daily.contracted_cost IS 'After negotiated discounts, in units of `currency`.';
COMMENT ON COLUMN cost.daily.effective_cost IS 'With commitments spread over what they cover: what it really cost, in units of `currency`.';
COMMENT ON COLUMN cost.daily.billed_cost IS 'What the invoice carries for this use, in units of `currency`.';
COMMENT ON COLUMN cost.daily.on_demand_cost IS 'What the same would have cost on demand, at list price, in units of `currency`.';
COMMENT ON COLUMN cost.daily.charged IS 'What the tenant pays, in units of `currency`; 0 where no tenant does.';
COMMENT ON COLUMN cost.daily.saving IS 'on_demand_cost less effective_cost, in units of `currency`.';
COMMENT ON COLUMN cost.daily.requests IS 'Requests that ended.';
COMMENT ON COLUMN cost.daily.input_tokens IS 'Tokens of prompts.';
COMMENT ON COLUMN cost.daily.output_tokens IS 'Tokens of answers.';
COMMENT ON COLUMN cost.daily.tokens IS 'input_tokens and output_tokens.';
COMMENT ON COLUMN cost.daily.worker_seconds IS 'Seconds of workers (of one GPU each), to the microsecond.';
