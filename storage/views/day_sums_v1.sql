-- The same by day, which is what nearly all is asked of: some hundredths of the lines.
CREATE VIEW nightrate.cost_day_sums AS
SELECT day, batch_id, kind, pool, market, provider, instance_type, region, model, variant, tier, category,
       currency, list_micros, contracted_micros, effective_micros, billed_micros, on_demand_micros, charged_micros,
       row_count, input_tokens, output_tokens, worker_us
  FROM nightrate.cost_days
UNION ALL
SELECT day, batch_id, kind, pool, market, provider, instance_type, region, model, variant, tier, category,
       currency, list_micros, contracted_micros, effective_micros, billed_micros, on_demand_micros, charged_micros,
       row_count, input_tokens, output_tokens, worker_us
  FROM nightrate.cost_pending
 CROSS JOIN LATERAL (SELECT * FROM nightrate.cost_lines
                      WHERE cost_lines.transaction_id = cost_pending.transaction_id OFFSET 0) AS lines;

COMMENT ON VIEW nightrate.cost_day_sums IS 'The journal by day: what was summed up, and what was not yet.';
