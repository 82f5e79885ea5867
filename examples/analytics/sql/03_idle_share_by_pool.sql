-- How much of their time pools stood idle over the last 30 days, and what that cost.
SELECT pool, sum(CASE WHEN kind = 'idle' THEN worker_seconds ELSE 0 END) AS idle_seconds,
       round(sum(CASE WHEN kind = 'idle' THEN worker_seconds ELSE 0 END) / nullif(sum(worker_seconds), 0), 6) AS idle_share,
       sum(CASE WHEN kind = 'idle' THEN effective_cost ELSE 0 END) AS idle_cost
  FROM cost.utilisation
 WHERE day >= current_date - INTERVAL '30 days'
 GROUP BY pool
 ORDER BY pool;
