-- The same use seen five ways, by pool and category, over the last 30 days.
SELECT pool, category, sum(on_demand_cost) AS on_demand, sum(list_cost) AS list, sum(contracted_cost) AS contracted,
       sum(effective_cost) AS effective, sum(billed_cost) AS billed
  FROM cost.daily
 WHERE day >= current_date - INTERVAL '30 days'
 GROUP BY pool, category
 ORDER BY pool NULLS LAST, category;
