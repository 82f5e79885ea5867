-- What a million tokens cost by model and variant over the last 30 days: the work alone, and with its share of overhead.
SELECT model, variant, sum(tokens) AS tokens,
       round(sum(effective_cost) * 1000000 / nullif(sum(tokens), 0), 6) AS cost_per_million,
       round(sum(loaded_cost) * 1000000 / nullif(sum(tokens), 0), 6) AS loaded_cost_per_million
  FROM cost.unit_costs
 WHERE day >= current_date - INTERVAL '30 days'
 GROUP BY model, variant
 ORDER BY model, variant;
