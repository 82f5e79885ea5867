-- What no batch had the use of, by kind, over the last 30 days.
SELECT kind, sum(worker_seconds) AS worker_seconds, sum(effective_cost) AS cost
  FROM cost.utilisation
 WHERE is_waste AND day >= current_date - INTERVAL '30 days'
 GROUP BY kind
 ORDER BY cost DESC, kind;
