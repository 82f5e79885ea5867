-- Summed up by batch and day before labels multiply it.
CREATE VIEW cost.labels AS
SELECT sums.day,
       batches.tenant_id,
       batches.project_id,
       labels.key AS label_key,
       labels.value AS label_value,
       sums.model,
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
  FROM (SELECT day, batch_id, model, currency,
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
          FROM nightrate.cost_day_sums WHERE batch_id IS NOT NULL GROUP BY day, batch_id, model, currency) AS sums
  JOIN nightrate.batches ON batches.id = sums.batch_id
 CROSS JOIN LATERAL jsonb_each_text(batches.labels) AS labels
 GROUP BY 1, 2, 3, 4, 5, 6, 7;

COMMENT ON VIEW cost.labels IS 'What was had and what it cost, by day and label. A batch with several labels is in the rows of each: sum over one label_key at a time; batches without it are in none.';
COMMENT ON COLUMN cost.labels.day IS 'The day of use, UTC.';
COMMENT ON COLUMN cost.labels.tenant_id IS 'Who pays; NULL: overhead, which nobody does.';
COMMENT ON COLUMN cost.labels.project_id IS 'The project of the tenant; NULL: overhead.';
COMMENT ON COLUMN cost.labels.label_key IS 'The label''s name.';
COMMENT ON COLUMN cost.labels.label_value IS 'The label''s value.';
COMMENT ON COLUMN cost.labels.model IS 'The model; NULL where time was spent on none.';
COMMENT ON COLUMN cost.labels.currency IS 'ISO 4217.';
COMMENT ON COLUMN cost.labels.list_cost IS 'At the price that the provider publishes for that market at that moment, in units of `currency`.';
COMMENT ON COLUMN cost.labels.contracted_cost IS 'After negotiated discounts, in units of `currency`.';
COMMENT ON COLUMN cost.labels.effective_cost IS 'With commitments spread over what they cover: what it really cost, in units of `currency`.';
COMMENT ON COLUMN cost.labels.billed_cost IS 'What the invoice carries for this use, in units of `currency`.';
COMMENT ON COLUMN cost.labels.on_demand_cost IS 'What the same would have cost on demand, at list price, in units of `currency`.';
COMMENT ON COLUMN cost.labels.charged IS 'What the tenant pays, in units of `currency`; 0 where no tenant does.';
COMMENT ON COLUMN cost.labels.saving IS 'on_demand_cost less effective_cost, in units of `currency`.';
COMMENT ON COLUMN cost.labels.requests IS 'Requests that ended.';
COMMENT ON COLUMN cost.labels.input_tokens IS 'Tokens of prompts.';
COMMENT ON COLUMN cost.labels.output_tokens IS 'Tokens of answers.';
COMMENT ON COLUMN cost.labels.tokens IS 'input_tokens and output_tokens.';
COMMENT ON COLUMN cost.labels.worker_seconds IS 'Seconds of workers (of one GPU each), to the microsecond.';
