-- Which tiers work ran in over the last 30 days: tokens, cost, and what was charged beyond it.
SELECT tier, sum(requests) AS requests, sum(tokens) AS tokens, sum(effective_cost) AS cost,
       sum(charged) - sum(effective_cost) AS margin
  FROM cost.daily
 WHERE tenant_id IS NOT NULL AND day >= current_date - INTERVAL '30 days'
 GROUP BY tier
 ORDER BY tier;
