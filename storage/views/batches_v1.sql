-- Summed up before batches are joined: there are fewer batches than sums.
CREATE VIEW cost.batches AS
SELECT batches.id AS batch_id,
       CAST(batches.created_at AT TIME ZONE 'UTC' AS date) AS day,
       batches.tenant_id,
       batches.project_id,
       batches.labels,
       batches.state,
       batches.tier,
       batches.endpoint,
       sums.model,
       batches.created_at,
       batches.deadline_at,
       batches.completed_at,
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
       CAST(sums.worker_us * 0.000001 AS numeric(20, 6)) AS worker_seconds,
       CAST(round(sums.effective_micros * 1.0 / nullif(sums.input_tokens + sums.output_tokens, 0), 6) AS numeric(20, 6)) AS effective_per_million_tokens,
       CAST(round(sums.charged_micros * 1.0 / nullif(sums.input_tokens + sums.output_tokens, 0), 6) AS numeric(20, 6)) AS charged_per_million_tokens,
       CAST(round(sums.effective_micros * 0.001 / nullif(sums.row_count, 0), 6) AS numeric(20, 6)) AS effective_per_thousand_requests,
       CAST(round(sums.effective_micros * 3600.0 / nullif(sums.worker_us, 0), 6) AS numeric(20, 6)) AS effective_per_worker_hour
  FROM (SELECT batch_id, currency, min(model) AS model,
               CAST(sum(list_micros) AS bigint) AS list_micros,
               CAST(sum(contracted_micros) AS bigint) AS contracted_micros,
               CAST(sum(effective_micros) AS bigint) AS effective_micros,
               CAST(sum(billed_micros) AS bigint) AS billed_micros,
               CAST(sum(on_demand_micros) AS bigint) AS on_demand_micros,
               CAST(sum(charged_micros) AS bigint) AS charged_micros,
               CAST(sum(row_count) AS bigint) AS row_count,
               CAST(sum(input_tokens) AS bigint) AS input_tokens,
               CAST(sum(output_tokens) AS bigint) AS output_tokens,
               CAST(sum(worker_us) AS bigint) AS worker_us
          FROM nightrate.cost_day_sums WHERE batch_id IS NOT NULL GROUP BY batch_id, currency) AS sums
  JOIN nightrate.batches ON batches.id = sums.batch_id;

COMMENT ON VIEW cost.batches IS 'What each batch cost so far, and what a token, a request and an hour of it did. A batch that cost nothing yet is not listed.';
COMMENT ON COLUMN cost.batches.batch_id IS 'The batch; NULL: overhead.';
COMMENT ON COLUMN cost.batches.day IS 'The day on which the batch was submitted, UTC.';
COMMENT ON COLUMN cost.batches.tenant_id IS 'Who pays; NULL: overhead, which nobody does.';
COMMENT ON COLUMN cost.batches.project_id IS 'The project of the tenant; NULL: overhead.';
COMMENT ON COLUMN cost.batches.labels IS 'Its labels as they are now, a JSON object of texts; NULL: none.';
COMMENT ON COLUMN cost.batches.state IS 'Where it stands.';
COMMENT ON COLUMN cost.batches.tier IS 'Its tier now.';
COMMENT ON COLUMN cost.batches.endpoint IS 'What its requests call.';
COMMENT ON COLUMN cost.batches.model IS 'Its model.';
COMMENT ON COLUMN cost.batches.created_at IS 'When it was submitted.';
COMMENT ON COLUMN cost.batches.deadline_at IS 'When it is to be done.';
COMMENT ON COLUMN cost.batches.completed_at IS 'When it was completed; NULL: it is not.';
COMMENT ON COLUMN cost.batches.currency IS 'ISO 4217.';
COMMENT ON COLUMN cost.batches.list_cost IS 'At the price that the provider publishes for that market at that moment, in units of `currency`.';
COMMENT ON COLUMN cost.batches.contracted_cost IS 'After negotiated discounts, in units of `currency`.';
COMMENT ON COLUMN cost.batches.effective_cost IS 'With commitments spread over what they cover: what it really cost, in units of `currency`.';
COMMENT ON COLUMN cost.batches.billed_cost IS 'What the invoice carries for this use, in units of `currency`.';
COMMENT ON COLUMN cost.batches.on_demand_cost IS 'What the same would have cost on demand, at list price, in units of `currency`.';
COMMENT ON COLUMN cost.batches.charged IS 'What the tenant pays, in units of `currency`; 0 where no tenant does.';
COMMENT ON COLUMN cost.batches.saving IS 'on_demand_cost less effective_cost, in units of `currency`.';
COMMENT ON COLUMN cost.batches.requests IS 'Requests that ended.';
COMMENT ON COLUMN cost.batches.input_tokens IS 'Tokens of prompts.';
COMMENT ON COLUMN cost.batches.output_tokens IS 'Tokens of answers.';
COMMENT ON COLUMN cost.batches.tokens IS 'input_tokens and output_tokens.';
COMMENT ON COLUMN cost.batches.worker_seconds IS 'Seconds of workers (of one GPU each), to the microsecond.';
COMMENT ON COLUMN cost.batches.effective_per_million_tokens IS 'effective_cost for a million tokens of prompts and answers; NULL without tokens.';
COMMENT ON COLUMN cost.batches.charged_per_million_tokens IS 'charged for a million tokens of prompts and answers; NULL without tokens.';
COMMENT ON COLUMN cost.batches.effective_per_thousand_requests IS 'effective_cost for a thousand requests; NULL without requests.';
COMMENT ON COLUMN cost.batches.effective_per_worker_hour IS 'effective_cost for an hour of a worker, which has one GPU; NULL without time.';
