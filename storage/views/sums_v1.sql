-- What was summed up so far, and line by line what was not: together the journal, at every moment.
CREATE VIEW nightrate.cost_sums AS
SELECT hour, day, batch_id, kind, pool, market, provider, instance_type, region, zone, model, variant, tier, category,
       transaction_kind, method, currency, list_micros, contracted_micros, effective_micros, billed_micros,
       on_demand_micros, charged_micros, row_count, input_tokens, output_tokens, worker_us
  FROM nightrate.cost_hours
UNION ALL
SELECT hour, day, batch_id, kind, pool, market, provider, instance_type, region, zone, model, variant, tier, category,
       transaction_kind, method, currency, list_micros, contracted_micros, effective_micros, billed_micros,
       on_demand_micros, charged_micros, row_count, input_tokens, output_tokens, worker_us
  FROM nightrate.cost_pending
  -- OFFSET 0: looked up one by one. What is pending is little, whatever the statistics of a table that is emptied all
  -- the time make of it, and the journal is long.
 CROSS JOIN LATERAL (SELECT * FROM nightrate.cost_lines
                      WHERE cost_lines.transaction_id = cost_pending.transaction_id OFFSET 0) AS lines;

COMMENT ON VIEW nightrate.cost_sums IS 'The journal by hour: what was summed up, and what was not yet.';
