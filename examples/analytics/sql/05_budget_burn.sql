-- Batches that used the most of their budgets.
SELECT scope_id AS batch_id, tenant_id, budget, charged, remaining, share_used
  FROM cost.budget_burn
 WHERE scope = 'batch' AND day >= current_date - INTERVAL '60 days'
 ORDER BY share_used DESC, scope_id
 LIMIT 20;
