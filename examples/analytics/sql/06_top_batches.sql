-- The ten batches that cost the most, of those submitted in the last 60 days.
SELECT batch_id, tenant_id, model, effective_cost, charged, tokens, effective_per_million_tokens
  FROM cost.batches
 WHERE day >= current_date - INTERVAL '60 days'
 ORDER BY effective_cost DESC, batch_id
 LIMIT 10;
