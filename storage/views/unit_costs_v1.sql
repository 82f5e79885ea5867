-- Overhead is loaded on the work of its pool and day in proportion to what that cost.
CREATE VIEW cost.unit_costs AS
SELECT sums.day,
       sums.model,
       sums.variant,
       sums.tier,
       sums.pool,
       sums.market,
       sums.currency,
       CAST(sums.effective_micros * 0.000001 AS numeric(20, 6)) AS effective_cost,
       CAST(sums.charged_micros * 0.000001 AS numeric(20, 6)) AS charged,
       CAST(sums.loaded_micros * 0.000001 AS numeric(20, 6)) AS loaded_cost,
       sums.row_count AS requests,
       sums.input_tokens,
       sums.output_tokens,
       sums.input_tokens + sums.output_tokens AS tokens,
       CAST(sums.worker_us * 0.000001 AS numeric(20, 6)) AS worker_seconds,
       CAST(round(sums.effective_micros * 1.0 / nullif(sums.input_tokens + sums.output_tokens, 0), 6) AS numeric(20, 6)) AS effective_per_million_tokens,
       CAST(round(sums.charged_micros * 1.0 / nullif(sums.input_tokens + sums.output_tokens, 0), 6) AS numeric(20, 6)) AS charged_per_million_tokens,
       CAST(round(sums.loaded_micros * 1.0 / nullif(sums.input_tokens + sums.output_tokens, 0), 6) AS numeric(20, 6)) AS loaded_per_million_tokens,
       CAST(round(sums.effective_micros * 0.001 / nullif(sums.row_count, 0), 6) AS numeric(20, 6)) AS effective_per_thousand_requests,
       CAST(round(sums.effective_micros * 3600.0 / nullif(sums.worker_us, 0), 6) AS numeric(20, 6)) AS effective_per_worker_hour
  FROM (SELECT found.*,
               round(effective_micros * sum(pool_micros) OVER wide / nullif(sum(effective_micros) OVER wide, 0)) AS loaded_micros
          FROM (SELECT day, model, variant, tier, pool, market, currency,
                       sum(effective_micros) FILTER (WHERE batch_id IS NOT NULL) AS effective_micros,
                       sum(effective_micros) AS pool_micros,
                       sum(charged_micros) AS charged_micros, CAST(sum(row_count) AS bigint) AS row_count,
                       CAST(sum(input_tokens) AS bigint) AS input_tokens,
                       CAST(sum(output_tokens) AS bigint) AS output_tokens,
                       sum(worker_us) FILTER (WHERE batch_id IS NOT NULL) AS worker_us, bool_or(batch_id IS NOT NULL) AS is_work
                  FROM (SELECT sums.*, CASE WHEN sums.batch_id IS NOT NULL THEN coalesce(sums.own_tier, batches.tier) END AS tier
                          FROM (SELECT day, model, variant, tier AS own_tier, pool, market, currency, batch_id,
                                       effective_micros, charged_micros, row_count, input_tokens, output_tokens, worker_us
                                  FROM nightrate.cost_day_sums) AS sums
                          LEFT JOIN nightrate.batches ON batches.id = sums.batch_id) AS lines
                 GROUP BY day, model, variant, tier, pool, market, currency) AS found
        WINDOW wide AS (PARTITION BY day, pool, currency)) AS sums
 WHERE sums.is_work;

COMMENT ON VIEW cost.unit_costs IS 'What a million tokens, a thousand requests and an hour of a worker cost, by day, model, variant, tier, pool and market; with the pool''s overhead, and without.';
COMMENT ON COLUMN cost.unit_costs.day IS 'The day of use, UTC.';
COMMENT ON COLUMN cost.unit_costs.model IS 'The model; NULL where time was spent on none.';
COMMENT ON COLUMN cost.unit_costs.variant IS 'What ran: the model, or one of its variants; NULL where nothing did.';
COMMENT ON COLUMN cost.unit_costs.tier IS 'The tier that it ran in.';
COMMENT ON COLUMN cost.unit_costs.pool IS 'The pool of workers, or the supplier.';
COMMENT ON COLUMN cost.unit_costs.market IS 'spot or on_demand; NULL where no worker was used.';
COMMENT ON COLUMN cost.unit_costs.currency IS 'ISO 4217.';
COMMENT ON COLUMN cost.unit_costs.effective_cost IS 'With commitments spread over what they cover: what it really cost, in units of `currency`.';
COMMENT ON COLUMN cost.unit_costs.charged IS 'What the tenant pays, in units of `currency`; 0 where no tenant does.';
COMMENT ON COLUMN cost.unit_costs.loaded_cost IS 'effective_cost with the pool''s overhead of that day on top, in proportion to effective_cost; rounded to the micro-unit.';
COMMENT ON COLUMN cost.unit_costs.requests IS 'Requests that ended.';
COMMENT ON COLUMN cost.unit_costs.input_tokens IS 'Tokens of prompts.';
COMMENT ON COLUMN cost.unit_costs.output_tokens IS 'Tokens of answers.';
COMMENT ON COLUMN cost.unit_costs.tokens IS 'input_tokens and output_tokens.';
COMMENT ON COLUMN cost.unit_costs.worker_seconds IS 'Seconds of workers (of one GPU each), to the microsecond.';
COMMENT ON COLUMN cost.unit_costs.effective_per_million_tokens IS 'effective_cost for a million tokens of prompts and answers; NULL without tokens.';
COMMENT ON COLUMN cost.unit_costs.charged_per_million_tokens IS 'charged for a million tokens of prompts and answers; NULL without tokens.';
COMMENT ON COLUMN cost.unit_costs.loaded_per_million_tokens IS 'loaded_cost for a million tokens; NULL without tokens.';
COMMENT ON COLUMN cost.unit_costs.effective_per_thousand_requests IS 'effective_cost for a thousand requests; NULL without requests.';
COMMENT ON COLUMN cost.unit_costs.effective_per_worker_hour IS 'effective_cost for an hour of a worker, which has one GPU; NULL without time.';
